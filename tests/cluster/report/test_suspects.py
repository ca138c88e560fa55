"""Labels that are suspected, as a gallery."""

import pyarrow as pa

from cam_ops.tables import IMAGES, with_metadata
from cluster.report.suspects import suspects_found
from cluster.runs.agreement import AgreementSum, judge
from tests.support.exported_runs import ExportedRun


def test_all_contradicted_images_are_counted_though_not_all_are_kept(labelled: ExportedRun) -> None:
    about = {"shard": 0, "uri": "", "offset": 0, "size": -1, "width": 8, "height": 8, "num_maps": 1, "num_boxes": 1}
    rows = [
        {**about, "image_id": f"{i}.png", "row": i, "status": "ok", "label": i % 2, "top_classes": [1, 0]}
        | {"top_scores": [0.5 + i / 10_000, 0.4]}
        for i in range(2400)
    ]
    agreement = AgreementSum(labelled.record)
    agreement.add(judge(pa.Table.from_pylist(rows, schema=with_metadata(IMAGES, {})), labelled.record, "here"))
    total = agreement.total()
    assert total is not None
    found = suspects_found(total, 3)
    assert (found.total, found.picks["row"].tolist()) == (1200, [2398, 2396, 2394])
