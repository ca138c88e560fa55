"""Class lists, and the words that choose which classes get a map."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from cam_ops.classes import class_list, parse_class_choice
from cam_ops.errors import UsageError
from cam_ops.explain.scores import best_classes, choose_classes, class_scores
from cluster.sources.labels import find_labels
from cluster.sources.listing import Listing

NAMES = class_list([("n01", "cat"), ("n02", "crane"), ("n03", "crane")], ["cat", "crane", "crane"])
SCORES = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])


def pairs(choice: str, labels: list[int]) -> list[tuple[int, int]]:
    image_P, class_P = choose_classes(SCORES, torch.tensor(labels), parse_class_choice(choice))
    return list(zip(image_P.tolist(), class_P.tolist(), strict=True))


def test_choices_by_hand() -> None:
    assert pairs("top1", [-1, -1]) == [(0, 0), (1, 2)]
    assert pairs("topk:2", [-1, -1])[:2] == [(0, 0), (0, 1)]
    assert pairs("topk:9", [-1, -1])[:3] == [(0, 0), (0, 1), (0, 2)]
    assert pairs("label", [1, -1]) == [(0, 1)]
    assert pairs("label+top1", [2, 2]) == [(0, 0), (0, 2), (1, 2)]
    assert pairs("above:0.25", [-1, -1]) == [(0, 0), (0, 1), (1, 2)]
    assert pairs("above:0.9", [-1, -1]) == []


def test_of_equal_scores_the_lower_class_is_the_best_one_however_many_are_asked_for() -> None:
    scores_BK = torch.zeros(1, 1000)
    scores_BK[0, [104, 250, 255]] = 0.25  # as bfloat16 logits often give
    assert [best_classes(scores_BK, number)[0, 0].item() for number in (1, 2, 5, 1000)] == [104] * 4
    assert best_classes(scores_BK, 4).tolist() == [[104, 250, 255, 0]]
    chosen = choose_classes(scores_BK, torch.tensor([-1]), parse_class_choice("top1"))
    assert [pair.tolist() for pair in chosen] == [[0], [104]]


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


def labels_of(ids: list[str], spec: str, classes: object = NAMES) -> list[int | None]:
    batch = pa.record_batch({"image_id": ids})
    listing = Listing(num_images=len(ids), has_labels=False, batches=lambda: iter([batch.slice(0, 1), batch.slice(1)]))
    labels_of = find_labels(listing, spec, classes, lambda sentence: None)
    return [label for batch in listing.batches() for label in labels_of(batch).to_pylist()]


def test_folders_match_any_column_and_pictures_at_the_root_have_no_label() -> None:
    assert labels_of(["n03/a.jpg", "cat/x/b.jpg", "c.jpg", "1/d.jpg"], "folder") == [2, 0, None, 1]


def test_folders_that_bear_no_class_name_count_in_sorted_order_only_if_there_are_as_many() -> None:
    assert labels_of(["z/1.jpg", "x/1.jpg", "y/1.jpg"], "folder") == [2, 0, 1]
    with pytest.raises(UsageError, match="2 of 2 folders match none of the 3 classes, for example 'x'"):
        labels_of(["y/1.jpg", "x/1.jpg"], "folder")
    with pytest.raises(UsageError, match="1 of 3 folders match none"):
        labels_of(["cat/1.jpg", "n02/1.jpg", "x/1.jpg"], "folder")
    with pytest.raises(UsageError, match="'crane' means classes"):
        labels_of(["crane/1.jpg"], "folder")


def test_labels_from_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image_id,label\na.jpg,cat\nb.jpg,2\nc.jpg,\nelsewhere.jpg,1\n")
    assert labels_of(["a.jpg", "b.jpg", "c.jpg"], str(path)) == [0, 2, None]
    for text, reason in (
        ("id,label\na.jpg,1\n", "columns image_id and label"),
        ("image_id,label\na.jpg,bird\n", "line 2: 'bird' is no class"),
        ("image_id,label\na.jpg,1\na.jpg,2\n", "two different labels"),
        ("image_id,label\nx.jpg,1\n", "no image_id"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=reason):
            labels_of(["a.jpg"], str(path))
