"""Which of an image's maps stand side by side."""

from pathlib import Path

import numpy as np
from PIL import Image

from cluster.compare.driver import compare
from cluster.report.against import CHANGED, Other
from cluster.report.cards import beside, read_rows
from cluster.report.config import ReportConfig
from cluster.report.galleries import nothing_found
from cluster.report.records import Gallery
from cluster.report.shown import set_beside
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import Command, table_rows

MANY = ["--model", "tests.support.networks:many_classes", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


def test_beside_a_map_stands_that_of_the_same_class_however_many_maps_the_other_run_has(tmp_path: Path) -> None:
    """A page has five maps of an image at most, those of the best classes; what changed may be the sixth."""
    picture_HWC = np.zeros((32, 32, 3), np.uint8)
    picture_HWC[4:20, 6:24] = (250, 200, 10)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(picture_HWC).save(tmp_path / "pictures" / "1.png")
    words = ["--images", tmp_path / "pictures", "--classes", "topk:6", *MANY]
    for name in ("a", "b"):
        assert Command("label", *words, "--out", tmp_path / name, "--executor", "inline").code == 0
    ours_dir, other_dir = RunDir(str(tmp_path / "a")), RunDir(str(tmp_path / "b"))
    run, other_run, place = existing_run(ours_dir), existing_run(other_dir), (0, 0)
    *_, sixth = (row["class_id"] for row in table_rows(tmp_path / "a", "heatmaps"))
    card = beside(run, read_rows(ours_dir, run, [place], {place: sixth})[place])
    other = Other(
        run_dir=other_dir,
        run=other_run,
        comparison=compare(ours_dir, other_dir),
        found={CHANGED.key: nothing_found(1)},
        class_of={place: sixth},
    )
    gallery = Gallery(key=CHANGED.key, title="", says="", total=1, cards=(0,))
    _, against = set_beside(ReportConfig(run=str(tmp_path / "a")), other, (gallery,), (card,))
    assert [card.maps[0].class_id, against.cards[0].maps[0].class_id] == [sixth, sixth]
