"""The tables of an audit: their Arrow schemas. `cluster.audit.files` and `parts` say in which files they are."""

import pyarrow as pa

from cam_ops.tables import CORNERS

PER_IMAGE_SCHEMA = pa.schema(
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
        pa.field("truth_digest", pa.uint64()),
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
"""One row per planned image, made in `cluster.audit.rows`; what is not known is null.

`excluded` says why an image is in no localization figure. `truth_digest` is the same number where two truths say the
same of an image's boxes and size.
"""

TRUE_BOXES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("class_id", pa.int32()),
        *(pa.field(name, pa.float32(), nullable=False) for name in CORNERS),
        pa.field("crowd", pa.bool_(), nullable=False),
    ]
)
"""One row per true box of a planned image, by shard and row, then in the truth's order.

Boxes are half-open pixels of the picture after EXIF orientation. `class_id` is null where the truth does not tell it,
or the network has no such class.
"""

DETECTIONS_SCHEMA = pa.schema(
    [
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("seed", pa.uint64(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("matched", pa.uint16()),
        pa.field("ignored", pa.uint16()),
        pa.field("num_truth", pa.int32(), nullable=False),
    ]
)
"""For average precision, by image and class: a row for its true boxes, score null, then one for each detection.

`seed` is that of the image's weights. Parts alone: no such table is left.
"""

PER_CLASS_SCHEMA = pa.schema(
    [
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("correct", pa.int64(), nullable=False),
        pa.field("gt_known_loc", pa.float64()),
        pa.field("top1_loc", pa.float64()),
        pa.field("mean_iou", pa.float64()),
        pa.field("ap", pa.float64()),
        pa.field("num_maps", pa.int64(), nullable=False),
        pa.field("mean_map", pa.list_(pa.float64())),
        pa.field("box_density", pa.list_(pa.int64())),
        pa.field("suspected_place", pa.string()),
    ]
)
"""One row per class: images of it and their figures in percent; its maps, each over its peak, averaged, and how many
of its boxes cover each cell of a 16x16 grid, by rows; where most of that lies, if it is suspected of a shortcut."""
