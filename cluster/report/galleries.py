"""Which galleries a report has, which images belong in each, and which of these it shows.

Each is a rank over images: whoever ranks highest is shown, those of equal rank by a hash of their id, so that what is
shown depends neither on the number of replicas nor on the order of shards. Letters: M images that have a map.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cam_ops.arrays import F64, I64, Bools
from cam_ops.metrics.bootstrap import image_seeds
from cam_ops.metrics.signals import WHOLE_IMAGE

Picks = NDArray[np.void]
PICK = np.dtype([("rank", "<f8"), ("hash", "<u8"), ("shard", "<i4"), ("row", "<i4")])
RANDOM = "random"
BY_CHANCE = "Drawn by chance."


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What galleries ask of images, of their first map; all (M,)."""

    image_ids: list[str]
    shard_M: I64
    row_M: I64
    score_M: F64
    num_components_M: I64
    box_area_M: F64  # share of the picture of its best box, 0 where it has none
    attention_M: F64  # how much a look at it may gain, `cam_ops.metrics.signals.doubt`
    is_unlike_M: Bools  # it has labels, and the best class is none of them


Rank = Callable[[Looks], F64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryKind:
    """One gallery."""

    key: str
    title: str
    says: str
    rank: Rank | None = None
    """Gives (M,), NaN where an image does not belong; None where something else than the run's tables knows."""
    orders_all: bool = False  # every image belongs: only its upper third is of interest

    def limit(self, total: int, max_images: int) -> int:
        """Return how many of `total` images are shown at most, where `max_images` of all galleries are."""
        most = max_images if self.key == RANDOM else max(1, max_images // 5)
        return min(most, -(-total // 3)) if self.orders_all else most


def _those(belong: Callable[[Looks], Bools]) -> Rank:
    return lambda looks: np.where(belong(looks), 0.0, np.nan)


KINDS = (
    GalleryKind(
        key=RANDOM,
        title="At random",
        says="Drawn by chance from all images that have a map: what the labels look like on the whole.",
        rank=_those(lambda looks: np.ones(len(looks.row_M), np.bool_)),
    ),
    GalleryKind(
        key="attention",
        title="Look here first",
        says="Low score, map spread out or along the border, no box or one of the whole picture.",
        rank=lambda looks: looks.attention_M,
        orders_all=True,
    ),
    GalleryKind(
        key="least-sure",
        title="Least sure",
        says="The lowest scores of the mapped class.",
        rank=lambda looks: -looks.score_M,
        orders_all=True,
    ),
    GalleryKind(
        key="surest",
        title="Surest",
        says="The highest scores of the mapped class.",
        rank=lambda looks: looks.score_M,
        orders_all=True,
    ),
    GalleryKind(
        key="several",
        title="Several regions",
        says=f"The map has several regions above its threshold. {BY_CHANCE}",
        rank=_those(lambda looks: looks.num_components_M > 1),
    ),
    GalleryKind(
        key="whole",
        title="Boxes of the whole picture",
        says=f"The best box covers at least {WHOLE_IMAGE:.0%} of the picture. {BY_CHANCE}",
        rank=_those(lambda looks: looks.box_area_M >= WHOLE_IMAGE),
    ),
    GalleryKind(
        key="empty",
        title="Without a box",
        says=f"There is a map, and no box of it. {BY_CHANCE}",
        rank=_those(lambda looks: looks.box_area_M == 0),
    ),
    GalleryKind(
        key="unlike",
        title="Another class than the label",
        says=f"The network's best class is not the label. {BY_CHANCE}",
        rank=_those(lambda looks: looks.is_unlike_M),
    ),
)


def pick(rank_M: F64, hash_M: NDArray[np.uint64], shard_M: I64, row_M: I64, most: int) -> Picks:
    """Return the `most` images of the highest rank, best first; those of rank NaN are left out."""
    belongs_M = ~np.isnan(rank_M)
    picks = np.empty(int(belongs_M.sum()), PICK)
    for name, column_M in (("rank", rank_M), ("hash", hash_M), ("shard", shard_M), ("row", row_M)):
        picks[name] = column_M[belongs_M]
    return best_of(picks, most)


def best_of(picks: Picks, most: int) -> Picks:
    """Return the `most` picks of the highest rank, best first."""
    order = np.lexsort((picks["row"], picks["shard"], picks["hash"], -picks["rank"]))  # the last counts first
    return picks[order[:most]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The images that belong in one gallery: how many, and which rank highest."""

    total: int
    picks: Picks
    most: int  # picks that are kept

    def __add__(self, other: "Found") -> "Found":
        """Join those of another part of the run."""
        picks = best_of(np.concatenate([self.picks, other.picks]), self.most)
        return Found(total=self.total + other.total, picks=picks, most=self.most)


def nothing_found(most: int) -> Found:
    """Return that of no image."""
    return Found(total=0, picks=np.empty(0, PICK), most=most)


def find(looks: Looks, most: int) -> dict[str, Found]:
    """Return what belongs in each gallery, by its key."""
    hash_M = image_seeds(looks.image_ids)
    found = {}
    for kind in KINDS:
        assert kind.rank
        rank_M = kind.rank(looks)
        found[kind.key] = Found(
            total=int((~np.isnan(rank_M)).sum()),
            picks=pick(rank_M, hash_M, looks.shard_M, looks.row_M, most),
            most=most,
        )
    return found


def share_out(found: list[Picks], most: int) -> list[list[int]]:
    """Say which picks of each gallery are shown: in turn the next one of each, until `most` images are.

    An image that is shown already costs nothing. Returns the places of the picks, in their order.
    """
    shown: set[tuple[int, int]] = set()
    places: list[list[int]] = [[] for _ in found]
    for place in range(max((len(picks) for picks in found), default=0)):
        for number, picks in enumerate(found):
            if place >= len(picks):
                continue
            image = int(picks["shard"][place]), int(picks["row"][place])
            if image in shown or len(shown) < most:
                shown.add(image)
                places[number].append(place)
    return places
