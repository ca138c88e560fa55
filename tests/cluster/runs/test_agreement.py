"""How far network and labels agree: counts, chance, pairs and suspects against plain loops over the same rows."""

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cam_ops.errors import StorageError
from cam_ops.tables import IMAGES, LABELS, SUSPECTS, with_metadata
from cluster.runs import agreement as module
from cluster.runs.agreement import Agreement, AgreementSum, judge
from cluster.runs.record import Run

Rows = list[dict[str, Any]]


def run_of(template: Run, num_classes: int, scores: str = "softmax") -> Run:
    names = tuple(f"class {c}" for c in range(num_classes))
    return replace(template, class_names=names, request=replace(template.request, scores=scores))


def images_of(rows: Rows, shard: int = 0) -> pa.Table:
    filled = [
        {"shard": shard, "row": i, "uri": "", "offset": 0, "size": -1, "width": 8, "height": 8, "num_maps": 1}
        | {"num_boxes": 1, "status": "ok", "image_id": f"{i:05d}.png", **row}
        for i, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(filled, schema=with_metadata(IMAGES, {}))


def agreement_of(run: Run, shards: list[Rows]) -> Agreement | None:
    total = AgreementSum(run)
    for shard, rows in enumerate(shards):
        total.add(judge(images_of(rows, shard), run, "here"))
    return total.total()


def drawn(num_images: int, num_classes: int, seed: int = 0) -> Rows:
    """Draw softmax scores, and labels that are mostly the best class; every tenth image is bad, every seventh bare."""
    generator = np.random.default_rng(seed)
    logits_NK = generator.normal(0, 2, (num_images, num_classes))
    scores_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(1, keepdims=True)
    rows: Rows = []
    for i, scores_K in enumerate(scores_NK):
        order = np.argsort(-scores_K)[:5]
        label = None if i % 7 == 0 else int(order[0] if generator.random() < 0.6 else generator.integers(num_classes))
        bad = {"status": "empty", "error": "no bytes", "top_classes": [], "top_scores": []}
        ok = {"top_classes": order.tolist(), "top_scores": scores_K[order].astype(np.float32).tolist()}
        rows.append({"label": label, **(bad if i % 10 == 0 else ok), "all": scores_K})
    return rows


def bare(rows: Rows) -> Rows:
    return [{name: value for name, value in row.items() if name != "all"} for row in rows]


@pytest.mark.parametrize("num_classes", [3, 5, 40])
def test_counts_and_suspects_are_those_of_plain_loops(template: Run, num_classes: int) -> None:
    rows, size = drawn(700, num_classes), 64
    shards = [bare(rows[first : first + size]) for first in range(0, len(rows), size)]
    found = agreement_of(run_of(template, num_classes), shards)
    assert found is not None
    judged = [(i, row) for i, row in enumerate(rows) if row["label"] is not None and row["top_classes"]]
    assert found.labelled == sum(row["label"] is not None for row in rows)
    assert found.judged == len(judged) < found.labelled
    assert found.top1 == sum(row["top_classes"][0] == row["label"] for _, row in judged)
    top5 = sum(row["label"] in row["top_classes"] for _, row in judged)
    assert found.top5 == (top5 if num_classes > 5 else None)
    expected = []
    for i, row in judged:
        classes, scores = row["top_classes"], row["top_scores"]
        if classes[0] == row["label"]:
            continue
        known = dict(zip(classes, scores, strict=True)).get(row["label"])
        bound = min(scores[-1], max(0.0, 1 - sum(scores)))
        margin = scores[0] - (bound if known is None else known)
        assert margin <= row["all"].max() - row["all"][row["label"]] + 1e-6  # never more than the network says
        expected.append((margin, i // size, i % size, row["label"], known, classes[0], scores[0]))
    expected.sort(key=lambda row: (-np.float32(row[0]), row[1], row[2]))
    assert found.suspects.schema.equals(SUSPECTS)
    suspects = found.suspects.to_pylist()
    assert len(suspects) == len(expected) > 100
    for ours, (margin, shard, row, label, known, predicted, score) in zip(suspects, expected, strict=True):
        assert (ours["shard"], ours["row"], ours["label"], ours["predicted"]) == (shard, row, label, predicted)
        assert ours["image_id"] == f"{row:05d}.png"
        assert (ours["label_name"], ours["predicted_name"]) == (f"class {label}", f"class {predicted}")
        assert (ours["label_score"], ours["predicted_score"]) == (known, score)
        assert ours["margin"] == pytest.approx(margin, abs=1e-6)


def test_pairs_are_ranked_by_the_margins_of_their_images_over_those_of_the_label(template: Run) -> None:
    rows = bare(drawn(2000, 6))
    found = agreement_of(run_of(template, 6), [rows])
    assert found is not None
    of_label: Counter[int] = Counter()
    margins: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row in rows:
        if row["label"] is None or not row["top_classes"]:
            continue
        of_label[row["label"]] += 1
        classes, scores = row["top_classes"], row["top_scores"]
        if classes[0] != row["label"]:
            known = dict(zip(classes, scores, strict=True)).get(row["label"], min(scores[-1], 1 - sum(scores)))
            margins[row["label"], classes[0]].append(scores[0] - known)
    ranked = sorted(margins, key=lambda pair: -sum(margins[pair]) / (of_label[pair[0]] + 10))[:10]
    assert [(pair.label, pair.predicted) for pair in found.pairs] == [(f"class {a}", f"class {b}") for a, b in ranked]
    assert [pair.images for pair in found.pairs] == [len(margins[pair]) for pair in ranked]
    assert [pair.labelled for pair in found.pairs] == [of_label[a] for a, _ in ranked]


def test_however_shards_are_cut_the_result_is_the_same(template: Run) -> None:
    rows = bare(drawn(3000, 12))
    run = run_of(template, 12)
    whole, parts = (
        agreement_of(run, [rows[first : first + size] for first in range(0, 3000, size)]) for size in (3000, 50)
    )
    assert whole is not None
    assert parts is not None
    for name in ("labelled", "judged", "top1", "top5", "chance", "pairs"):
        assert getattr(parts, name) == getattr(whole, name)
    columns = ["label", "label_score", "predicted", "predicted_score", "margin"]
    assert parts.suspects.select(columns).equals(whole.suspects.select(columns))


def test_of_many_suspects_the_surest_thousand_are_kept(template: Run) -> None:
    rows = bare(drawn(5000, 9, seed=4))
    run = run_of(template, 9)
    found = agreement_of(run, [rows[first : first + 500] for first in range(0, 5000, 500)])
    assert found is not None
    assert len(found.suspects) == 1000
    assert found.judged - found.top1 > 1200
    margins = found.suspects["margin"].to_pylist()
    assert margins == sorted(margins, reverse=True)


def sure(label: int, best: int, num_classes: int) -> dict[str, Any]:
    """Return a row of an image whose best class has nearly all."""
    others = [c for c in range(num_classes) if c != best][:4]
    scores = [0.96] + [0.01] * len(others)
    return {"label": label, "top_classes": [best, *others], "top_scores": scores}


@pytest.mark.parametrize(
    ("rows", "num_classes", "chance", "near"),
    [
        ([sure(c, c, 4) for c in (0, 1, 2, 3)] * 5, 4, 0.25, False),
        ([sure(c, (c + 1) % 4, 4) for c in (0, 1, 2, 3)] * 5, 4, 0.25, True),  # a list in another order
        ([sure(c, 0, 4) for c in (0, 0, 0, 1)] * 5, 4, 0.75, True),  # one class for all: 75 % right, and blind
        ([sure(7, 7 if i < 6 else 3, 1000) for i in range(20)], 1000, 0.001, False),  # 30 % of one class alone
        ([sure(7, 3, 1000) for _ in range(20)], 1000, 0.001, True),
        ([sure(7, 3, 1000) for _ in range(9)], 1000, 0.001, False),  # too few to say
        ([sure(c, c if i % 2 else 1 - c, 2) for i in range(20) for c in (0, 1)], 2, 0.5, True),  # a coin
    ],
)
def test_chance_is_what_a_network_that_does_not_look_would_find(
    template: Run, rows: Rows, num_classes: int, chance: float, near: bool
) -> None:
    found = agreement_of(run_of(template, num_classes), [rows])
    assert found is not None
    assert found.chance == pytest.approx(chance)
    assert found.is_near_chance == near


def test_of_sigmoids_the_rest_is_not_bounded_by_what_the_five_leave(template: Run) -> None:
    row = {"label": 9, "top_classes": [0, 1, 2, 3, 4], "top_scores": [0.9, 0.8, 0.7, 0.6, 0.5]}
    found = agreement_of(run_of(template, 10, "sigmoid"), [[row]])
    assert found is not None
    assert found.suspects["margin"].to_pylist() == pytest.approx([0.4])


def test_of_several_labels_any_is_right_and_the_best_is_doubted(template: Run) -> None:
    rows = [
        {"label": None, "labels": [1, 3], "top_classes": [3, 0, 2], "top_scores": [0.5, 0.3, 0.2]},
        {"label": None, "labels": [0, 2], "top_classes": [3, 2, 0], "top_scores": [0.5, 0.3, 0.1]},
        {"label": None, "labels": [1, 4], "top_classes": [3, 2, 0], "top_scores": [0.7, 0.2, 0.05]},
        {"label": 2, "labels": None, "top_classes": [2, 3, 0], "top_scores": [0.5, 0.3, 0.2]},
        {"label": 0, "labels": None, "top_classes": [2, 3, 0], "top_scores": [0.5, 0.3, 0.1]},
        {"label": None, "labels": None, "top_classes": [2, 3, 0], "top_scores": [0.5, 0.3, 0.2]},
        {"label": None, "labels": [1], "status": "empty", "top_classes": [], "top_scores": []},
    ]
    plain = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    images = images_of(plain).append_column(LABELS, pa.array([row["labels"] for row in rows], LABELS.type))
    run, total = run_of(template, 6), AgreementSum(run_of(template, 6))
    total.add(judge(images, run, "here"))
    found = total.total()
    assert found is not None
    assert (found.labelled, found.judged, found.top1, found.top5) == (6, 5, 2, 4)
    columns = ("row", "label", "label_score", "predicted")
    suspects = [tuple(row[name] for name in columns) for row in found.suspects.to_pylist()]
    assert suspects == [(2, 1, None, 3), (4, 0, pytest.approx(0.1), 2), (1, 2, pytest.approx(0.3), 3)]
    assert found.suspects["margin"].to_pylist() == pytest.approx([0.65, 0.4, 0.2])


def test_two_classes_of_one_name_are_told_apart(template: Run) -> None:
    run = replace(template, class_names=("maillot", "tench", "maillot"))
    found = agreement_of(run, [[sure(0, 2, 3)] * 3])
    assert found is not None
    assert [(pair.label, pair.predicted) for pair in found.pairs] == [("maillot (0)", "maillot (2)")]
    assert found.suspects["label_name"][0].as_py() == "maillot"


def test_without_labels_there_is_nothing(template: Run) -> None:
    rows = [{**row, "label": None} for row in bare(drawn(20, 4))]
    assert agreement_of(run_of(template, 4), [rows, []]) is None


@pytest.mark.parametrize(
    "row",
    [
        {"label": 4, "top_classes": [0, 1], "top_scores": [0.5, 0.1]},
        {"label": -1, "top_classes": [0, 1], "top_scores": [0.5, 0.1]},
        {"label": 1, "top_classes": [0, 4], "top_scores": [0.5, 0.1]},
        {"label": 1, "top_classes": [0, 1], "top_scores": [0.5]},
        {"label": 1, "top_classes": [0], "top_scores": [0.5]},
    ],
)
def test_a_table_that_no_run_writes_is_refused(template: Run, row: dict[str, Any]) -> None:
    rows = [{"label": 1, "top_classes": [0, 1], "top_scores": [0.5, 0.1]}, row]
    with pytest.raises(StorageError, match="here has labels or classes that the run has not"):
        judge(images_of(rows), run_of(template, 4), "here")


def test_pairs_beyond_a_bound_are_forgotten_where_they_say_least(
    template: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 20)
    noise = bare(drawn(400, 30, seed=1))
    shards = [[*noise[first : first + 40], *[sure(2, 5, 30)] * 6] for first in range(0, 400, 40)]
    found = agreement_of(run_of(template, 30), shards)
    assert found is not None
    assert (found.pairs[0].label, found.pairs[0].predicted) == ("class 2", "class 5")
    assert found.pairs[0].images >= 60
