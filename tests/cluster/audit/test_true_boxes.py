"""The true boxes that an audit leaves, against the truth's files; their reader reads little, and trusts nothing."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cam_ops.errors import StorageError
from cam_ops.tables import CORNERS
from cluster.audit.files import audit_files, read_per_image, read_truth
from cluster.audit.tables import TRUE_BOXES_SCHEMA
from cluster.runs.directory import RunDir
from tests.cluster.audit.test_audit import INLINE, TWO, audit, disc_of, label, write_truth
from tests.support.command import Command, table_rows
from tests.whole.test_audit_page import write_masks


def true_rows(run: Path) -> list[dict[str, object]]:
    return pq.read_table(run / "audit" / "truth.parquet").to_pylist()


def test_they_are_those_of_the_kangaroos_annotations(data: Path, tmp_path: Path) -> None:
    """Pascal VOC counts pixels from 1, the last one included."""
    (tmp_path / "names.txt").write_text("wallaby\nwombat\n")
    flags = ["--limit", 30, "--class-names", tmp_path / "names.txt", "--shard-size", 7]
    run = tmp_path / "run"
    labelled = Command("label", "--images", data / "kangaroo" / "images", "--out", run, *INLINE, *TWO, *flags)
    assert labelled.code == 0
    truth = ["--truth", data / "kangaroo" / "annots", "--class-map", "kangaroo=wallaby"]
    assert Command("audit", run, *INLINE, "--overwrite", *truth).code == 0
    expected = []
    for image in table_rows(run, "images"):
        document = ElementTree.parse(data / "kangaroo" / "annots" / f"{Path(image['image_id']).stem}.xml")
        for found in document.iter("bndbox"):
            first, last = ([int(found.findtext(f"{side}{end}")) for side in "xy"] for end in ("min", "max"))
            corners = [first[0] - 1, first[1] - 1, *last]
            expected.append([image["image_id"], image["shard"], image["row"], 0, *corners, False])
    assert len(expected) > 40
    assert [list(row.values()) for row in true_rows(run)] == expected
    assert pq.read_schema(run / "audit" / "truth.parquet").equals(TRUE_BOXES_SCHEMA)

    found = read_truth(audit_files(RunDir(str(run))), {1: {0, 3}, 4: {1}, 99: {0}})
    wanted = [row for row in expected if (row[1], row[2]) in ((1, 0), (1, 3), (4, 1))]
    assert len(wanted) >= 3
    assert [[*key, box.class_id, *box.box_4, box.crowd] for key, boxes in found.items() for box in boxes] == [
        row[1:] for row in wanted
    ]


def test_what_the_truth_does_not_tell_is_not_told_and_images_that_it_does_not_name_have_none(
    pictures: Path, tmp_path: Path
) -> None:
    label(pictures, tmp_path / "run", "--shard-size", 5)
    lines = write_truth(pictures, tmp_path / "truth.csv").read_text().splitlines()
    named = [line for line in lines if not line.startswith("discs/05")]
    truth = tmp_path / "some.csv"
    truth.write_text("\n".join([*named, "rings/10.png,1,2,3,4,zebra", "strange.png,1,2,3,4,discs"]) + "\n")
    audit(tmp_path / "run", "--truth", truth)
    rows = {(row["image_id"], *(row[name] for name in CORNERS)): row["class_id"] for row in true_rows(tmp_path / "run")}
    assert {image_id for image_id, *_ in rows} == {
        row["image_id"] for row in table_rows(tmp_path / "run", "images")
    } - {"discs/05.png"}
    assert rows[("rings/10.png", 1, 2, 3, 4)] is None
    assert rows[("rings/10.png", *disc_of(pictures / "rings" / "10.png"))] == 1


def test_masks_alone_leave_none_and_a_later_audit_takes_the_earlier_ones_away(pictures: Path, tmp_path: Path) -> None:
    run, truth = tmp_path / "run", write_truth(pictures, tmp_path / "truth.csv")
    label(pictures, run)
    files, masks = audit_files(RunDir(str(run))), write_masks(pictures, tmp_path / "masks")
    for later in (["--truth", masks], []):
        audit(run, "--truth", truth)
        assert len(read_truth(files, {0: range(12)})) > 0
        audit(run, *later)
        assert read_truth(files, {0: range(12)}) is None


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A file of ten row groups, a shard in each: a box (shard, row, shard + 1, row + 1) in each of 100 rows."""
    shard_G, row_G = np.divmod(np.arange(1000), 100)
    corners = [shard_G, row_G, shard_G + 1, row_G + 1]
    columns = [["a"] * 1000, shard_G, row_G, shard_G * 0, *corners, [False] * 1000]
    table = pa.table([pa.array(column) for column in columns], TRUE_BOXES_SCHEMA.names).cast(TRUE_BOXES_SCHEMA)
    (tmp_path / "audit").mkdir()
    pq.write_table(table, tmp_path / "audit" / "truth.parquet", row_group_size=100)
    return tmp_path / "audit" / "truth.parquet"


def test_of_a_large_file_only_the_row_groups_of_the_shards_are_read(many: Path) -> None:
    """Which is shown by what stands in the others."""
    content, footer = bytearray(many.read_bytes()), pq.read_metadata(many)
    for group in (*range(3), *range(4, 10)):
        for c in range(footer.num_columns):
            column = footer.row_group(group).column(c)
            begin = column.dictionary_page_offset or column.data_page_offset
            content[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    many.write_bytes(content)
    files = audit_files(RunDir(str(many.parent.parent)))
    found = read_truth(files, {3: {0, 99}})
    assert {key: [box.box_4.tolist() for box in boxes] for key, boxes in found.items()} == {
        (3, 0): [[3, 0, 4, 1]],
        (3, 99): [[3, 99, 4, 100]],
    }
    with pytest.raises(StorageError, match="cannot read"):
        read_truth(files, {4: {0}})


def test_a_file_that_no_audit_wrote_is_refused(many: Path) -> None:
    files, table = audit_files(RunDir(str(many.parent.parent))), pq.read_table(many)
    infinite = pa.array([np.inf] * len(table), pa.float32())
    others = {
        "columns of true boxes": table.drop(["crowd"]),
        "cannot be": table.set_column(4, TRUE_BOXES_SCHEMA.field(4), infinite),
    }
    for reason, other in others.items():
        pq.write_table(other, many)
        with pytest.raises(StorageError, match=reason):
            read_truth(files, {3: {0}})
    pq.write_table(table, many)
    many.write_bytes(many.read_bytes().replace(b"crowd", b"\xffrowd"))
    with pytest.raises(StorageError, match="run `audit` again"):
        read_truth(files, {3: {0}})
    (many.parent / "per_image.parquet").write_bytes(many.read_bytes())
    with pytest.raises(StorageError, match="run `audit` again"):
        list(read_per_image(files, ["iou"]))
    many.write_bytes(many.read_bytes()[:-9])
    with pytest.raises(StorageError, match="run `audit` again"):
        read_truth(files, {3: {0}})
    shutil.rmtree(many.parent)
    assert read_truth(files, {3: {0}}) is None
