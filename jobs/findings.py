"""What a run comes to, in lines and as JSON: totals, why images are bad, how far network and labels agree."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cluster.process.console import shortened, shown
from cluster.runs.agreement import Agreement
from cluster.runs.census import Census, Reason
from cluster.runs.names import SUSPECTS
from jobs.command import print_lines

NUM_REASONS, NUM_PAIRS, NUM_PICTURES = 5, 3, 3
LEAST_SHARE, LEAST_IMAGES, LEAST_MARGIN = 0.1, 2, 0.5  # of a pair of classes, of its images, of a picture
CAUSES = (
    "the usual causes: --mean and --std of another network; --class-names in another order than the network's outputs; "
    "folders or a label file that name other classes; a network that was trained on BGR"
)


def print_findings(out: str, census: Census) -> None:
    """Say what a run holds, and what to look at."""
    totals = census.totals
    counts = ", ".join(f"{count} {status}" for status, count in totals.statuses.items())
    print_lines([f"{out}: {counts}; {totals.maps} maps, {totals.boxes} boxes"])
    print_lines([*reason_lines(census.reasons), *agreement_lines(out, census)])


def findings_document(census: Census) -> dict[str, Any]:
    """Return what a run holds as `label`, `rebox`, `status` and `report` print it with --json."""
    agreement = census.agreement
    return {
        **asdict(census.totals),
        "images_with_label": agreement.labelled if agreement else 0,
        "images_with_map": census.mapped,
        "reasons": [asdict(reason) for reason in census.reasons],
        "agreement": agreement
        and {
            "judged": agreement.judged,
            "top1": agreement.top1,
            "top5": agreement.top5,
            "chance": agreement.chance,
            "is_near_chance": agreement.is_near_chance,
            "pairs": [asdict(pair) for pair in agreement.pairs],
            "suspects": len(agreement.suspects),
        },
    }


def reason_lines(reasons: tuple[Reason, ...]) -> Iterator[str]:
    """Yield a line for each of the commonest reasons why images are bad."""
    for reason in reasons[:NUM_REASONS]:
        yield f"bad: {reason_text(reason)}"
    if others := reasons[NUM_REASONS:]:
        yield f"bad: {sum(reason.images for reason in others)} for {len(others)} other reason(s), see images/"


def reason_text(reason: Reason) -> str:
    """Return a reason with its count and an example."""
    error = f" ({shortened(reason.error, 150)})" if reason.error else ""
    return f"{reason.images} {reason.status}, such as {shown(reason.example)}{error}"


def agreement_lines(out: str | None, census: Census) -> Iterator[str]:
    """Yield lines on how far network and labels agree, none where nothing has a label.

    `out` is the run directory where it has a suspects.parquet, None where it has none yet.
    """
    agreement = census.agreement
    if agreement is None:
        return
    some = "" if agreement.labelled == census.totals.images else f" of {census.totals.images}"
    if not agreement.judged:
        yield f"labels: {agreement.labelled}{some} images have one, none of which the network saw"
        return
    seen = f", the network saw {agreement.judged}" if agreement.judged < agreement.labelled else ""
    best = f"it is the network's best class in {_percent(agreement.top1, agreement)}"
    among = "" if agreement.top5 is None else f", among its five best in {_percent(agreement.top5, agreement)}"
    yield f"labels: {agreement.labelled}{some} images have one{seen}; {best}{among}"
    if agreement.is_near_chance:
        yield (
            f"warning: a network that does not look would find {agreement.chance:.1%} of them, so its classes or the "
            f"labels are not what they should be; {CAUSES}"
        )
    yield from _doubts(out, agreement)


def _percent(number: int, agreement: Agreement) -> str:
    return f"{number / agreement.judged:.1%}"


def _doubts(out: str | None, agreement: Agreement) -> Iterator[str]:
    """Yield the classes and pictures where network and labels disagree most surely."""
    for pair in agreement.pairs[:NUM_PAIRS]:
        if pair.images >= LEAST_IMAGES and pair.images >= LEAST_SHARE * pair.labelled:
            named = f"labelled {shown(pair.label)}"
            yield f"labels: {pair.images} of {pair.labelled} {named} are {shown(pair.predicted)} to the network"
    rows = agreement.suspects.slice(0, NUM_PICTURES).to_pylist()
    for row in (row for row in rows if row["margin"] >= LEAST_MARGIN):
        if row["label_name"] == row["predicted_name"]:  # of two classes
            row = {**row, **{f"{name}_name": f"{row[f'{name}_name']} ({row[name]})" for name in ("label", "predicted")}}
        yield (
            f"labels: {shown(row['image_id'])} is labelled {shown(row['label_name'])}; the network says "
            f"{shown(row['predicted_name'])}, {row['predicted_score']:.2f} to "
            f"{'less' if row['label_score'] is None else format(row['label_score'], '.2f')}"
        )
    if out and len(agreement.suspects):
        where = f"{out.rstrip('/')}/{SUSPECTS}"
        yield f"labels: the {len(agreement.suspects)} that the network contradicts most surely are in {where}"
