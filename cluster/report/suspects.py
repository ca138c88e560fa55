"""Labels that are suspected to be wrong: the network contradicts them surely, see `cluster.runs.agreement`."""

import numpy as np

from cam_ops.metrics.bootstrap import image_seeds
from cluster.report.galleries import Found, GalleryKind, pick
from cluster.runs.agreement import Agreement

SUSPECTED = GalleryKind(
    key="suspects",
    title="Suspected labels",
    says="The network contradicts the label most surely: the best class's score less the label's is highest.",
)


def suspects_found(agreement: Agreement, most: int) -> Found:
    """Return the images of whose label the network is surest that it is another's."""
    suspects = agreement.suspects
    shard_N, row_N = (suspects[name].to_numpy().astype(np.int64) for name in ("shard", "row"))
    margin_N = suspects["margin"].to_numpy().astype(np.float64)
    picks = pick(margin_N, image_seeds(suspects["image_id"].to_pylist()), shard_N, row_N, most)
    return Found(total=agreement.judged - agreement.top1, picks=picks, most=most)
