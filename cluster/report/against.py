"""Two runs side by side: the images that changed most, as `compare` finds them."""

from dataclasses import dataclass

import numpy as np

from cluster.compare.driver import Comparison, compare
from cluster.display.choosing import Place
from cluster.report.galleries import PICK, Found, GalleryKind
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.plan import find_images
from cluster.runs.record import Run, existing_run
from cluster.storage.options import StorageOptions

MOST = 24  # images of each change
CHANGED, LOST, GAINED = (
    GalleryKind(
        key="changed",
        title="Boxes that changed most",
        says="The best boxes of the two runs share least. Left this run, right the other.",
    ),
    GalleryKind(key="lost", title="Right here alone", says="Correct in this run, wrong in the other, by their audits."),
    GalleryKind(key="gained", title="Right there alone", says="Wrong in this run, correct in the other."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """The run to compare with, and what changed."""

    run_dir: RunDir
    run: Run
    comparison: Comparison
    found: dict[str, Found]  # by the key of a gallery, images of this run
    class_of: dict[Place, int]  # whose box changed most, of images of this run


def read_other(
    run_dir: RunDir, run: Run, address: str, audits: tuple[str | None, str | None], options: StorageOptions
) -> Other:
    """Compare a run with that at `address`, by the audits of those names; raises what `compare` does."""
    other_dir = open_run_dir(address, options)
    comparison = compare(run_dir, other_dir, MOST, audits)
    tables, audit = comparison.tables, comparison.audit
    ids = {
        CHANGED.key: [row["image_id"] for row in tables.most_changed],
        LOST.key: [row["image_id"] for row in audit.most_lost] if audit else [],
        GAINED.key: [row["image_id"] for row in audit.most_gained] if audit else [],
    }
    totals = {
        CHANGED.key: tables.images_moved,
        LOST.key: audit.lost if audit else 0,
        GAINED.key: audit.gained if audit else 0,
    }
    place_of = find_images(run_dir, run.plan, {image_id for image_ids in ids.values() for image_id in image_ids})
    found = {}
    for key, image_ids in ids.items():
        places = [place_of[image_id] for image_id in dict.fromkeys(image_ids) if image_id in place_of]
        picks = np.array([(-at, 0, *place) for at, place in enumerate(places)], PICK)
        found[key] = Found(total=totals[key] if len(picks) else 0, picks=picks, most=MOST)
    return Other(
        run_dir=other_dir,
        run=existing_run(other_dir),
        comparison=comparison,
        found=found,
        class_of={
            place_of[row["image_id"]]: row["class_id"]
            for row in reversed(tables.most_changed)
            if row["image_id"] in place_of
        },
    )
