"""Which images the page shows: the best of each gallery, as far as they fit; beside another run's, if one is given."""

from dataclasses import replace

import numpy as np

from cam_ops.errors import StorageError
from cluster.display.choosing import Place
from cluster.report.against import CHANGED, GAINED, LOST, Other
from cluster.report.cards import beside, bytes_of_maps, make_cards, read_rows
from cluster.report.config import ReportConfig
from cluster.report.digest import Digest
from cluster.report.facts import setting_of
from cluster.report.galleries import KINDS, Found, GalleryKind, Picks, nothing_found, share_out
from cluster.report.judged import JUDGED_KINDS, Judged, truths_of
from cluster.report.records import Against, Card, Gallery
from cluster.report.suspects import SUSPECTED, suspects_found
from cluster.runs.census import Census
from cluster.runs.directory import RunDir
from cluster.runs.plan import find_images
from cluster.runs.record import Run

MAX_BYTES = 9_500_000  # of pictures and maps, so that the page stays below 12 MB


def found_in(
    census: Census, digest: Digest, judged: Judged | None, other: Other | None, most: int
) -> list[tuple[GalleryKind, Found]]:
    """Return the galleries in which there is an image, in the order of the page."""
    kinds = {kind.key: kind for kind in (CHANGED, LOST, GAINED, KINDS[0], *JUDGED_KINDS, SUSPECTED, *KINDS[1:])}
    found = {**digest.found, **(judged.found if judged else {}), **(other.found if other else {})}
    if census.agreement:
        found[SUSPECTED.key] = suspects_found(census.agreement, most)
    pairs = [(kind, found.get(key, nothing_found(most))) for key, kind in kinds.items()]
    return [(kind, each) for kind, each in pairs if each.total]


def shown_of(
    config: ReportConfig,
    run_dir: RunDir,
    run: Run,
    found: list[tuple[GalleryKind, Found]],
    judged: Judged | None,
    other: Other | None,
    shards: tuple[int, ...],
) -> tuple[tuple[Gallery, ...], tuple[Card, ...], int]:
    """Choose images of committed shards, read them, and make cards as far as they fit; the last is how many do not.

    Raises StorageError where the audit is of other images.
    """
    most = config.max_images
    picks = [_among(each.picks, run, shards)[: kind.limit(each.total, most)] for kind, each in found]
    places: list[list[Place]] = [
        [(int(of_gallery["shard"][at]), int(of_gallery["row"][at])) for at in ats]
        for of_gallery, ats in zip(picks, share_out(picks, most), strict=True)
    ]
    in_turn = [place for turn in _turns(places) for place in turn]
    number = {place: at for at, place in enumerate(dict.fromkeys(in_turn))}
    known = truths_of(run_dir, run, number, config.audits[0]) if judged else {}
    truths = {place: truth for place, (_, truth) in known.items()}
    changed = other.class_of if other else {}
    rows = read_rows(run_dir, run, number, {**changed, **{place: truth.class_id for place, truth in truths.items()}})
    if any(rows[place].image["image_id"] != image_id for place, (image_id, _) in known.items()):
        raise StorageError(f"the audit of {run_dir.root} is of other images than the run; run `audit` again")
    compared = {
        place
        for (kind, _), each in zip(found, places, strict=True)
        if other and kind.key in other.found
        for place in each
    }
    others = sum(bytes_of_maps(rows[place].maps) for place in compared)  # about what those of the other run take
    max_bytes = max(MAX_BYTES // 3, MAX_BYTES - others)
    cards = make_cards(run, [rows[place] for place in number], config.options, max_bytes)
    cards = [replace(card, truth=truths.get(place)) for card, place in zip(cards, number, strict=False)]
    galleries = (
        Gallery(
            key=kind.key,
            title=kind.title,
            says=kind.says,
            total=each.total,
            cards=tuple(number[place] for place in of_gallery if number[place] < len(cards)),
        )
        for (kind, each), of_gallery in zip(found, places, strict=True)
    )
    with_cards = tuple(gallery for gallery in galleries if gallery.cards)
    return with_cards, tuple(cards), len(number) - len(cards)


def _among(picks: Picks, run: Run, shards: tuple[int, ...]) -> Picks:
    """Return the picks that are images of committed shards: an audit or a comparison may name others."""
    size, num_images = run.plan.shard_size, run.plan.num_images
    shard_N, row_N = picks["shard"].astype(np.int64), picks["row"]
    return picks[np.isin(shard_N, shards) & (row_N >= 0) & (row_N < np.minimum(size, num_images - shard_N * size))]


def set_beside(
    config: ReportConfig, other: Other, galleries: tuple[Gallery, ...], cards: tuple[Card, ...]
) -> tuple[tuple[Gallery, ...], Against]:
    """Return the galleries with the other run's cards beside this one's, and that run."""
    compared = [gallery for gallery in galleries if gallery.key in other.found]
    wanted = dict.fromkeys(number for gallery in compared for number in gallery.cards)
    found = find_images(other.run_dir, other.run.plan, [cards[number].image_id for number in wanted])
    committed = {*other.run_dir.shards("images")}
    found = {image_id: place for image_id, place in found.items() if place[0] in committed}
    places = {number: found.get(cards[number].image_id) for number in wanted}
    first = {place: cards[number].maps[0].class_id for number, place in places.items() if place and cards[number].maps}
    rows = read_rows(other.run_dir, other.run, [place for place in places.values() if place], first)
    other_cards = [beside(other.run, rows[place]) for number, place in places.items() if place is not None]
    at = {number: at for at, number in enumerate(number for number, place in places.items() if place is not None)}
    with_others = tuple(
        replace(
            gallery,
            cards=tuple(number for number in gallery.cards if number in at),
            others=tuple(at[number] for number in gallery.cards if number in at),
        )
        if gallery.key in other.found
        else gallery
        for gallery in galleries
    )
    against = Against(
        root=other.run_dir.root,
        comparison=other.comparison,
        setting=setting_of(other.run),
        cards=tuple(other_cards),
    )
    return with_others, against


def _turns(places: list[list[Place]]) -> list[list[Place]]:
    """Return the first of each gallery, then the second of each, and so on."""
    most = max((len(each) for each in places), default=0)
    return [[each[turn] for each in places if turn < len(each)] for turn in range(most)]
