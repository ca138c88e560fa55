"""The formats that a run can be exported to."""

from cluster.formats.coco import COCO_EXPORT
from cluster.formats.coco_results import COCO_RESULTS_EXPORT
from cluster.formats.exported import ExportFormat
from cluster.formats.pixels.score_maps import WSOL_EXPORT
from cluster.formats.pixels.seeds import SEEDS_EXPORT
from cluster.formats.pixels.soft_masks import MASKS_EXPORT
from cluster.formats.yolo import YOLO_EXPORT

EXPORTS: dict[str, ExportFormat] = {
    form.name: form
    for form in (
        COCO_EXPORT,
        COCO_RESULTS_EXPORT,
        YOLO_EXPORT,
        WSOL_EXPORT,
        SEEDS_EXPORT,
        MASKS_EXPORT,
    )
}
