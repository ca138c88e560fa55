"""How far network and labels agree, and which labels a person should look at first: suspects.parquet.

Judged are images that are ok and have a label. How surely the network contradicts a label is the *margin*: the best
class's score less the label's. The images table has the five best scores. A label that is not among them scores no
more than the fifth, and with softmax no more than the five leave over: the margin is then the least that it can be, so
that no picture is suspected more than the network says. Of several labels the one that scores best is meant.

Letters: I images, N that are judged, F their labels, M that are contradicted, T best classes, K classes, P pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.arrays import F32, F64, I64, Bools
from cam_ops.errors import StorageError
from cam_ops.tables import LABELS, SUSPECTS, with_metadata
from cluster.runs.record import Run
from cluster.storage.parquet import encode

LOOKED_AT = {"label", "labels", "top_classes", "top_scores"}
MAX_SUSPECTS = 1000
NUM_TOP = 5  # classes whose scores the images table has
MAX_NAMED = 10  # pairs
MAX_PAIRS = 2**18  # of a label and another class; beyond, those that say least are forgotten
DOUBTED = 10  # images that a class counts more than it has, so that one picture does not make it suspected
MIN_JUDGED = 10  # images; of fewer nothing is said about chance
NEAR_CHANCE = 0.1  # of the way from chance to always


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Images of one label that the network takes for another class."""

    label: str  # names
    predicted: str
    images: int
    labelled: int  # judged images of that label


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What is known of the images that have a label."""

    labelled: int
    judged: int
    top1: int  # the best class is the label
    top5: int | None  # the label is among the five best; None where there are no more classes
    chance: float  # share of top1 that a network which does not look would have
    pairs: tuple[Pair, ...]  # the most telling first
    suspects: pa.Table  # schema SUSPECTS, surest first

    @property
    def is_near_chance(self) -> bool:
        """Whether the network might as well not have looked."""
        found = self.top1 / max(1, self.judged)
        return self.judged >= MIN_JUDGED and found < self.chance + NEAR_CHANCE * (1 - self.chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judged images of some shards."""

    labelled: int
    top5: int
    label_N: I64
    predicted_N: I64
    margin_N: F64
    suspects: pa.Table  # schema SUSPECTS but for the names, as many as are kept of a run


def judge(images: pa.Table, run: Run, where: str) -> Judged:
    """Judge images, some columns of IMAGES; raises StorageError naming `where` where they are none of the run."""
    has_label_I = _has_label(images)
    image_N = np.flatnonzero(has_label_I & (pc.list_value_length(images["top_classes"]).to_numpy() > 0))
    judged = images.select([name for name in images.column_names if name in LOOKED_AT]).take(pa.array(image_N))
    label_F, place_F = _labels(judged)
    class_NT, score_NT = (_square(judged[name], where) for name in ("top_classes", "top_scores"))
    if class_NT.shape != score_NT.shape or not _are_classes(len(run.class_names), label_F, class_NT):
        raise _broken(where)
    is_label_NT = np.zeros(class_NT.shape, np.bool_)
    np.logical_or.at(is_label_NT, place_F, class_NT[place_F] == label_F[:, None])
    in_top_N = np.asarray(is_label_NT.any(axis=1))
    best_N = np.arange(len(image_N)), is_label_NT.argmax(1)
    label_N = np.zeros(len(image_N), np.int64)
    label_N[place_F[::-1]] = label_F[::-1]  # the first of several
    label_N = np.where(in_top_N, class_NT[best_N], label_N)
    label_score_N = np.where(in_top_N, score_NT[best_N], _most_of_others(score_NT, run))
    predicted_N, margin_N = class_NT[:, 0].astype(np.int64), score_NT[:, 0].astype(np.float64) - label_score_N
    other_M = np.flatnonzero(predicted_N != label_N)
    surest_M = other_M[_order(margin_N[other_M])]
    columns = {
        **{name: images[name].take(pa.array(image_N[surest_M])) for name in ("image_id", "shard", "row")},
        "label": label_N[surest_M].astype(np.int32),
        "label_score": pa.array(label_score_N[surest_M].astype(np.float32), mask=~in_top_N[surest_M]),
        "predicted": predicted_N[surest_M].astype(np.int32),
        "predicted_score": score_NT[surest_M, 0],
        "margin": margin_N[surest_M].astype(np.float32),
    }
    return Judged(
        labelled=int(has_label_I.sum()),
        top5=int(in_top_N.sum()),
        label_N=label_N,
        predicted_N=predicted_N,
        margin_N=margin_N,
        suspects=pa.table(columns),
    )


def _has_label(images: pa.Table) -> Bools:
    """Say which images have one, or several."""
    has_label_I: Bools = images["label"].is_valid().to_numpy()
    if LABELS.name in images.column_names:
        has_label_I = has_label_I | (pc.list_value_length(images[LABELS.name]).fill_null(0).to_numpy() > 0)
    return has_label_I


def _labels(judged: pa.Table) -> tuple[I64, I64]:
    """Return the labels of all images, and the place of the image that has it, each (F,)."""
    place_N = np.flatnonzero(judged["label"].is_valid().to_numpy())
    labels, places = [judged["label"].drop_null().to_numpy()], [place_N]
    if LABELS.name in judged.column_names:
        lists = judged[LABELS.name].combine_chunks()
        labels.append(lists.flatten().to_numpy(zero_copy_only=False))
        places.append(pc.list_parent_indices(lists).to_numpy())
    return np.concatenate(labels).astype(np.int64), np.concatenate(places).astype(np.int64)


def _order(margin_M: F64 | F32) -> I64:
    """Return the places of the largest margins, the first of equal ones first."""
    return np.argsort(-margin_M.astype(np.float32), kind="stable")[:MAX_SUSPECTS]


def _square(lists: pa.ChunkedArray, where: str) -> F32:
    """Return a column of lists of one length as an array, (N, T)."""
    lengths = pc.unique(pc.list_value_length(lists))
    if len(lengths) > 1:
        raise _broken(where)
    values: F32 = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(lists), -1) if len(lists) else values.reshape(0, 1)


def _are_classes(num_classes: int, *numbers: I64 | F32) -> bool:
    return all(not each.size or (each.min() >= 0 and each.max() < num_classes) for each in numbers)


def _most_of_others(score_NT: F32, run: Run) -> F64:
    """Return the highest score that a class which is not among the best can have, (N,)."""
    least_N: F64 = score_NT[:, -1].astype(np.float64)
    if run.request.scores == "softmax":
        least_N = np.minimum(least_N, np.maximum(0, 1 - score_NT.astype(np.float64).sum(1)))
    return least_N


def _broken(where: str) -> StorageError:
    return StorageError(f"{where} has labels or classes that the run has not; run `verify` on the run directory")


class AgreementSum:
    """Adds up the shards of a run, one after the other; memory does not grow with their number."""

    def __init__(self, run: Run) -> None:
        self.run = run
        num_classes = len(run.class_names)
        self.labelled = self.judged = self.top1 = self.top5 = 0
        self.of_label_K, self.of_best_K = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
        self.code_P, self.images_P = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.margin_P: F64 = np.zeros(0)
        self.suspects: pa.Table | None = None

    def add(self, judged: Judged) -> None:
        """Add some shards. Of pictures that are equally suspected those of earlier calls come first."""
        num_classes = len(self.of_label_K)
        label_N, best_N = judged.label_N, judged.predicted_N
        other_N = label_N != best_N
        self.labelled += judged.labelled
        self.judged += len(label_N)
        self.top1 += len(label_N) - int(other_N.sum())
        self.top5 += judged.top5
        self.of_label_K += np.bincount(label_N, minlength=num_classes)
        self.of_best_K += np.bincount(best_N, minlength=num_classes)
        self._add_pairs((label_N * num_classes + best_N)[other_N], judged.margin_N[other_N])
        found = pa.concat_tables([*([self.suspects] if self.suspects is not None else []), judged.suspects])
        self.suspects = found.take(pa.array(_order(found["margin"].to_numpy()))).combine_chunks()

    def _add_pairs(self, code_M: I64, margin_M: F64) -> None:
        """Add the pairs of contradicted images, each as one number."""
        self.code_P, place_N = np.unique(np.concatenate([self.code_P, code_M]), return_inverse=True)
        images_N = np.concatenate([self.images_P, np.ones(len(code_M), np.int64)])
        margin_N = np.concatenate([self.margin_P, margin_M])
        self.images_P = np.bincount(place_N, images_N, len(self.code_P)).astype(np.int64)
        self.margin_P = np.bincount(place_N, margin_N, len(self.code_P)).astype(np.float64)
        if len(self.code_P) > MAX_PAIRS:
            kept_P = np.sort(np.argsort(-self.margin_P, kind="stable")[: MAX_PAIRS // 2])
            self.code_P, self.images_P, self.margin_P = (
                self.code_P[kept_P],
                self.images_P[kept_P],
                self.margin_P[kept_P],
            )

    def total(self) -> Agreement | None:
        """Return the sum of what was added, None where nothing has a label."""
        if not self.labelled:
            return None
        assert self.suspects is not None
        return Agreement(
            labelled=self.labelled,
            judged=self.judged,
            top1=self.top1,
            top5=self.top5 if len(self.of_label_K) > NUM_TOP else None,
            chance=self._chance(),
            pairs=tuple(self._pairs()),
            suspects=self._named(self.suspects),
        )

    def _chance(self) -> float:
        """Return the share of images that would have their label as best class if the two were independent.

        Where all have one label that is the share itself, and says nothing: then, and at least, one in all classes.
        """
        least = 1 / max(1, len(self.of_label_K))
        if not self.judged or np.count_nonzero(self.of_label_K) < 2:
            return least
        shares_K = self.of_label_K / self.judged * (self.of_best_K / self.judged)
        return max(least, float(shares_K.sum()))

    def _pairs(self) -> Iterator[Pair]:
        """Yield pairs by the share of the label's images that they are, each counted by its margin."""
        num_classes = len(self.of_label_K)
        labelled_P = self.of_label_K[self.code_P // num_classes]
        for p in np.argsort(-self.margin_P / (labelled_P + DOUBTED), kind="stable")[:MAX_NAMED].tolist():
            label, predicted = self._shown(*divmod(int(self.code_P[p]), num_classes))
            yield Pair(label=label, predicted=predicted, images=int(self.images_P[p]), labelled=int(labelled_P[p]))

    def _shown(self, label: int, predicted: int) -> tuple[str, str]:
        """Return the names of two classes, with their numbers where the names are one."""
        names = self.run.class_names[label], self.run.class_names[predicted]
        if names[0] != names[1]:
            return names
        return f"{names[0]} ({label})", f"{names[1]} ({predicted})"

    def _named(self, suspects: pa.Table) -> pa.Table:
        names = pa.array(self.run.class_names)
        named = {f"{name}_name": names.take(suspects[name]) for name in ("label", "predicted")}
        columns = {name: named[name] if name in named else suspects[name] for name in SUSPECTS.names}
        return pa.table(columns, schema=SUSPECTS)


def suspects_file(run: Run, agreement: Agreement) -> bytes:
    """Return the content of suspects.parquet."""
    counts = {name: getattr(agreement, name) for name in ("labelled", "judged", "top1", "top5")}
    document = {**run.request.document("suspects"), "agreement": counts}
    return encode(agreement.suspects.cast(with_metadata(SUSPECTS, document)))
