"""`verify`: prove a run whole."""

from dataclasses import asdict, dataclass, field

import tyro.conf

from cluster.runs.directory import open_run_dir
from cluster.runs.part import parse_shards
from cluster.runs.verify import verify
from cluster.storage.options import parse_options
from jobs.command import Outcome, outcome_of, print_lines
from jobs.flags import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig:
    """Prove a run whole: every planned image exactly once, files readable, boxes inside their image."""

    out: tyro.conf.Positional[str]
    """Run directory."""
    shards: str | None = None
    """FIRST-LAST,...: only these shards of the run, as in 0-9 or 0-9,20, and not what follows from all."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        parse_shards(self.shards)


def run(arguments: list[str]) -> Outcome:
    """Check every file; exit code 3 with one line per problem if the run is not whole."""
    config = parse(VerifyConfig, arguments, "verify")
    verdict = verify(open_run_dir(config.out, parse_options(config.storage_options)), config.shards)
    totals = verdict.totals
    if verdict.problems:
        print_lines([verdict.part] if verdict.part else [])
        print_lines(f"not whole: {problem}" for problem in verdict.problems)
        print_lines([verdict.cure] if verdict.cure else [])
    else:
        what = f"{config.out}, {verdict.part}, is" if verdict.part else f"{config.out} is"
        print_lines([f"{what} whole: {totals.images} images exactly once, {totals.maps} maps, {totals.boxes} boxes"])
    return outcome_of(
        totals,
        config.out,
        status="not_whole" if verdict.problems else "done",
        exit_code=3 if verdict.problems else 0,
        error=f"{verdict.problems[0]}; {verdict.cure}" if verdict.problems else None,
        document={"out": config.out, "is_whole": not verdict.problems, **asdict(verdict)},
        part=verdict.part,
    )
