"""Give each listed image its class: from the first directory level, from a CSV file, or none."""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.classes import ClassList
from cam_ops.errors import UsageError


def labels_digest(spec: str) -> str:
    """Name a label source by content: `none`, `folder`, or the sha256 of the CSV file."""
    if spec in ("none", "folder"):
        return spec
    try:
        return "sha256:" + hashlib.sha256(Path(spec).read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"--labels expects none, folder or a CSV file, cannot read {spec}: {error.strerror}") from None


def find_labels(image_ids: pa.ChunkedArray, spec: str, classes: ClassList, say: Callable[[str], None]) -> pa.Array:
    """Return the class of each image, int32, null where it has none.

    Raises UsageError where folders or labels cannot be matched to the class list.
    """
    if spec == "none":
        return pa.nulls(len(image_ids), pa.int32())
    if spec == "folder":
        return _folder_labels(image_ids, classes, say)
    try:
        class_of = _read_csv(Path(spec), classes)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {spec} as a CSV file: {error}") from None
    labels = [class_of.get(image_id) for image_id in image_ids.to_pylist()]
    num_labelled = sum(label is not None for label in labels)
    if not num_labelled:
        raise UsageError(
            f"no image_id in {spec} is the path of a picture below --images; the CSV says for example "
            f"{next(iter(class_of), '')!r}, the folder has {image_ids[0].as_py()!r}"
        )
    say(f"labels: {num_labelled} of {len(labels)} images; {len(class_of) - num_labelled} rows of {spec} match no image")
    return pa.array(labels, pa.int32())


def _folder_labels(image_ids: pa.ChunkedArray, classes: ClassList, say: Callable[[str], None]) -> pa.Array:
    first_level = pc.if_else(
        pc.match_substring(image_ids, "/"), pc.list_element(pc.split_pattern(image_ids, "/", max_splits=1), 0), None
    )
    folders = sorted(pc.unique(first_level).drop_null().to_pylist())
    if not folders:
        raise UsageError("--labels folder expects pictures in one directory per class, all lie directly in --images")
    ids = [classes.find(folder) for folder in folders]
    unknown = [folder for folder, class_id in zip(folders, ids, strict=True) if class_id is None]
    if len(unknown) == len(folders) == len(classes.names):
        ids = list(range(len(folders)))
        say(f"labels: no folder bears a class name; the {len(folders)} folders are the classes in sorted order")
    elif unknown:
        raise UsageError(
            f"--labels folder: {len(unknown)} of {len(folders)} folders match none of the {len(classes.names)} "
            f"classes, for example {unknown[0]!r}; give --class-names with a column that holds the folders' names, "
            "or --labels FILE.csv"
        )
    index = pc.index_in(first_level, value_set=pa.array(folders))
    return pc.take(pa.array(ids, pa.int32()), index.combine_chunks())


def _read_csv(path: Path, classes: ClassList) -> dict[str, int]:
    class_of: dict[str, int] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"image_id", "label"} <= set(reader.fieldnames or ()):
            raise UsageError(f"expected the columns image_id and label in {path}, found {reader.fieldnames}")
        for record in reader:
            image_id, word = record["image_id"], record["label"] or ""
            if not word.strip():
                continue
            class_id = classes.find(word)
            if class_id is None:
                raise UsageError(
                    f"{path} line {reader.line_num}: {word!r} is no class of the network, by number or name"
                )
            if class_of.setdefault(image_id, class_id) != class_id:
                raise UsageError(f"{path} line {reader.line_num}: {image_id!r} has two different labels")
    return class_of
