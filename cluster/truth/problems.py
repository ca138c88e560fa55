"""What is wrong with a truth: counted, with a few examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cam_ops.arrays import Bools
from cluster.process.console import shortened

NUM_EXAMPLES = 3
SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """How often something is wrong, and up to three examples."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problems:
    """Problems by name, added up; one that never was is not there."""

    found: dict[str, Problem] = field(default_factory=dict)

    def add(self, more: Mapping[str, Problem]) -> None:
        """Add what was found elsewhere, later."""
        for name, problem in more.items():
            before = self.found.get(name, Problem(count=0, examples=()))
            if problem.count:
                examples = (before.examples + problem.examples)[:NUM_EXAMPLES]
                self.found[name] = Problem(count=before.count + problem.count, examples=examples)

    def note(self, name: str, is_wrong_N: Bools, describe: Callable[[int], str]) -> None:
        """Add the places where `is_wrong_N` holds, the first of them described."""
        places = np.flatnonzero(is_wrong_N)
        examples = tuple(shown_example(describe(int(place))) for place in places[:NUM_EXAMPLES])
        self.add({name: Problem(count=len(places), examples=examples)})


def shown_example(text: str) -> str:
    """Return a text of a truth as it stands in a report."""
    return shortened(text, SHOWN_CHARACTERS)
