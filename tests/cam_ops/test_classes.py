"""Class lists, and the words that choose which classes get a map."""

import pytest
import torch

from cam_ops.classes import class_list, distinct_names, parse_class_choice
from cam_ops.errors import UsageError
from cam_ops.explain.scores import best_classes, choose_classes, class_scores

SCORES = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])


def pairs(choice: str, labels: list[int]) -> list[tuple[int, int]]:
    image_P, class_P = choose_classes(SCORES, torch.tensor(labels).reshape(2, -1), parse_class_choice(choice))
    return list(zip(image_P.tolist(), class_P.tolist(), strict=True))


def test_choices_by_hand() -> None:
    assert pairs("top1", [-1, -1]) == [(0, 0), (1, 2)]
    assert pairs("topk:2", [-1, -1])[:2] == [(0, 0), (0, 1)]
    assert pairs("topk:9", [-1, -1])[:3] == [(0, 0), (0, 1), (0, 2)]
    assert pairs("label", [1, -1]) == [(0, 1)]
    assert pairs("label", [1, 2, -1, -1]) == [(0, 1), (0, 2)]  # two labels, and none
    assert pairs("label+top1", [0, 2, 1, -1]) == [(0, 0), (0, 2), (1, 2), (1, 1)]
    assert pairs("label+top1", [2, 2]) == [(0, 0), (0, 2), (1, 2)]
    assert pairs("above:0.25", [-1, -1]) == [(0, 0), (0, 1), (1, 2)]
    assert pairs("above:0.9", [-1, -1]) == []


def test_of_equal_scores_the_lower_class_is_the_best_one_however_many_are_asked_for() -> None:
    scores_BK = torch.zeros(1, 1000)
    scores_BK[0, [104, 250, 255]] = 0.25  # as bfloat16 logits often give
    assert [best_classes(scores_BK, number)[0, 0].item() for number in (1, 2, 5, 1000)] == [104] * 4
    assert best_classes(scores_BK, 4).tolist() == [[104, 250, 255, 0]]
    chosen = choose_classes(scores_BK, torch.tensor([[-1]]), parse_class_choice("top1"))
    assert [pair.tolist() for pair in chosen] == [[0], [104]]


def test_the_best_classes_are_the_first_ones_of_all_sorted() -> None:
    generator = torch.Generator().manual_seed(0)
    for scores_BK in (
        torch.randn(50, 300, generator=generator),
        torch.randn(50, 300, generator=generator).softmax(1),
        torch.randint(-2, 3, (50, 300), generator=generator) * torch.tensor(0.5),  # with ties, and negative zeros
        torch.full((1, 3), -torch.inf),
    ):
        expected_BK = scores_BK.argsort(dim=1, descending=True, stable=True)
        for number in (1, 5, 300):
            assert torch.equal(best_classes(scores_BK, number), expected_BK[:, :number])


@pytest.mark.parametrize("text", ["", "top2", "topk", "topk:0", "topk:x", "above:1", "above", "label:3", "top1,label"])
def test_an_unknown_choice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--classes expects"):
        parse_class_choice(text)


def test_scores() -> None:
    logits = torch.tensor([[0.0, 0.0]])
    assert class_scores(logits, "softmax").tolist() == [[0.5, 0.5]]
    assert class_scores(torch.tensor([[0.0, 0.0, 0.0]]), "sigmoid").tolist() == [[0.5, 0.5, 0.5]]


def test_names_that_are_numbers_mean_those() -> None:
    classes = class_list([("1",), ("2",)], ["1", "2"])
    assert (classes.find("1"), classes.find("2"), classes.find("0")) == (0, 1, None)


def test_distinct_names_tell_apart_what_several_classes_are_called() -> None:
    names = ["crane", "Crane", "crane (1)", "a\nb\x85", "  ", "a, b"]
    assert distinct_names(names) == ("crane (0)", "Crane (1)", "crane (1)", "a\ufffdb\ufffd", "unnamed", "a, b")
    twice = distinct_names(["crane", "crane", "crane (1)"])
    assert twice == ("crane (0)", "crane (1) #1", "crane (1) #2")
