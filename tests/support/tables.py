"""Tables that hold pictures, as Hugging Face's `datasets` writes them; and the same pictures in every form.

`python -m tests.support.tables FOLDER OUT --count 200` runs `label` on a folder of photographs and on all other forms
of them, and says whether maps and boxes are equal.
"""

import argparse
import csv
import gzip
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def features(names: Sequence[str], **more: Any) -> dict[bytes, bytes]:
    """Return the metadata that Hugging Face's `datasets` writes for pictures and classes."""
    columns = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}, **more}
    return {b"huggingface": json.dumps({"info": {"features": columns}}).encode()}


def hub_table(paths: Sequence[Path], names: Sequence[str]) -> pa.Table:
    """Return pictures as a dataset of the hub has them, the class that of each picture's folder."""
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    labels = [list(names).index(path.parent.name) for path in paths]
    schema = pa.schema({"image": IMAGE, "label": pa.int64()}, features(names))
    return pa.table([pa.array(cells, IMAGE), labels], schema=schema)


def write_arrow(table: pa.Table, path: Path, rows_per_batch: int = 3) -> None:
    """Write a table as `datasets` saves it: a stream of batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        for batch in table.to_batches(rows_per_batch):
            stream.write_batch(batch)


def save_to_disk(table: pa.Table, folder: Path, num_files: int = 2) -> Path:
    """Save a table as `Dataset.save_to_disk` does."""
    names = [f"data-{i:05d}-of-{num_files:05d}.arrow" for i in range(num_files)]
    size = -(-len(table) // num_files)
    for i, name in enumerate(names):
        write_arrow(table.slice(i * size, size), folder / name)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None, "_fingerprint": "0"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    write_arrow(table.slice(0, 1), folder / "cache-0123.arrow")  # as `map` leaves beside them
    return folder


# The same pictures in every form.


def _rows(paths: Sequence[Path]) -> dict[str, list[str]]:
    return {"uri": list(map(str, paths)), "label": [path.parent.name for path in paths]}


def _text_list(paths: Sequence[Path], folder: Path) -> str:
    with gzip.open(folder / "list.txt.gz", "wt") as file:
        file.writelines(f"{path}\n" for path in paths)
    return str(folder / "list.txt.gz")


def _csv(paths: Sequence[Path], folder: Path) -> str:
    rows = _rows(paths)
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow([" Label", "URI"])
        writer.writerows(zip(rows["label"], rows["uri"], strict=True))
    return str(folder / "list.csv")


def _json_lines(paths: Sequence[Path], folder: Path) -> str:
    lines = [json.dumps({"file_name": str(path), "label": path.parent.name}) for path in paths]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return str(folder / "metadata.jsonl")


def _parquet_manifest(paths: Sequence[Path], folder: Path) -> str:
    (folder / "lists").mkdir()
    for i in range(3):
        pq.write_table(pa.table(_rows(paths[i::3])), folder / "lists" / f"part-{i}.parquet")
    return str(folder / "lists")


def _parquet_with_bytes(paths: Sequence[Path], folder: Path) -> str:
    cells = {"jpg": [path.read_bytes() for path in paths], "image_id": [path.name for path in paths]}
    pq.write_table(pa.table({**cells, "label": _rows(paths)["label"]}), folder / "bytes.parquet", row_group_size=9)
    return str(folder / "bytes.parquet")


def _names(paths: Sequence[Path]) -> list[str]:
    return sorted({path.parent.name for path in paths}, reverse=True)  # no order that anybody guesses


def _snapshot(paths: Sequence[Path], folder: Path) -> str:
    data, table, half = folder / "snapshot" / "data", hub_table(paths, _names(paths)), len(paths) // 2
    data.mkdir(parents=True)
    pq.write_table(table.slice(0, half), data / "train-00000-of-00001.parquet", row_group_size=100)
    flags = {"compression": "none", "use_dictionary": False, "write_page_index": True}
    pq.write_table(table.slice(half), data / "test-00000-of-00001.parquet", row_group_size=5, **flags)
    return str(folder / "snapshot")


def _saved(paths: Sequence[Path], folder: Path) -> str:
    return str(save_to_disk(hub_table(paths, _names(paths)), folder / "saved"))


def _tars(paths: Sequence[Path], folder: Path) -> str:
    (folder / "tars").mkdir(exist_ok=True)
    for i in range(2):
        with tarfile.open(folder / "tars" / f"{i:06d}.tar", "w") as tar:
            for path in paths[i::2]:
                for name, content in (
                    (path.name, path.read_bytes()),
                    (f"{path.stem}.cls", path.parent.name.encode()),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
    return f"{folder}/tars/*.tar"


def _brace_range(paths: Sequence[Path], folder: Path) -> str:
    return _tars(paths, folder).replace("*", "{000000..000001}")


FORMS: dict[str, Callable[[Sequence[Path], Path], str]] = {
    "text list": _text_list,
    "CSV": _csv,
    "JSON lines": _json_lines,
    "Parquet manifest": _parquet_manifest,
    "Parquet with bytes": _parquet_with_bytes,
    "Hugging Face snapshot": _snapshot,
    "save_to_disk": _saved,
    "tar": _tars,
    "brace range": _brace_range,
}
PLACE = ("image_id", "shard", "row", "uri", "offset", "size")


def by_picture(out: Path, table: str, *left_out: str) -> list[dict[str, Any]]:
    """Return a run's rows by the picture's own name, without where its source has it."""
    rows = [
        {**{k: v for k, v in row.items() if k not in (*PLACE, *left_out)}, "name": row["image_id"].split("/")[-1]}
        for row in ds.dataset(out / table).to_table().to_pylist()
    ]
    return sorted(rows, key=lambda row: (row["name"], row.get("class_id"), row.get("rank")))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    found = sorted(path for path in arguments.folder.rglob("*") if path.is_file())[: arguments.count]
    arguments.out.mkdir(parents=True)
    pictures = arguments.out / "pictures"
    for path in found:
        (pictures / path.parent.name).mkdir(parents=True, exist_ok=True)
        (pictures / path.parent.name / path.name).symlink_to(path.resolve())
    paths = sorted(pictures.glob("*/*"))
    forms = {"folder": str(pictures), **{name: form(paths, arguments.out) for name, form in FORMS.items()}}
    for name, images in forms.items():
        out = arguments.out / "runs" / name.replace(" ", "-")
        command = [sys.executable, "-m", "jobs", "label", "--images", images, "--out", str(out), "--executor", "inline"]
        subprocess.run([*command, "--model", "efficientnet_lite0", "--labels", "none"], check=True, timeout=3000)
        first = arguments.out / "runs" / "folder"
        found = {table: by_picture(out, table) for table in ("heatmaps", "boxes", "images")}
        equal = [by_picture(first, table) == rows for table, rows in found.items()]
        print(f"{name}: {len(found['images'])} pictures, {len(found['boxes'])} boxes, equal {equal}", flush=True)


if __name__ == "__main__":
    main()
