"""Hugging Face's `datasets`: Parquet, a row a picture with its boxes as lists, and the dataset card. Only written.

Boxes are COCO's ``[x, y, width, height]`` in pixels, ends outside; classes are counted from 0 among those exported, as
ClassLabel counts. Lists are of its type Sequence, which versions from 2.14 on read: those before 4 know no List.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cluster.formats.exported import Add, ExportFormat, Part, Picture, Settings, Whole, pack

FOLDER, CARD = "data", "README.md"
ALONE = "train"  # the split of an export that has none, as load_dataset would call it
SIZES = "sizes"
GROUP_ROWS, GROUP_BYTES = 100, 16 * 2**20  # of pictures: readers of one row, and the hub's viewer, read its group
TEXT = """
# Boxes of class activation maps

camray made these boxes of the maps of a network that knew the class of each picture, or guessed it; nobody drew them.

```python
from datasets import load_dataset

pictures = load_dataset("PATH OR NAME OF THIS DATASET")
```

* `image`: the picture, upright; `width` and `height` are its pixels.
* `objects.bbox`: x, y, width, height in pixels from the picture's upper left corner.
* `objects.category`: the class.
* `objects.score`: the network's score for that class in the whole picture; `objects.energy`: the share of the map's
  mass in the box; `objects.probability`, where there is one: that IoU with an object of the class is at least 0.5.
"""


def _write(pictures: Iterator[Picture], part: Part) -> None:
    schema = _schema(part.settings)
    pack(
        pictures,
        part,
        lambda split: f"{FOLDER}/{split or ALONE}-{part.number:05d}",
        ".parquet",
        partial(_begun, part=part, schema=schema),
    )


@contextmanager
def _begun(file: IO[bytes], part: Part, schema: pa.Schema) -> Iterator[Add]:
    """Write a Parquet file; memory holds a row group."""
    held: list[Picture] = []

    def flush() -> None:
        table = pa.Table.from_pylist([_row(picture, part.settings) for picture in held], schema)
        writer.write_table(table)
        part.note(SIZES, held[0].split, b"%d %d" % (len(table), table.nbytes))
        held.clear()

    def add(picture: Picture) -> None:
        held.append(picture)
        if len(held) == GROUP_ROWS or sum(len(one.content) for one in held) >= GROUP_BYTES:
            flush()

    with pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=False,
        write_statistics=["image_id", "width", "height"],  # not the pictures' bytes
        write_page_index=True,
    ) as writer:
        yield add
        if held:
            flush()


def _row(picture: Picture, settings: Settings) -> dict[str, Any]:
    boxes, numbers = picture.boxes, settings.classes.numbers
    objects: dict[str, list[Any]] = {
        "bbox": [list(box.extent) for box in boxes],
        "category": [numbers[box.class_id] for box in boxes],
        "score": [box.score for box in boxes],
        "energy": [box.energy for box in boxes],
    }
    if settings.is_calibrated:
        objects["probability"] = [box.probability for box in boxes]
    return {
        "image": _image(picture, settings),
        "image_id": picture.image_id,
        "width": picture.width,
        "height": picture.height,
        "objects": objects,
    }


def _image(picture: Picture, settings: Settings) -> dict[str, Any] | None:
    """Return a picture's cell: without its bytes its own address, nothing where no file holds it alone."""
    if settings.has_pictures:
        return {"bytes": picture.content, "path": picture.name}
    if not picture.uri:
        return None
    is_uri = picture.uri.startswith("file://")
    return {"bytes": None, "path": os.fsdecode(unquote_to_bytes(picture.uri[7:])) if is_uri else picture.uri}


Feature = dict[str, Any]  # as `datasets` has it in JSON


def _value(dtype: str) -> Feature:
    return {"dtype": dtype, "_type": "Value"}


def _sequence(feature: Feature) -> Feature:
    return {"feature": feature, "_type": "Sequence"}


def _features(settings: Settings) -> Feature:
    classes = settings.classes
    label = {"names": [classes.names[class_id] for class_id in classes.numbers], "_type": "ClassLabel"}
    further = ["probability"] if settings.is_calibrated else []
    return {
        "image": {"_type": "Image"},
        "image_id": _value("string"),
        "width": _value("int32"),
        "height": _value("int32"),
        "objects": {
            "bbox": _sequence(_sequence(_value("float64"))),
            "category": _sequence(label),
            **{name: _sequence(_value("float32")) for name in ("score", "energy", *further)},
        },
    }


ARROW = {
    "string": pa.string(),
    "int32": pa.int32(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "ClassLabel": pa.int64(),
    "Image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
}


def _arrow(feature: Feature) -> pa.DataType:
    kind = feature.get("_type")
    if kind is None:
        return pa.struct([(name, _arrow(inner)) for name, inner in feature.items()])
    if kind == "Sequence":
        return pa.list_(_arrow(feature["feature"]))
    return ARROW[str(feature.get("dtype", kind))]


def _schema(settings: Settings) -> pa.Schema:
    features = _features(settings)
    fields = [pa.field(name, _arrow(feature)) for name, feature in features.items()]
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _listed(features: Feature) -> list[Feature]:
    """Return features as the card lists them."""
    return [{"name": name, **_shown(feature)} for name, feature in features.items()]


def _shown(feature: Feature) -> Feature:
    kind = feature.get("_type")
    if kind is None:
        return {"struct": _listed(feature)}
    if kind == "Sequence":
        inner = _shown(feature["feature"])
        return {"sequence": inner.get("dtype", inner)}
    if kind == "ClassLabel":
        return {"class_label": {"names": {str(number): name for number, name in enumerate(feature["names"])}}}
    return {"dtype": feature.get("dtype", kind.lower())}


def _finish(whole: Whole) -> None:
    """Write the card. Splits without a row are not in it: load_dataset takes none."""
    sizes = {
        split or ALONE: [[*map(int, line.split())] for line in whole.notes(SIZES, split)] for split in whole.splits
    }
    splits = [
        {"name": split, "num_bytes": sum(size for _, size in found), "num_examples": sum(rows for rows, _ in found)}
        for split, found in sizes.items()
        if found
    ]
    files = [{"split": split["name"], "path": f"{FOLDER}/{split['name']}-*.parquet"} for split in splits]
    card = {
        "task_categories": ["object-detection"],
        "dataset_info": {"features": _listed(_features(whole.settings)), "splits": splits},
        **({"configs": [{"config_name": "default", "data_files": files}]} if files else {}),
    }
    header = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=10**6)
    whole.put(CARD, f"---\n{header}---\n{TEXT}".encode())


HUGGINGFACE_EXPORT = ExportFormat(
    name="huggingface",
    entries=(FOLDER, CARD),
    write=_write,
    finish=_finish,
    pictures="copy",
    embeds=True,
)
