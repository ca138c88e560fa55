"""`verify`: prove a run whole."""

from dataclasses import dataclass, field

import tyro.conf

from cluster.runs.directory import open_run_dir
from cluster.runs.verify import verify
from cluster.storage.options import parse_options
from jobs.command import Outcome, outcome_of
from jobs.flags import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig:
    """Prove a run whole: every planned image exactly once, files readable, boxes inside their image."""

    out: tyro.conf.Positional[str]
    """Run directory."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""


def run(arguments: list[str]) -> Outcome:
    """Check every file; exit code 3 with one line per problem if the run is not whole."""
    config = parse(VerifyConfig, arguments, "verify")
    verdict = verify(open_run_dir(config.out, parse_options(config.storage_options)))
    for problem in verdict.problems:
        print(f"not whole: {problem}")
    if verdict.cure:
        print(verdict.cure)
    totals = verdict.totals
    if not verdict.problems:
        print(f"{config.out} is whole: {totals.images} images exactly once, {totals.maps} maps, {totals.boxes} boxes")
    return outcome_of(
        totals,
        config.out,
        status="not_whole" if verdict.problems else "done",
        exit_code=3 if verdict.problems else 0,
        error=f"{verdict.problems[0]}; {verdict.cure}" if verdict.problems else None,
    )
