"""What users have and what strangers send, by the command line: bad files beside good ones, run directories that lie,
disks that are full or may not be written."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cam_ops.errors import StorageError
from cam_ops.pictures.formats import has_heif
from cam_ops.pictures.header import MAX_BYTES
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import ROOT, Command, result_of, table_rows
from tests.support.fuzz import encoded

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
EXACT = ["--executor", "inline", "--precision", "fp32"]
TABLES = ("images", "heatmaps", "boxes")


def label(pictures: Path, out: Path, *more: object) -> Command:
    return Command("label", "--images", pictures, "--out", out, *EXACT, *TWO, *more)


def unprivileged(words: list[object]) -> list[str]:
    """Return a command that has no more rights to files than their owner has, also where root runs it."""
    command = [sys.executable, *map(str, words)]
    if os.geteuid():
        return command
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root may read and write everything; needs setpriv")
    return [setpriv, "--bounding-set", "-dac_override,-dac_read_search", *command]


def label_unprivileged(pictures: Path, out: Path, *more: object) -> tuple[int, dict[str, Any]]:
    words = unprivileged(["-m", "jobs", "label", "--images", pictures, "--out", out, *EXACT, *TWO, *more])
    finished = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert "Traceback" not in finished.stderr
    return finished.returncode, result_of(finished.stdout, finished.stderr)


def contents_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("*/*.parquet")}


def chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    """Return a PNG chunk; its checksum is that of nothing, as nobody gets that far."""
    return (len(content) if length is None else length).to_bytes(4) + kind + content + bytes(4)


def bomb() -> bytes:
    """Return a PNG of 400 bytes by whose header a chunk has 2 GiB."""
    content = encoded(Image.new("RGB", (8, 8)), "PNG")
    return content[:33] + chunk(b"IDAT", bytes(300), 2**31 - 1) + content[33:]


def inflating(kind: bytes, before: bytes) -> bytes:
    """Return a PNG with a chunk of 130 kB that becomes 128 MiB."""
    content = encoded(Image.new("RGB", (8, 8)), "PNG")
    packed = before + zlib.compress(bytes(2**27), 9)
    checksum = zlib.crc32(kind + packed).to_bytes(4)
    return content[:33] + len(packed).to_bytes(4) + kind + packed + checksum + content[33:]


def scans() -> bytes:
    """Return a progressive JPEG whose last scan is there a thousand times."""
    content = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + 1000 * last + content[-2:]


def with_size(bmp: bytes, width: int, height: int) -> bytes:
    return bmp[:18] + width.to_bytes(4, "little") + height.to_bytes(4, "little") + bmp[26:]


def corpus(folder: Path) -> dict[str, str]:
    """Write bad and odd files into a folder, and return the status by id of each that is an input."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    jpeg, png, bmp = (encoded(noise, form) for form in ("JPEG", "PNG", "BMP"))
    written = {
        "zero.jpg": (b"", "empty"),
        "text.jpg": (b"this was a picture once", "undecodable"),
        "html.png": (b"<!DOCTYPE html><title>404 Not Found</title>", "undecodable"),
        "gif.jpg": (encoded(noise, "GIF"), "ok"),
        "moving.gif.png": (encoded(noise, "GIF", save_all=True, append_images=[noise.rotate(90)]), "ok"),
        "phone.HEIC.jpg": (b"\0\0\0\x18ftypheic" + bytes(100), "truncated" if has_heif() else "undecodable"),
        "magic.jpg": (b"\xff\xd8\xff", "truncated"),
        "in-header.jpg": (jpeg[:100], "truncated"),
        "in-data.JPG": (jpeg[:-1000], "truncated"),
        "end.jpeg": (jpeg[:-1], "truncated"),
        "end.png": (png[:-1], "truncated"),
        "zeros.jpg": (bytes(5000), "undecodable"),
        "damaged.png": (png[:60] + bytes(40) + png[100:], "undecodable"),
        "bomb.bmp": (with_size(bmp, 100_000, 100_000), "too_large"),
        "edge.bmp": (with_size(bmp, 9_460, 9_460), "too_large"),
        "chunk.png": (bomb(), "truncated"),
        "text.png": (inflating(b"zTXt", b"a\0\0"), "undecodable"),
        "profile.png": (inflating(b"iCCP", b"a\0\0"), "undecodable"),
        "scans.jpg": (scans(), "too_large"),
        "png-inside.jpg": (png, "ok"),
        "jpeg-inside.TIFF": (jpeg, "ok"),
        "windows.JFIF": (jpeg, "ok"),
        "moving.webp": (encoded(noise, "WEBP", save_all=True, append_images=[noise.rotate(90)]), "ok"),
        "moving.png": (encoded(noise, "PNG", save_all=True, append_images=[noise.rotate(90)]), "ok"),
        "cmyk.jpg": (encoded(noise.convert("CMYK"), "JPEG"), "ok"),
        "sixteen.png": (encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999), "PNG"), "ok"),
        "palette.png": (encoded(noise.quantize(16), "PNG"), "ok"),
        "alpha.png": (encoded(noise.convert("RGBA"), "PNG"), "ok"),
        "progressive.jpg": (encoded(noise, "JPEG", progressive=True), "ok"),
        "pixel.png": (encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), "ok"),
        "wide.jpg": (encoded(Image.new("RGB", (20_000, 2), (200, 9, 7)), "JPEG"), "ok"),
        "exif.jpg": (encoded(noise, "JPEG", exif=b"Exif\0\0" + np.random.default_rng(1).bytes(300)), "ok"),
        "trailing.jpg": (jpeg + b"a video of the same moment" * 100, "ok"),
        "line\nbreak 'quote' \"double\" ünï 😀 %41.png": (png, "ok"),
        **dict.fromkeys(("Thumbs.db", ".DS_Store", "._disc.jpg", "notes.txt"), (b"\0\x05\x16\x07", "")),
    }
    folder.mkdir()
    for name, (content, _) in written.items():
        (folder / name).write_bytes(content)
    statuses = {name: status for name, (_, status) in written.items() if status}
    (folder / "directory.jpg").mkdir()
    (folder / "huge.png").touch()
    os.truncate(folder / "huge.png", MAX_BYTES + 1)  # a hole that takes no space
    os.mkfifo(folder / "pipe.jpg")
    (folder / "secret.jpg").write_bytes(jpeg)
    (folder / "secret.jpg").chmod(0)
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "cycle.png").symlink_to("cycle.png")
    (folder / "link.png").symlink_to("palette.png")
    (folder / "up").symlink_to(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(png)
    return statuses | {
        **{"huge.png": "too_large", "pipe.jpg": "unreadable", "secret.jpg": "unreadable", "broken.png": "missing"},
        **{"cycle.png": "unreadable", "link.png": "ok", r"\xff\xfe.png": "ok"},
    }


def rows_of_pictures(out: Path, ids: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what a run says of some images, but for their places in the plan."""
    return {
        table: [
            {key: value for key, value in row.items() if key not in ("shard", "row")}
            for row in table_rows(out, table)
            if row["image_id"] in ids
        ]
        for table in TABLES
    }


@pytest.mark.slow
def test_each_bad_file_is_one_row_and_its_neighbours_are_as_without_it(pictures: Path, tmp_path: Path) -> None:
    settings = ["--batch-size", 4, "--shard-size", 8]
    assert label(pictures, tmp_path / "good", *settings).code == 0
    neighbours = {row["image_id"] for row in table_rows(tmp_path / "good", "images")}
    expected = {f"odd/{name}": status for name, status in corpus(pictures / "odd").items()}
    out = tmp_path / "run"
    code, result = label_unprivileged(pictures, out, *settings)
    assert (code, result["status"], result["images"]) == (3, "too_many_bad_images", len(expected) + 12)
    found = {row["image_id"]: row["status"] for row in table_rows(out, "images")}
    assert found == expected | dict.fromkeys(neighbours, "ok")
    rows = rows_of_pictures(out, neighbours)
    assert rows == rows_of_pictures(tmp_path / "good", neighbours)
    assert [len(rows[table]) for table in TABLES] == [12, 12, 12]
    for row in table_rows(out, "images"):
        assert (row["status"] == "ok") == (row["error"] is None) == (row["num_maps"] == 1)
    assert label(pictures, out, *settings, "--max-error-rate", 0.6).code == 0
    assert Command("verify", out).code == 0
    for odd in ("link.png", os.fsdecode(b"\xff\xfe.png"), "line\nbreak 'quote' \"double\" ünï 😀 %41.png"):
        shown = Command("show", out, f"odd/{odd}")
        assert shown.code == 0
    assert len(list((out / "show").iterdir())) == 3


def test_a_source_that_changes_after_the_plan_gives_a_status_per_row(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 2)
    shutil.rmtree(out / "images")
    changed = {f"discs/{i:02d}.png": pictures / "discs" / f"{i:02d}.png" for i in range(1, 12, 2)}
    gone, cut, longer, folder, empty, closed = changed.values()
    small, large = (encoded(Image.new("RGB", (4, 4), "red"), "PNG"), encoded(Image.effect_noise((200, 200), 99), "PNG"))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-100])
    longer.write_bytes(large)  # as much of it is read as was planned
    folder.unlink()
    folder.mkdir()
    empty.write_bytes(b"")
    closed.write_bytes(small)
    assert label(pictures, out, "--shard-size", 2).code == 3
    statuses = {row["image_id"]: row["status"] for row in table_rows(out, "images") if row["image_id"] in changed}
    assert list(statuses.values()) == ["missing", "truncated", "truncated", "unreadable", "empty", "ok"]
    assert Command("verify", out).code == 0
    shutil.rmtree(out / "images")
    shutil.rmtree(pictures)
    away = label(pictures, out, "--shard-size", 2)
    assert (away.code, "cannot list the image folder" in away.result["error"]) == (5, True)


def test_ids_that_climb_stay_inside_the_run(pictures: Path, tmp_path: Path) -> None:
    ids = ["../../../climb.png", "/absolute.png", "a/../../b.png", "nul\0.png", "..", "x" * 10_000]
    uri = str(pictures / "discs" / "01.png")
    pq.write_table(pa.table({"image_id": ids, "uri": [uri] * len(ids)}), tmp_path / "list.parquet")
    out = tmp_path / "deep" / "er" / "run"
    assert label(tmp_path / "list.parquet", out).code == 0
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    for image_id in ids:
        if "\0" in image_id:
            continue  # no argument of a command holds one
        shown = Command("show", out, image_id)
        assert shown.code == 0
        assert Path(shown.out.splitlines()[0]).parent == out / "show"
    assert len(list((out / "show").iterdir())) == 5
    assert before == {path for path in tmp_path.rglob("*") if out not in path.parents}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount file systems in memory of a given size."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("mounting a file system needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path, free_bytes: int) -> Path:
    """Leave no more than so many bytes free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        free = shutil.disk_usage(disk).free
        file.write(bytes(max(0, free - free_bytes)))
    return ballast


@pytest.mark.parametrize("point", ["plan", "heatmaps", "images", "summary"])
def test_a_disk_that_fills_is_exit_5_and_with_room_the_run_ends_as_an_undisturbed_one(
    pictures: Path, tmp_path: Path, small_disk: Callable[[str], Path], point: str
) -> None:
    assert label(pictures, tmp_path / "good", "--shard-size", 4).code == 0
    disk = small_disk("4m")
    out = disk / "run"
    if point == "plan":
        ballast = fill(disk, 4096)  # for the folder, not for the file
    else:
        label(pictures, out, "--shard-size", 4)
        shards = {"heatmaps": [2], "images": [0, 1], "summary": []}[point]
        for shard in shards:
            for table in TABLES if point == "heatmaps" else ["images"]:
                (out / table / f"shard-{shard:07d}.parquet").unlink()
        (out / "summary.json").unlink()
        ballast = fill(disk, 8192 if point == "images" else 0)
    full = label(pictures, out, "--shard-size", 4)
    assert full.code == 5
    assert "No space left on device; free some space, then run the same command again" in full.result["error"]
    assert "Traceback" not in full.err
    assert [path for path in out.rglob("*") if path.parent.name == ".scratch"] == []
    ballast.unlink()
    assert label(pictures, out, "--shard-size", 4).code == 0
    assert contents_of(out) == contents_of(tmp_path / "good")
    assert Command("verify", out).code == 0


def test_a_disk_that_is_full_costs_other_commands_no_earlier_file(
    audited_copy: Path, tmp_path: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("4m")
    run = Path(shutil.copytree(audited_copy, disk / "run"))
    metrics = (run / "audit" / "metrics.json").read_bytes()
    (disk / "compared.json").write_text("before")
    fill(disk, 0)
    inline = ["--executor", "inline"]
    for words in (
        ["audit", run, *inline, "--overwrite"],
        ["audit", run, *inline, "--name", "other"],
        ["compare", run, audited_copy, "--out", disk / "compared.json"],
        ["report", run, *inline],
    ):
        full = Command(*words)
        assert (full.code, "No space left on device; free some space" in full.result["error"]) == (5, True), words
        assert "Traceback" not in full.err
    assert (run / "audit" / "metrics.json").read_bytes() == metrics
    assert (disk / "compared.json").read_text() == "before"
    assert [path for path in disk.rglob("*") if path.suffix == ".part"] == []
    (disk / "ballast").unlink()
    fill(disk, 8192)  # enough for a folder, not for what goes in it
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    full = Command("audit", audited_copy, *inline, "--overwrite")
    assert (full.code, "set TMPDIR to a folder with room" in full.result["error"]) == (5, True)
    assert sorted(path.name for path in disk.iterdir()) == ["ballast", "compared.json", "run"]


def test_a_run_on_a_read_only_disk_is_read_and_not_written(
    pictures: Path, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("8m")
    out = disk / "run"
    label(pictures, out, "--shard-size", 4)
    (out / "images" / "shard-0000001.parquet").unlink()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert Command("status", out).result["status"] == "incomplete"
    assert Command("verify", out).code == 3
    assert Command("show", out, "discs/01.png", "--to", tmp_path / "one.png").code == 0
    for refused in (
        label(pictures, out, "--shard-size", 4),
        label(pictures, disk / "new"),
        Command("show", out, "discs/01.png"),
    ):
        assert (refused.code, "Read-only file system; check --out" in refused.result["error"]) == (5, True)
        assert "Traceback" not in refused.err


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_is_exit_5(pictures: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, result = label_unprivileged(pictures, closed / "run")
    assert (code, "Permission denied; check --out and its permissions" in result["error"]) == (5, True)


def scalars_of(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each entry of a JSON document."""
    yield path
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from scalars_of(value, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    assert label(pictures, out, "--shard-size", 4).code == 0
    return out


def test_a_run_json_with_other_types_or_sizes_is_refused_in_a_sentence(run: Path) -> None:
    honest = json.loads((run / "run.json").read_text())
    state = RunDir(str(run))
    texts = ["", "[" * 100_000, "nul", '{"request": ' * 5_000, "NaN", "[]", "\ud800".encode("utf-8", "surrogatepass")]
    values: list[Any] = [None, True, -1, 0, 10**30, 1.5, float("nan"), "", "x", [], {}, [1, 2], {"a": 1}]
    for path in scalars_of(honest):
        if path and path[0] not in ("config", "versions"):
            for value in values:
                changed = replaced(honest, path, value)
                if path[0] == "request" and isinstance(changed["request"], dict):
                    text = json.dumps(changed["request"], sort_keys=True).encode()
                    changed["fingerprint"] = hashlib.sha256(text).hexdigest()  # as whoever changes it would
                texts.append(json.dumps(changed))
    refused = 0
    for text in texts:
        (run / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            existing_run(state)
        except StorageError as error:
            refused += "run.json" in str(error)
    assert refused > 0.9 * len(texts)
    for text in (texts[1], json.dumps(replaced(honest, ("plan", "num_shards"), 10**30))):
        (run / "run.json").write_text(text)
        for words in (("status", run), ("verify", run), ("show", run, "discs/01.png")):
            failed = Command(*words)
            assert (failed.code, "is not a run.json of camray" in failed.result["error"]) == (5, True)


@pytest.mark.parametrize(("column", "value"), [("label", 10**9), ("label", -1), ("shard", 0), ("row", -1)])
def test_a_plan_with_rows_that_cannot_be_is_refused_before_its_pictures_are_read(
    pictures: Path, run: Path, column: str, value: int
) -> None:
    part = run / "plan" / "part-00000.parquet"
    plan = pq.read_table(part)
    at = plan.schema.get_field_index(column)
    changed = plan.set_column(at, plan.schema.field(at), pa.array([value] * len(plan), pa.int32()))
    pq.write_table(changed, part, row_group_size=4)
    digest = hashlib.sha256(part.read_bytes()).hexdigest()  # as whoever changes it would
    honest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(replaced(honest, ("plan", "digest"), digest)))
    shutil.rmtree(run / "images")
    refused = label(pictures, run, "--shard-size", 4)
    assert (refused.code, "has rows that no plan has" in refused.result["error"]) == (5, True)
    assert "Traceback" not in refused.err


@pytest.mark.parametrize("words", [[0, 10**9], [-1, 0], [None, 0], ["a", "b"], None])
def test_a_plan_with_several_labels_that_cannot_be_is_refused_too(
    pictures: Path, tmp_path: Path, words: list[Any] | None
) -> None:
    (tmp_path / "labels.csv").write_text("image_id,label\ndiscs/01.png,0\ndiscs/01.png,1\n")
    flags = ["--shard-size", 4, "--labels", tmp_path / "labels.csv"]
    run = tmp_path / "run"
    assert label(pictures, run, *flags).code == 0
    part = run / "plan" / "part-00000.parquet"
    plan = pq.read_table(part).drop_columns(["labels"])
    if words:
        kind = pa.list_(pa.string() if words[0] == "a" else pa.int32())
        plan = plan.append_column("labels", pa.array([words] * len(plan), kind))
    pq.write_table(plan, part, row_group_size=4)
    digest = hashlib.sha256(part.read_bytes()).hexdigest()  # as whoever changes it would
    honest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(replaced(honest, ("plan", "digest"), digest)))
    proved = Command("verify", run)
    assert (proved.code, "of its images is not the plan's" in proved.result["error"]) == (3, True)
    shutil.rmtree(run / "images")
    refused = label(pictures, run, *flags)
    assert (refused.code, "has rows that no plan has" in refused.result["error"]) == (5, True)


LOOK = """
import json, sys
from cluster.process.memory import peak_mib
from jobs.commands import run
for out in sys.argv[1:]:
    for words in (["status", out], ["verify", out], ["show", out, "discs/01.png"]):
        print(json.dumps([*words[:2], run(words)]))
print(int(peak_mib()))
"""


def equal_rows(path: Path) -> None:
    """Write a few kilobytes that stand for 2^25 rows."""
    metadata = pq.read_schema(path).metadata
    rows = pa.table({"status": pa.DictionaryArray.from_arrays(np.zeros(2**25, np.int8), ["ok" * 1000])})
    pq.write_table(rows.replace_schema_metadata(metadata), path, row_group_size=2**25)


def inflated(path: Path) -> None:
    """Write a few kilobytes that stand for texts of 16 MiB."""
    table = pq.read_table(path)
    long = pa.array(["x" * 2**24] * len(table))
    grown = table.set_column(0, table.schema.field(0), long)
    pq.write_table(grown, path, compression="zstd", use_dictionary=False)


def other_types(path: Path) -> None:
    table = pq.read_table(path)
    texts = pa.table({name: pa.array(["x"] * len(table)) for name in table.column_names})
    pq.write_table(texts.replace_schema_metadata(table.schema.metadata), path)


def fewer_columns(path: Path) -> None:
    pq.write_table(pq.read_table(path).select(["image_id"]), path)


def deep_document(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata({"camray": "[" * 100_000}), path)


def no_text(path: Path) -> None:
    table = pq.read_table(path)
    raw = pa.array([b"\xff"] * len(table), pa.binary())
    names = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    pq.write_table(table.set_column(0, table.schema.field(0), names), path)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def large_footer(path: Path) -> None:
    """Write a footer of half a gigabyte, as a hole that takes no space."""
    size = 2**29
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.seek(size)
        file.write((size - 4).to_bytes(4, "little") + b"PAR1")


def terabyte(path: Path) -> None:
    os.truncate(path, 2**40)


LIES = (equal_rows, inflated, other_types, fewer_columns, deep_document, no_text, pipe, large_footer, terabyte)


@pytest.mark.slow
def test_tables_that_lie_are_told_in_a_sentence_and_take_little_memory(run: Path, tmp_path: Path) -> None:
    may_be = {"status": {0, 5}, "verify": {3, 5}, "show": {0, 2, 5}}  # what a command does not read it need not see
    outs = []
    for lie in LIES:
        for table in ("images", "boxes", "heatmaps", "plan"):
            out = tmp_path / f"{lie.__name__}-{table}"
            shutil.copytree(run, out)
            lie(out / table / ("part-00000.parquet" if table == "plan" else "shard-0000000.parquet"))
            outs.append(str(out))
    finished = subprocess.run(
        [sys.executable, "-c", LOOK, *outs],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert "Traceback" not in finished.stderr
    *lines, peak_mib = [line for line in finished.stdout.splitlines() if line[:1] == "[" or line.isdigit()]
    found = [json.loads(line) for line in lines]
    assert [line for line in found if line[2] not in may_be[line[0]]] == []
    assert len(found) == 3 * len(outs)
    assert int(peak_mib) < 2048
