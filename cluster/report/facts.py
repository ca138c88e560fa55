"""What the page says of the run in words and numbers: its head, its classes, how its boxes were made."""

import numpy as np

from cam_ops.metrics.signals import suspected_shortcuts
from cam_ops.settings import MIN_AREA, Components, height_and_width
from cluster.process.console import shortened
from cluster.report.commands import typed
from cluster.report.digest import STEPS, Digest
from cluster.report.judged import AuditedClass
from cluster.report.records import ClassRow, Head, Reason, Setting
from cluster.runs.census import Census
from cluster.runs.directory import RunDir
from cluster.runs.history import RunHistory
from cluster.runs.part import Part
from cluster.runs.record import Run

MAX_REASONS = 30
MAX_SOURCES = 30
MAX_TEXT = 300  # characters


def head_of(run_dir: RunDir, run: Run, part: Part, census: Census, digest: Digest, history: RunHistory | None) -> Head:
    request, totals = run.request, census.totals
    high, wide = height_and_width(request.preprocessing.image_size)
    grid = "x".join(map(str, run.grid))
    refined = "refined by the network's own features" if request.refinement else "plain"
    thresholds = " ".join(map(str, request.boxes.threshold))
    calibrated = ", calibrated" if request.calibration else ""
    facts = {
        **({"this page": part.words} if part.words else {}),
        "network": request.model,
        "digest": request.model_digest,
        "maps": f"{request.explain.method}, {grid}, {refined}",
        "boxes": f"threshold {'of each class' if is_per_class(run) else thresholds}{calibrated}, "
        f"{request.maps.normalise}, {request.boxes.components}",
        "classes": request.classes,
        "input": f"{high}x{wide} pixels, {request.preprocessing.resize}",
        "computed in": f"{request.precision} on {request.device}{', compiled' if request.compiled else ''}",
        **({"maps from": run.maps_from.root} if run.maps_from else {}),
    }
    return Head(
        root=run_dir.root,
        command_line=typed(run),
        sources=_first_of(request.addresses),
        facts=tuple(facts.items()),
        images=run.plan.num_images,
        done=totals.images,
        ok=totals.statuses.get("ok", 0),
        maps=totals.maps,
        boxes=totals.boxes,
        without_box=int(digest.by_class["empty"].sum()),
        reasons=tuple(
            Reason(
                status=shortened(reason.status, MAX_TEXT),
                error=shortened(reason.error, MAX_TEXT),
                images=reason.images,
                example=shortened(reason.example, MAX_TEXT),
            )
            for reason in census.reasons[:MAX_REASONS]
        ),
        other_reasons=len(census.reasons[MAX_REASONS:]),
        rate=sum(session.images for session in history.sessions) / history.working_s
        if history and history.working_s
        else None,
        labels=_agreement(census),
    )


def _first_of(sources: tuple[str, ...]) -> tuple[str, ...]:
    more = len(sources[MAX_SOURCES:])
    return (*sources[:MAX_SOURCES], *([f"and {more} more"] if more else []))


def _agreement(census: Census) -> str | None:
    agreement = census.agreement
    if agreement is None or not agreement.judged:
        return None
    chance = f"; chance alone would give {agreement.chance:.1%}" if agreement.is_near_chance else ""
    share = f"{agreement.top1 / agreement.judged:.1%} of {agreement.judged}"
    return f"the label is the network's best class in {share}{chance}"


def setting_of(run: Run) -> Setting:
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
        is_per_class=is_per_class(run),
    )


def is_per_class(run: Run) -> bool:
    """Say whether classes have thresholds of their own: a calibration may have one for all."""
    calibration = run.request.calibration
    return calibration is not None and bool(calibration.class_thresholds)


def class_rows(run: Run, digest: Digest, audited: dict[int, AuditedClass]) -> tuple[ClassRow, ...]:
    """Return what there is to say of each class that has a map, a label or a prediction, most maps first."""
    counts, sums = digest.by_class, digest.sums
    shortcuts = {shortcut.class_id: shortcut.place for shortcut in suspected_shortcuts(sums)}
    mean_Chw = sums.mean_maps()
    at = {int(class_id): place for place, class_id in enumerate(sums.class_C)}
    nowhere_GG = np.zeros(sums.density_CGG.shape[1:], np.int64)
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
                density=nowhere_GG if place is None else sums.density_CGG[place],
                place=shortcuts.get(class_id),
                gt_known_loc=audited[class_id].gt_known_loc if class_id in audited else None,
                ap=audited[class_id].ap if class_id in audited else None,
            )
        )
    return tuple(rows)
