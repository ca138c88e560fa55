"""`report`: digest the run, choose images, fetch them, write the page. The run is only read."""

from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from cam_ops.errors import StorageError
from cam_ops.metrics.signals import suspected_shortcuts
from cam_ops.settings import MIN_AREA, Components, height_and_width
from cluster.executors.choose import ExecutorName, choose_replicas, no_gpus, open_executor
from cluster.executors.progress import Progress
from cluster.executors.work import Work
from cluster.process.console import say
from cluster.report.cards import make_cards, read_rows
from cluster.report.commands import commands_of
from cluster.report.config import ReportConfig
from cluster.report.destination import destination_of
from cluster.report.digest import EDGES, STEPS, Digest, no_digest
from cluster.report.galleries import KINDS, Found, GalleryKind, nothing_found, share_out
from cluster.report.judged import JUDGED_KINDS, AuditedClass, Judged, read_judged, truths_of
from cluster.report.page import render
from cluster.report.records import Card, ClassRow, Gallery, Head, Histogram, Place, Reason, Report, Setting
from cluster.report.suspects import SUSPECTED, suspects_found
from cluster.runs.census import Census, take_census
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.plan import check_plan
from cluster.runs.record import Run, existing_run, maps_of

IMAGES_PER_PART = 4096
MAX_PARTS = 256  # the digest of a part holds megabytes of sums, whatever the number of images
FEW_IMAGES = 32768  # Ray starts in some ten seconds, in which one process does as many
MAX_CLASSES = 1000  # in the table
MAX_BYTES = 9_500_000  # of pictures and maps, so that the page stays below 12 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What came of it."""

    where: str
    num_bytes: int
    census: Census
    num_shown: int


def report(config: ReportConfig) -> Reported:
    """Write the page of a run; raises StorageError where nothing of it is done, or it is damaged."""
    run_dir = open_run_dir(config.run, config.options)
    run = existing_run(run_dir)
    maps_of(run_dir, run)
    check_plan(run_dir, run.plan)
    destination = destination_of(config, run_dir)
    shards = sorted(shard for shard in run_dir.shards("images") if shard < run.plan.num_shards)
    if not shards:
        raise StorageError(f"no shard of {run_dir.root} is committed yet; run its `{run.command}` command again")
    census = take_census(run_dir, run, shards)
    digest = _digest(config, run_dir, run, shards)
    judged = read_judged(run_dir, run, config.max_images)
    page = _report(config, run_dir, run, census, digest, judged, is_whole=len(shards) == run.plan.num_shards)
    content = render(page).encode()
    destination.publish(content)
    return Reported(where=destination.where, num_bytes=len(content), census=census, num_shown=len(page.cards))


def _digest(config: ReportConfig, run_dir: RunDir, run: Run, shards: list[int]) -> Digest:
    """Have replicas digest the run, and add up."""
    size = run.plan.shard_size
    step = max(-(-IMAGES_PER_PART // size), -(-len(shards) // MAX_PARTS))
    parts = tuple(tuple(shards[first : first + step]) for first in range(0, len(shards), step))
    work = Work(
        device="cpu",
        factory="cluster.report.replica:ReportReplica",
        arguments=(run_dir, run.request.fingerprint(), parts, config.max_images),
    )
    num_images = min(len(shards) * size, run.plan.num_images)
    progress = Progress(num_images=num_images, num_shards=len(parts), done_images=0, done_shards=0)
    digest = no_digest(run, config.max_images)
    with closing(open_executor(_executor(config, num_images), config.ray_address, no_gpus)) as executor:
        replicas = choose_replicas(config.replicas, "cpu", executor)
        reports = executor.run(work, replicas, range(len(parts)), lambda _: False, config.shard_timeout)
        with closing(reports):
            for report in reports:
                digest += report.findings
                if len(parts) > 1:
                    progress.add(report)
    return digest


def _executor(config: ReportConfig, num_images: int) -> ExecutorName:
    """Return what `auto` means: actors where there is enough for two to do."""
    if config.executor != "auto":
        return config.executor
    return "ray" if num_images > FEW_IMAGES or config.ray_address or (config.replicas or 1) > 1 else "inline"


def _report(
    config: ReportConfig,
    run_dir: RunDir,
    run: Run,
    census: Census,
    digest: Digest,
    judged: Judged | None,
    *,
    is_whole: bool,
) -> Report:
    """Make all that the page shows."""
    found = _found(census, digest, judged, config.max_images)
    galleries, cards, left_out = _shown(config, run_dir, run, found, judged)
    shortcuts = {shortcut.class_id: shortcut.place for shortcut in suspected_shortcuts(digest.sums)}
    classes = _classes(run, digest, shortcuts, judged.classes if judged else {})
    audited = judged.part.metrics if judged else None
    return Report(
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=version("camray"),
        head=_head(run_dir, run, census, digest),
        setting=_setting(run),
        commands=commands_of(
            run_dir,
            run,
            None,
            is_whole=is_whole,
            truth=str(audited["truth"]["path"]) if audited and audited["truth"] else None,
        ),
        galleries=galleries,
        cards=cards,
        left_out=left_out,
        histograms=tuple(
            Histogram(name=name, edges=EDGES[name], counts=counts)
            for name, counts in digest.histograms.items()
            if name != "probability" or run.request.calibration
        ),
        density=digest.sums.density_CGG.sum(0),
        classes=classes[:MAX_CLASSES],
        classes_total=len(classes),
        audit=judged.part if judged else None,
        history=None,
    )


def _found(
    census: Census, digest: Digest, judged: Judged | None, most: int
) -> list[tuple[GalleryKind, Found]]:
    """Return the galleries in which there is an image, in the order of the page."""
    kinds = {kind.key: kind for kind in (KINDS[0], *JUDGED_KINDS, SUSPECTED, *KINDS[1:])}
    found = {**digest.found, **(judged.found if judged else {})}
    if census.agreement:
        found[SUSPECTED.key] = suspects_found(census.agreement, most)
    pairs = [(kind, found.get(key, nothing_found(most))) for key, kind in kinds.items()]
    return [(kind, each) for kind, each in pairs if each.total]


def _shown(
    config: ReportConfig, run_dir: RunDir, run: Run, found: list[tuple[GalleryKind, Found]], judged: Judged | None
) -> tuple[tuple[Gallery, ...], tuple[Card, ...], str]:
    """Choose images, read them, and make cards as far as they fit."""
    most = config.max_images
    chosen = share_out([each.picks[: kind.limit(each.total, most)] for kind, each in found], most)
    places: list[list[Place]] = [
        [(int(each.picks["shard"][at]), int(each.picks["row"][at])) for at in ats]
        for (_, each), ats in zip(found, chosen, strict=True)
    ]
    in_turn = [place for turn in _turns(places) for place in turn]
    number = {place: at for at, place in enumerate(dict.fromkeys(in_turn))}
    rows = read_rows(run_dir, run, number)
    truths = truths_of(run_dir, run, number) if judged else {}
    cards = make_cards(run, [rows[place] for place in number], config.options, MAX_BYTES)
    cards = [replace(card, truth=truths.get(place)) for card, place in zip(cards, number, strict=False)]
    left_out = ""
    if len(cards) < len(number):
        left_out = f"{len(number) - len(cards)} of {len(number)} images are left out, as the page would exceed 12 MB."
        say(left_out)
    galleries = tuple(
        Gallery(
            key=kind.key,
            title=kind.title,
            says=kind.says,
            total=each.total,
            cards=tuple(number[place] for place in of_gallery if number[place] < len(cards)),
        )
        for (kind, each), of_gallery in zip(found, places, strict=True)
    )
    return galleries, tuple(cards), left_out


def _turns(places: list[list[Place]]) -> list[list[Place]]:
    """Return the first of each gallery, then the second of each, and so on."""
    most = max((len(each) for each in places), default=0)
    return [[each[turn] for each in places if turn < len(each)] for turn in range(most)]


def _classes(
    run: Run, digest: Digest, shortcuts: dict[int, str], audited: dict[int, AuditedClass]
) -> tuple[ClassRow, ...]:
    """Return what there is to say of each class that has a map, a label or a prediction, most maps first."""
    counts, sums = digest.by_class, digest.sums
    mean_Chw = sums.mean_maps()
    at = {int(class_id): place for place, class_id in enumerate(sums.class_C)}
    known = np.flatnonzero(counts["labelled"] + counts["predicted"] + counts["maps"]).tolist()
    rows = []
    for class_id in sorted(known, key=lambda class_id: (-int(counts["maps"][class_id]), class_id)):
        of_class = {name: int(counts_K[class_id]) for name, counts_K in counts.items()}
        score_steps, area_steps = of_class.pop("score_steps"), of_class.pop("area_steps")
        place = at.get(class_id)
        has_map = place is not None and sums.num_maps_C[place] > 0
        rows.append(
            ClassRow(
                class_id=class_id,
                name=run.class_names[class_id],
                **of_class,
                mean_score=score_steps / STEPS / of_class["maps"] if of_class["maps"] else None,
                mean_area=area_steps / STEPS / of_class["boxes"] if of_class["boxes"] else None,
                mean_map=mean_Chw[place] if has_map else None,
                density=np.zeros_like(sums.density_CGG.sum(0)) if place is None else sums.density_CGG[place],
                place=shortcuts.get(class_id),
                gt_known_loc=audited[class_id].gt_known_loc if class_id in audited else None,
                ap=audited[class_id].ap if class_id in audited else None,
            )
        )
    return tuple(rows)


def _head(run_dir: RunDir, run: Run, census: Census, digest: Digest) -> Head:
    request, totals = run.request, census.totals
    high, wide = height_and_width(request.preprocessing.image_size)
    grid = "x".join(map(str, run.grid))
    refined = "refined by the network's own features" if request.refinement else "plain"
    thresholds = " ".join(map(str, request.boxes.threshold))
    facts = {
        "network": request.model,
        "digest": request.model_digest,
        "maps": f"{request.explain.method}, {grid}, {refined}",
        "boxes": f"threshold {'of each class, calibrated' if request.calibration else thresholds}, "
        f"{request.maps.normalise}, {request.boxes.components}",
        "classes": request.classes,
        "input": f"{high}x{wide} pixels, {request.preprocessing.resize}",
        "computed in": f"{request.precision} on {request.device}{', compiled' if request.compiled else ''}",
        **({"maps from": run.maps_from.root} if run.maps_from else {}),
    }
    return Head(
        root=run_dir.root,
        command_line=None,
        sources=request.addresses,
        facts=tuple(facts.items()),
        images=run.plan.num_images,
        done=totals.images,
        ok=totals.statuses.get("ok", 0),
        maps=totals.maps,
        boxes=totals.boxes,
        without_box=int(digest.by_class["empty"].sum()),
        reasons=tuple(
            Reason(status=reason.status, error=reason.error, images=reason.images, example=reason.example)
            for reason in census.reasons
        ),
        seconds=None,
        labels=_agreement(census),
    )


def _agreement(census: Census) -> str | None:
    agreement = census.agreement
    if agreement is None or not agreement.judged:
        return None
    chance = f"; chance alone would give {agreement.chance:.1%}" if agreement.is_near_chance else ""
    return f"the label is the network's best class in {agreement.top1 / agreement.judged:.1%} of {agreement.judged}{chance}"


def _setting(run: Run) -> Setting:
    request = run.request
    choices: tuple[Components, ...] = ("largest", "all", "peaks")
    own = request.boxes.min_area
    return Setting(
        input=height_and_width(request.preprocessing.image_size),
        recipe=request.maps.recipe,
        normalise=request.maps.normalise,
        components=request.boxes.components,
        threshold=request.boxes.threshold[0],
        least_areas={each: MIN_AREA[each] if own is None or each == "largest" else own for each in choices},
        is_calibrated=request.calibration is not None,
    )
