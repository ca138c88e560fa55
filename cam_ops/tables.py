"""The Arrow schemas of a run's files, and what their columns and statuses mean, as docs/output.md has it.

All boxes and rectangles are float32 x0, y0, x1, y1: pixels of the original image after EXIF orientation, half-open.
"""

import json
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = "1.0.0"
COORDINATES = "pixels of the original image after EXIF orientation, half-open: x1 - x0 is the width"
METADATA_KEY = "camray"

CORNERS = ("x0", "y0", "x1", "y1")
_CORNERS = [pa.field(name, pa.float32(), nullable=False) for name in CORNERS]
_PLACE = [pa.field("shard", pa.int32(), nullable=False), pa.field("row", pa.int32(), nullable=False)]
_IMAGE_ID = pa.field("image_id", pa.string(), nullable=False)
_SOURCE = [
    pa.field("uri", pa.string(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
]
_LABEL = pa.field("label", pa.int32())

LISTING = pa.schema([_IMAGE_ID, *_SOURCE])
"""What a source yields: `offset` and `size` are the byte range of the picture inside `uri`, size -1 is all of it."""

LABELLED = pa.schema([*LISTING, _LABEL])
"""A listing with the class of each image, null where it has none."""

LABELS = pa.field("labels", pa.list_(pa.int32()))
"""Beside `label` where images of the source have several classes: those of such an image, rising, else null."""

PLAN = pa.schema([_IMAGE_ID, *_PLACE, *_SOURCE, _LABEL])
"""One row per input image: its shard, its row in the shard, where its bytes are, its class."""

IMAGES = pa.schema(
    [
        _IMAGE_ID,
        *_PLACE,
        *_SOURCE,
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        _LABEL,
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("top_classes", pa.list_(pa.int32()), nullable=False),
        pa.field("top_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("num_maps", pa.int32(), nullable=False),
        pa.field("num_boxes", pa.int32(), nullable=False),
    ]
)
"""One row per planned image, always; `status` is ok or says why not. Width and height are 0 where unknown."""

BOXES = pa.schema(
    [
        _IMAGE_ID,
        *_PLACE,
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("class_source", pa.string(), nullable=False),
        *_CORNERS,
        pa.field("score", pa.float32(), nullable=False),
        pa.field("peak", pa.float32(), nullable=False),
        pa.field("energy", pa.float32(), nullable=False),
        pa.field("area_fraction", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("threshold", pa.float32(), nullable=False),
    ]
)
"""One row per box, by image row, class in order of explanation, threshold in the order asked for, and rank (0 is best).
"""

CALIBRATED_BOXES = BOXES.append(pa.field("probability", pa.float32(), nullable=False))
"""The same in runs with a calibration: `probability` is that of IoU >= .5 with an object of the box's class."""

SUSPECTS = pa.schema(
    [
        _IMAGE_ID,
        *_PLACE,
        pa.field("label", pa.int32(), nullable=False),
        pa.field("label_name", pa.string(), nullable=False),
        pa.field("label_score", pa.float32()),
        pa.field("predicted", pa.int32(), nullable=False),
        pa.field("predicted_name", pa.string(), nullable=False),
        pa.field("predicted_score", pa.float32(), nullable=False),
        pa.field("margin", pa.float32(), nullable=False),
    ]
)
"""One row per image whose label the network contradicts, the surest first, a thousand at most."""


def with_labels(schema: pa.Schema, several_labels: bool) -> pa.Schema:
    """Return LABELLED, PLAN or IMAGES as it is where images of the source have several classes: with LABELS."""
    return schema.insert(schema.get_field_index("label") + 1, LABELS) if several_labels else schema


Kept = tuple[tuple[str, str], ...]
"""Further columns of a source that a run carries along: names, and types of KEPT_TYPES."""

KEPT_TYPES: dict[str, pa.DataType] = {
    str(kind): kind
    for kind in (
        *(pa.string(), pa.bool_(), pa.float32(), pa.float64()),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    )
}


def with_kept(schema: pa.Schema, kept: Kept) -> pa.Schema:
    """Return LABELLED, PLAN or IMAGES as it is where further columns are carried along: with them at its end."""
    return pa.schema([*schema, *(pa.field(name, KEPT_TYPES[kind]) for name, kind in kept)])


def heatmaps_schema(grid: tuple[int, int], cam_grid: tuple[int, int] | None = None) -> pa.Schema:
    """Return the schema of the raw maps on a grid of (h, w): one row per explained (image, class).

    With `cam_grid` there is a column `cam`, too: the maps on that grid, before they were refined.

    The rectangle x0..y1 is the part of the original image that the grid covers; it reaches beyond the image where the
    picture was padded.
    """
    cam = [] if cam_grid is None else [pa.field("cam", pa.fixed_shape_tensor(pa.float32(), cam_grid))]
    return pa.schema(
        [
            _IMAGE_ID,
            *_PLACE,
            pa.field("class_id", pa.int32(), nullable=False),
            pa.field("method", pa.string(), nullable=False),
            pa.field("heatmap", pa.fixed_shape_tensor(pa.float32(), grid), nullable=False),
            *_CORNERS,
            pa.field("score", pa.float32(), nullable=False),
            pa.field("logit", pa.float32(), nullable=False),
            pa.field("residual", pa.float32()),
            *cam,
        ]
    )


def with_metadata(schema: pa.Schema, document: dict[str, Any]) -> pa.Schema:
    """Attach the run's own document under `camray` and the Hugging Face features of the columns."""
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata(
        {
            METADATA_KEY: json.dumps(document, sort_keys=True),
            "huggingface": json.dumps({"info": {"features": features}}),
        }
    )


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if isinstance(kind, pa.FixedShapeTensorType):
        return {"shape": list(kind.shape), "dtype": str(_value(kind.value_type)), "_type": "Array2D"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": _value(kind), "_type": "Value"}


def _value(kind: pa.DataType) -> str:
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


_RECTANGLE = {
    "x0": "left edge of the part of the picture that the map's grid covers, pixels; below 0 where it was padded",
    "y0": "its upper edge",
    "x1": "its right edge, half-open; beyond `width` where it was padded",
    "y1": "its lower edge, half-open",
}
_BOX = {
    "x0": "left edge, pixels",
    "y0": "upper edge, pixels",
    "x1": "right edge, pixels, half-open: the width is `x1 - x0`",
    "y1": "lower edge, pixels, half-open: the height is `y1 - y0`",
}
_KEY = {
    "image_id": "the image: its path below the source, or tar file and member; unique in the run",
    "shard": "number of the file that the row is in",
    "row": "place of the image in that shard; the same in all tables",
}
_WHERE = {
    "uri": "file or address that holds the picture's bytes",
    "offset": "byte at which they begin; above 0 only inside a larger file, such as a tar. If `size` is below -1: row",
    "size": "how many bytes; -1 is all of the file; -2 - N is one cell of the Parquet file's column N, from 0",
}
_CLASS = {
    "label": "class that `--labels` gives; null where it gives none, or several",
    "labels": "classes that it gives, rising, where an image has several, else null; only in runs with such images",
}

COLUMNS: dict[str, dict[str, str]] = {
    "images": {
        **_KEY,
        **_WHERE,
        "width": "pixels of the picture, after EXIF orientation; 0 where it could not be read",
        "height": "likewise",
        **_CLASS,
        "status": "`ok`, or why there is no map: see statuses",
        "error": "more about a status that is not `ok`; null where it is",
        "top_classes": "the five best classes, best first (all, if fewer); empty where not `ok`",
        "top_scores": "their scores",
        "num_maps": "rows of this image in `heatmaps`",
        "num_boxes": "rows of this image in `boxes`, at the first threshold",
    },
    "boxes": {
        **_KEY,
        "class_id": "class that the box is of, a place in `class_names` of run.json",
        "class_name": "its name",
        "class_source": "`label` where it is a label of the image and `--classes` has `label`, else `predicted`",
        **_BOX,
        "score": "probability that the network gives the class for the whole image, 0..1; the same for all its boxes",
        "peak": "highest value of the normalised map in the box's region, 0..1",
        "energy": "share of the map's positive mass that lies inside the box, 0..1",
        "area_fraction": "box area over picture area, 0..1",
        "rank": "0 is the best box of its image, class and threshold: by peak, then area, then position",
        "threshold": "fraction of the map's highest value from which on a pixel is inside",
        "probability": "of IoU >= 0.5 with an object of the class, 0..1; only in runs with `--calibration`",
    },
    "heatmaps": {
        **_KEY,
        "class_id": "class that the map explains",
        "method": "how it was computed, as `--method`",
        "heatmap": "the raw map, row by row; h and w are `grid` of run.json. Where maps are refined it is at least 0, "
        "else signed and on the network's own grid",
        **_RECTANGLE,
        "score": "probability that the network gives the class, 0..1",
        "logit": "the network's own output for the class, before softmax or sigmoid; no unit",
        "residual": "how far the map, before it is refined, is from adding up to the logit, in units of the image's "
        "largest; null where a method claims no sum",
        "cam": "the raw, signed map before it was refined, on the network's own grid; only in runs with `--keep-cam`",
    },
    "plan": {**_KEY, **_WHERE, **_CLASS},
    "suspects": {
        **_KEY,
        "label": "class that `--labels` gives; of several the one that scores best",
        "label_name": "its name",
        "label_score": "score of that class, 0..1; null where it is not among the five best",
        "predicted": "class that the network thinks best, always another one",
        "predicted_name": "its name",
        "predicted_score": "its score, 0..1",
        "margin": "`predicted_score` less that of the label, 0..1; where the latter is null, the least that it can be",
    },
}
"""What each column of a run's tables means, in Markdown: `docs/output.md` is made from it."""

STATUSES: dict[str, str] = {
    "ok": "the network saw it; it may still have no map, as with `--classes label` and no label",
    "missing": "no such file (any more), a link to nothing, or no such key on the store",
    "unreadable": "permission denied, a circle of links, a name that is too long, or a pipe or another thing that is "
    "no file",
    "empty": "no bytes",
    "truncated": "begins as a picture and ends too early, at whichever byte",
    "undecodable": "damaged; or by its content, whatever its suffix, of no format that is read (see [label](label.md))",
    "too_large": "more than 256 MiB, 89,478,485 pixels, 1,048,576 pixels a side, 500 scans of a progressive JPEG, or "
    "32 MiB of a PPM in digits",
    "overflow": "the network's logits, or a map, are not finite in the run's precision",
    "crashed_decoder": "it ended two decoders in a row, or kept them for more than a minute",
    "crashed_network": "replicas died or hung while the network worked on it alone",
    "cuda_oom": "the GPU lacks the memory for it alone",
}
"""What each status of the images table means, in Markdown."""
