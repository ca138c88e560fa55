"""The Arrow schemas of a run's files: the plan and the three published tables.

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


def heatmaps_schema(grid: tuple[int, int]) -> pa.Schema:
    """Return the schema of the raw maps on a grid of (h, w): one row per explained (image, class).

    The rectangle x0..y1 is the part of the original image that the grid covers; it reaches beyond the image where the
    picture was padded.
    """
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
