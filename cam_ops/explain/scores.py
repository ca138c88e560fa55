"""Scores of an image's classes, and which of them to explain.

Letters: B images, K classes, M labels of an image at most, P explained (image, class) pairs.
"""

import torch
from torch import Tensor

from cam_ops.classes import ClassChoice, ScoreKind

NUM_TOP = 5


def class_scores(logits_BK: Tensor, kind: ScoreKind) -> Tensor:
    """Return the probability of each class, float32 (B, K): over all classes together, or of each by itself."""
    return logits_BK.softmax(1) if kind == "softmax" else logits_BK.sigmoid()


def best_classes(scores_BK: Tensor, number: int) -> Tensor:
    """Return the classes of highest score, int64 (B, number), best first; of equal ones the lower class first.

    `topk` returns equal scores in any order, so the rows that have some among them are looked at again.
    """
    num_classes = scores_BK.shape[1]
    values_BT, class_BT = scores_BK.topk(min(number + 1, num_classes), dim=1)
    class_BT = class_BT[:, :number]
    told_apart_B = (values_BT[:, :-1] > values_BT[:, 1:]).all(1)  # False where one is NaN
    if not told_apart_B.all():
        class_BT[~told_apart_B] = _best_of_equal(scores_BK[~told_apart_B], class_BT.shape[1])
    return class_BT


def _best_of_equal(scores_BK: Tensor, number: int) -> Tensor:
    """Do the same where some scores are equal.

    They are told apart by the class: a score's bits, in the order of its values, above the class counted from the last
    one. To sort all classes takes twenty times as long.
    """
    bits_BK = (scores_BK + 0.0).view(torch.int32)  # without a negative 0
    ordered_BK = (bits_BK ^ ((bits_BK >> 31) & 0x7FFFFFFF)).long()
    last = scores_BK.shape[1] - 1
    keys_BK = (ordered_BK << 32) + torch.arange(last, -1, -1, device=scores_BK.device)
    return last - (keys_BK.topk(number, dim=1).values & 0xFFFFFFFF)


def choose_classes(scores_BK: Tensor, labels_BM: Tensor, choice: ClassChoice) -> tuple[Tensor, Tensor]:
    """Return the pairs to explain: image index and class, both int64 (P,), by image and then by falling score.

    `labels_BM` is int64 with -1 where an image has fewer labels, or none, which adds no pair for `label`.
    """
    wanted_BK = torch.zeros_like(scores_BK, dtype=torch.bool)
    if choice.top:
        wanted_BK.scatter_(1, best_classes(scores_BK, choice.top), True)
    if choice.above is not None:
        wanted_BK |= scores_BK > choice.above
    if choice.label:
        is_label_BM = labels_BM >= 0
        wanted_BK[is_label_BM.nonzero()[:, 0], labels_BM[is_label_BM]] = True
    image_P, class_P = wanted_BK.nonzero(as_tuple=True)
    by_score = scores_BK[image_P, class_P].argsort(descending=True, stable=True)
    order = by_score[image_P[by_score].argsort(stable=True)]
    return image_P[order], class_P[order]
