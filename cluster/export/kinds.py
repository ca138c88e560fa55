"""The formats that a run can be exported to."""

from cluster.formats.coco import COCO_EXPORT
from cluster.formats.coco_results import COCO_RESULTS_EXPORT
from cluster.formats.cvat import CVAT_EXPORT
from cluster.formats.exported import ExportFormat
from cluster.formats.huggingface import HUGGINGFACE_EXPORT
from cluster.formats.label_studio import LABEL_STUDIO_EXPORT
from cluster.formats.loc_csv import LOC_EXPORT
from cluster.formats.pascal_voc import VOC_EXPORT
from cluster.formats.pixels.score_maps import WSOL_EXPORT
from cluster.formats.pixels.seeds import SEEDS_EXPORT
from cluster.formats.pixels.soft_masks import MASKS_EXPORT
from cluster.formats.table import CSV_EXPORT
from cluster.formats.tar import WEBDATASET_EXPORT
from cluster.formats.yolo import YOLO_EXPORT

EXPORTS: dict[str, ExportFormat] = {
    form.name: form
    for form in (
        COCO_EXPORT,
        COCO_RESULTS_EXPORT,
        YOLO_EXPORT,
        VOC_EXPORT,
        LABEL_STUDIO_EXPORT,
        CVAT_EXPORT,
        CSV_EXPORT,
        LOC_EXPORT,
        HUGGINGFACE_EXPORT,
        WEBDATASET_EXPORT,
        WSOL_EXPORT,
        SEEDS_EXPORT,
        MASKS_EXPORT,
    )
}
