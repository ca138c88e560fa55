"""The order of an image's pairs, told by counting them one by one."""

from collections import Counter

import torch

from cam_ops.explain.passes import ranks_of
from cam_ops.outside import bounded_memory


def test_pairs_are_numbered_within_their_image_in_whatever_order_images_come() -> None:
    ranks = ranks_of(torch.tensor([2, 0, 2, 1, 0, 2]))
    assert ranks.rank_P.tolist() == [0, 0, 1, 0, 1, 2]
    assert (ranks.num, ranks.is_whole) == (3, False)
    assert [ranks.pairs(rank).tolist() for rank in range(3)] == [[0, 1, 3], [2, 4], [5]]
    assert (ranks_of(torch.tensor([0, 1])).is_whole, ranks_of(torch.zeros(0, dtype=torch.int64)).num) == (True, 0)


def test_ranks_of_all_classes_of_a_batch_take_no_more_memory_than_pairs() -> None:
    image_P = torch.arange(64).repeat_interleave(1000)  # a square of the pairs would have 4 GB
    with bounded_memory(2**28):
        rank_P = ranks_of(image_P).rank_P
    seen: Counter[int] = Counter()
    for image, rank in zip(image_P.tolist(), rank_P.tolist(), strict=True):
        assert rank == seen[image]
        seen[image] += 1
