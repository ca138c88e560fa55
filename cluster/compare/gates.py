"""`--fail-if "METRIC OP NUMBER"`: conditions on the difference of two audits' metrics that fail a comparison."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from cam_ops.errors import UsageError
from cluster.compare.metrics import Difference
from cluster.process.console import shortened

CONDITION = re.compile(r"\s*(\w+?)(?:\.(low|high))?\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d\d?)?)\s*")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition; `part` is low or high for an end of the interval, else the difference itself is meant."""

    text: str
    metric: str
    part: str
    sign: str
    number: float


def parse_gate(text: str) -> Gate:
    """Parse a condition; raises UsageError where it is none."""
    match = CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(
            "--fail-if expects METRIC OP NUMBER on the difference B - A or an end of its interval, METRIC.low and "
            f'METRIC.high, OP one of < <= > >=, as "max_box_acc_v2 < -1.0"; got {shortened(repr(text), 100)}'
        )
    metric, part, sign, number = match.groups()
    return Gate(text=" ".join(text.split()), metric=metric, part=part or "difference", sign=sign, number=float(number))


def broken_gates(gates: list[Gate], differences: list[Difference]) -> list[str]:
    """Return a sentence for each condition that holds.

    Raises UsageError for a metric that the audits do not have, and for a difference that cannot be known: such a
    condition must not pass.
    """
    by_name = {difference.metric: difference for difference in differences}
    broken = []
    for gate in gates:
        found = by_name.get(gate.metric)
        if found is None:
            known = ", ".join(by_name) or "none, as not both runs are audited"
            raise UsageError(f"--fail-if {gate.text!r} names no metric of these audits; they have {known}")
        value = {"difference": found.difference, "low": found.low, "high": found.high}[gate.part]
        if value is None:
            raise UsageError(f"--fail-if {gate.text!r} cannot be judged: {found.reason}")
        if OPERATORS[gate.sign](value, gate.number):
            broken.append(f"--fail-if {gate.text!r} holds: it is {value:+.4g}")
    return broken
