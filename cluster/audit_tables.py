"""The tables of an audit: their Arrow schemas."""

import pyarrow as pa

PER_IMAGE = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("true_class", pa.int32()),
        pa.field("top_class", pa.int32()),
        pa.field("top1", pa.bool_()),
        pa.field("top5", pa.bool_()),
        pa.field("excluded", pa.string()),
        pa.field("num_truth", pa.int32(), nullable=False),
        pa.field("truth_area", pa.float32()),
        pa.field("iou", pa.float32()),
        pa.field("iou_best_threshold", pa.float32()),
        pa.field("reachable_iou", pa.float32()),
        pa.field("correct", pa.bool_()),
        pa.field("pointing", pa.bool_()),
        pa.field("energy_inside", pa.float32()),
        pa.field("failure", pa.string()),
        pa.field("class_id", pa.int32()),
        pa.field("score", pa.float32()),
        pa.field("entropy", pa.float32()),
        pa.field("concentration", pa.float32()),
        pa.field("border_mass", pa.float32()),
        pa.field("num_components", pa.int32()),
        pa.field("box_area", pa.float32()),
        pa.field("attention", pa.float32()),
    ]
)
"""One row per planned image; what is not known is null. `excluded` says why an image is in no localization figure."""

DETECTIONS = pa.schema(
    [
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("seed", pa.uint64(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("matched", pa.uint16()),
        pa.field("ignored", pa.uint16()),
        pa.field("num_truth", pa.int32(), nullable=False),
    ]
)
"""For average precision, by image and class: a row for its true boxes, score null, then one for each detection."""
