"""`rebox`: the very files that `label` would have written, from maps alone; crashes, damage, and what is refused."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command import ROOT, Command, table_rows
from tests.support.stores import Store

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
INLINE = ["--executor", "inline"]


def label(pictures: Path, out: object, *more: object) -> Command:
    return Command("label", "--images", pictures, "--out", out, *INLINE, "--precision", "fp32", *TWO, *more)


def rebox(run: object, out: object, *more: object) -> Command:
    return Command("rebox", run, "--out", out, *INLINE, *more)


def files(out: Path, folders: str = "plan boxes images summary.json") -> dict[str, bytes]:
    """Return the bytes of a run's files by name."""
    paths = [path for name in folders.split() for path in (out / name, *(out / name).glob("*")) if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@pytest.fixture
def flawed(pictures: Path, tmp_path: Path) -> Path:
    """The twelve pictures, two of them damaged, and the names of their classes."""
    (pictures / "discs" / "01.png").write_bytes((pictures / "discs" / "01.png").read_bytes()[:2000])
    (pictures / "rings" / "02.png").write_bytes(b"")
    (tmp_path / "names.txt").write_text("discs\nrings\n")
    return pictures


LABELS = ["--labels", "folder", "--classes", "label+top1", "--max-error-rate", 0.5, "--shard-size", 5]


@pytest.mark.parametrize(
    ("network", "boxes"),
    [
        ([], ["--threshold", 0.3, 0.65, "--normalise", "minmax", "--components", "all"]),
        (["--resize", "letterbox"], ["--normalise", "ivr:30", "--threshold", 0.5]),
        (["--resize", "center-crop", "--scales", 1, 1.5, "--flip"], ["--components", "all", "--threshold", 0.7]),
        (["--method", "cam"], ["--recipe", "blog", "--components", "all"]),
        (["--method", "gradcam", "--batch-size", 2], ["--threshold", 0.9, 0.1]),
        ([], ["--components", "peaks", "--threshold", 0.1]),
        (["--components", "peaks"], ["--components", "all", "--min-area", 0.02, "--threshold", 0.6]),
        (["--components", "all", "--min-area", 0.02], ["--components", "largest", "--min-area", 0]),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_the_files_are_those_of_label_and_its_refusal_names_the_command(
    flawed: Path, tmp_path: Path, network: list[object], boxes: list[object]
) -> None:
    flags = [*LABELS, "--class-names", tmp_path / "names.txt", *network]
    source, wanted, new = tmp_path / "source", tmp_path / "wanted", tmp_path / "new run"
    assert label(flawed, source, *flags).code == 0
    assert label(flawed, wanted, *flags, *boxes, *LABELS[:4]).code == 0
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in source.rglob("*.*") if path.is_file()}
    refused = label(flawed, source, *flags, *boxes, *LABELS[:4])
    assert refused.code == 4
    command = shlex.split(re.search(r"python -m jobs (rebox .*)", refused.result["error"])[1])
    done = Command(*[str(new) if word == "NEW" else word for word in command], *INLINE)
    assert (done.code, done.result["images"], done.result["errors"]) == (0, 12, 2)
    assert files(new) == files(wanted)
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before}
    assert not (new / "heatmaps").exists()
    verified = Command("verify", new)
    assert (verified.code, verified.result["boxes"]) == (0, done.result["boxes"])
    assert Command("status", new).result["status"] == "done"
    for out in (new, wanted):
        assert Command("show", out, "rings/04.png", "--to", out / "shown.png").code == 0
    assert (new / "shown.png").read_bytes() == (wanted / "shown.png").read_bytes()


def test_each_threshold_has_its_own_ranks_and_num_boxes_counts_the_first(pictures: Path, tmp_path: Path) -> None:
    label(pictures, tmp_path / "source", "--components", "all", "--classes", "topk:2", "--normalise", "minmax")
    assert rebox(tmp_path / "source", tmp_path / "both", "--threshold", 0.8, 0.4).code == 0
    both = table_rows(tmp_path / "both", "boxes")
    for threshold in (0.8, 0.4):
        alone = tmp_path / str(threshold)
        assert rebox(tmp_path / "source", alone, "--threshold", threshold).code == 0
        assert table_rows(alone, "boxes") == [row for row in both if row["threshold"] == np.float32(threshold)]
    counts = [[row["num_boxes"] for row in table_rows(tmp_path / name, "images")] for name in ("both", "0.8", "0.4")]
    assert counts[0] == counts[1] != counts[2]
    in_file = [
        row for path in sorted((tmp_path / "both" / "boxes").iterdir()) for row in pq.read_table(path).to_pylist()
    ]
    keys = [(row["image_id"], row["class_id"], round(row["threshold"], 2)) for row in in_file]
    assert [threshold for _, _, threshold in dict.fromkeys(keys)] == [0.8, 0.4] * 24
    for key in set(keys):
        ranks = [row["rank"] for row, its_key in zip(in_file, keys, strict=True) if its_key == key]
        assert ranks == list(range(len(ranks)))


def test_min_area_goes_on_but_not_to_largest_and_is_in_the_request_only_where_it_is_not_the_default(
    pictures: Path, tmp_path: Path
) -> None:
    asked = ["--components", "all", "--min-area", 0.1, "--threshold", 0.7]
    label(pictures, tmp_path / "source", *asked)
    for name, flags, boxes in (
        ("same", [], {"components": "all", "min_area": 0.1}),
        ("peaks", ["--components", "peaks"], {"components": "peaks", "min_area": 0.1}),
        ("default", ["--components", "peaks", "--min-area", 0.01], {"components": "peaks"}),
        ("all", ["--min-area", 0], {"components": "all"}),
        ("largest", ["--components", "largest"], {"components": "largest"}),
    ):
        assert rebox(tmp_path / "source", tmp_path / name, *flags).code == 0
        document = json.loads((tmp_path / name / "run.json").read_text())
        assert document["request"]["boxes"] == {"threshold": [0.7], **boxes}
        assert Command("verify", tmp_path / name).code == 0
        described = pq.read_schema(next((tmp_path / name / "boxes").iterdir())).metadata[b"camray"]
        assert json.loads(described)["box_recipe"] == {"threshold": [0.7], **boxes}
    refused = rebox(tmp_path / "source", tmp_path / "new", "--components", "largest", "--min-area", 0.1)
    assert (refused.code, "--components all or peaks" in refused.result["error"]) == (2, True)
    small, every = (table_rows(tmp_path / name, "boxes") for name in ("same", "all"))
    assert len(small) < len(every)
    found = Command("compare", tmp_path / "same", tmp_path / "all", "--json").out.partition("CAMRAY_RESULT")[0]
    assert json.loads(found)["settings"]["boxes.min_area"] == ["0.1", "None"]


def test_what_cannot_be_boxed_is_refused_with_the_cure(pictures: Path, tmp_path: Path) -> None:
    source, new = tmp_path / "source", tmp_path / "new"
    label(pictures, source, "--shard-size", 4)
    (source / "images" / "shard-0000001.parquet").unlink()
    incomplete = rebox(source, new, "--threshold", 0.5)
    assert (incomplete.code, new.exists()) == (5, False)
    assert "1 of 3 shards" in incomplete.result["error"]
    assert "to complete it, then this one" in incomplete.result["error"]
    label(pictures, source, "--shard-size", 4)
    maps = source / "heatmaps" / "shard-0000002.parquet"
    maps.write_bytes(maps.read_bytes()[:-100])
    damaged = rebox(source, new, "--threshold", 0.5)
    assert damaged.code == 5
    assert "shard 2 of" in damaged.result["error"]
    assert "--repair" in damaged.result["error"]
    assert label(pictures, source, "--shard-size", 4, "--repair").code == 0
    assert "2 of 3 shards committed" in (again := rebox(source, new, "--threshold", 0.5)).err
    assert again.code == 0
    assert rebox(source, source).code == 2
    assert rebox(tmp_path / "nothing", tmp_path / "other").code == 5
    assert rebox(source, tmp_path / "other", "--threshold", 1.5).code == 2
    assert rebox(source, tmp_path / "other", "--threshold", 0.5, 0.5).code == 2
    (new / "boxes" / "shard-0000000.parquet").unlink()
    assert Command("verify", new).code == 3
    assert rebox(source, new, "--threshold", 0.5, "--repair").code == 0
    assert Command("verify", new).code == 0
    source.rename(tmp_path / "moved")
    gone = Command("verify", new)
    assert (gone.code, "holds no run.json now" in gone.result["error"]) == (5, True)


def test_maps_that_a_stranger_wrote_are_refused(pictures: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    label(pictures, source, "--shard-size", 12)
    maps = next((source / "heatmaps").iterdir())
    table = pq.read_table(maps)
    for column, value in (("row", 12), ("row", -1), ("class_id", 2), ("x1", float("nan")), ("x1", -9.0)):
        place = table.schema.get_field_index(column)
        kind = table.schema.field(column)
        values = pa.array([value, *table[column].to_pylist()[1:]], kind.type)
        pq.write_table(table.set_column(place, kind, values), maps)
        refused = rebox(source, tmp_path / "new")
        assert (refused.code, "is damaged" in refused.result["error"]) == (5, True), column
    run = json.loads((source / "run.json").read_text())
    for root in ("relative", "http://elsewhere/run", "/a\0b"):
        run["maps_from"] = {"root": root, "fingerprint": run["fingerprint"]}
        (source / "run.json").write_text(json.dumps(run))
        assert Command("verify", source).code == 5


def test_another_request_on_the_same_out_is_refused(pictures: Path, tmp_path: Path) -> None:
    source, other, new = tmp_path / "source", tmp_path / "other", tmp_path / "new"
    label(pictures, source)
    label(pictures, other, "--components", "all")
    assert rebox(source, new, "--threshold", 0.5).code == 0
    before = files(new, "boxes images run.json")
    assert rebox(source, new, "--threshold", 0.5).code == 0
    refused = rebox(source, new, "--threshold", 0.6)
    assert (refused.code, "boxes.threshold was 0.5, now 0.6" in refused.result["error"]) == (4, True)
    elsewhere = rebox(other, new, "--threshold", 0.5, "--components", "largest")
    assert (elsewhere.code, f"maps_from was {source}, now {other}" in elsewhere.result["error"]) == (4, True)
    labelled = label(pictures, new, "--threshold", 0.5)
    assert (labelled.code, f"maps_from was {source}, now None" in labelled.result["error"]) == (4, True)
    assert before == files(new, "boxes images run.json")
    assert rebox(new, tmp_path / "third", "--threshold", 0.6).code == 0  # the maps are those of the first run
    assert json.loads((tmp_path / "third" / "run.json").read_text())["maps_from"]["root"] == str(source)
    assert rebox(source, new, "--threshold", 0.6, "--overwrite").code == 0
    assert files(new) == files(tmp_path / "third")
    assert label(pictures, new, "--overwrite").code == 0
    assert Command("verify", new).code == 0
    assert rebox(source, new, "--overwrite").code == 0
    label(pictures, source, "--image-size", 64, "--overwrite")
    replaced = rebox(source, new)
    assert (replaced.code, f"{source} holds other maps than then" in replaced.result["error"]) == (4, True)


def test_a_link_to_the_run_whose_maps_are_taken_is_that_run(pictures: Path, tmp_path: Path) -> None:
    run, link = tmp_path / "run", tmp_path / "link"
    label(pictures, run)
    link.symlink_to(run)
    before = files(run, "plan heatmaps boxes images run.json")
    for words in ((run, link), (link, run)):
        refused = rebox(*words, "--overwrite", "--threshold", 0.3)
        assert (refused.code, "is the run whose maps are taken" in refused.result["error"]) == (2, True)
    assert files(run, "plan heatmaps boxes images run.json") == before


def test_overwrite_costs_no_run_where_nothing_can_begin(pictures: Path, tmp_path: Path) -> None:
    source, new = tmp_path / "source", tmp_path / "new"
    label(pictures, source)
    assert rebox(source, new, "--threshold", 0.5).code == 0
    before = files(new, "boxes images run.json")
    words = ["rebox", source, "--out", new, "--threshold", 0.6, "--overwrite", "--ray-address", "127.0.0.1:1"]
    assert Command(*words).code == 6  # nobody listens there
    assert files(new, "boxes images run.json") == before


def test_a_driver_that_is_killed_leaves_what_the_same_command_completes(pictures: Path, tmp_path: Path) -> None:
    source, new = tmp_path / "source", tmp_path / "new"
    label(pictures, source, "--shard-size", 2)
    assert rebox(source, tmp_path / "whole", "--threshold", 0.5).code == 0
    words = ["rebox", str(source), "--out", str(new), *INLINE, "--threshold", "0.5"]
    for point, num_done in (("plan", 0), ("run", 0), ("scratch-boxes/shard-0000002.parquet", 2), ("boxes-4", 4)):
        env = {**os.environ, "CAMRAY_FAILPOINTS": f"{point}:KILL:{tmp_path / point.replace('/', '-')}"}
        killed = subprocess.run([sys.executable, "-m", "jobs", *words], cwd=ROOT, env=env, capture_output=True)
        assert killed.returncode == -signal.SIGKILL
        assert len(list(new.glob("images/*"))) == num_done
    assert rebox(source, new, "--threshold", 0.5).code == 0
    assert files(new) == files(tmp_path / "whole")


@pytest.mark.ray
def test_actors_do_the_same_and_one_that_is_killed_is_replaced(pictures: Path, tmp_path: Path) -> None:
    source, new = tmp_path / "source", tmp_path / "new"
    label(pictures, source, "--shard-size", 2)
    assert rebox(source, tmp_path / "whole", "--threshold", 0.5).code == 0
    env = {"CAMRAY_FAILPOINTS": f"boxes-3:KILL:{tmp_path / 'killed'}"}
    done = Command("rebox", source, "--out", new, "--threshold", 0.5, "--replicas", 1, env=env)
    assert (done.code, (tmp_path / "killed").exists()) == (0, True)
    assert "a replica died" in done.err
    assert "12/12 images (100 %), 6/6 shards" in done.err
    assert files(new) == files(tmp_path / "whole")


def test_both_sides_may_lie_on_a_store(pictures: Path, tmp_path: Path, s3: Store) -> None:
    options = ["--storage-options", *s3.words]
    label(pictures, tmp_path / "source", "--shard-size", 5)
    assert label(pictures, s3.address("rebox/source"), "--shard-size", 5, *options).code == 0
    assert rebox(tmp_path / "source", tmp_path / "whole", "--threshold", 0.5).code == 0
    sides = {"near": tmp_path / "source", "far": s3.address("rebox/source")}
    for name, source in sides.items():
        out = s3.address(f"rebox/{name}")
        assert rebox(source, out, "--threshold", 0.5, *options).code == 0
        assert Command("verify", out, *options).code == 0
    assert rebox(sides["far"], tmp_path / "home", "--threshold", 0.5, *options).code == 0
    assert files(tmp_path / "home") == files(tmp_path / "whole")


def test_a_replica_and_its_driver_do_without_torch(pictures: Path, tmp_path: Path) -> None:
    label(pictures, tmp_path / "source")
    shutil.rmtree(pictures)
    program = (
        "import sys; from jobs.commands import run; code = run(sys.argv[1:]); "
        "sys.exit(code or ('torch' in sys.modules) or ('ray' in sys.modules))"
    )
    words = ["rebox", str(tmp_path / "source"), "--out", str(tmp_path / "new"), *INLINE]
    assert subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True).returncode == 0
