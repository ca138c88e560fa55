"""`status`: progress of a run from its files alone, once or again and again."""

import shutil
import sys
import textwrap
import time
from dataclasses import dataclass, field

import tyro.conf

from cam_ops.errors import StorageError, UsageError
from cam_ops.foreign import visible
from cluster.label.quarantine import held_in
from cluster.process.console import beneath, is_screen
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.names import SUSPECTS
from cluster.runs.watching import State, Watch
from cluster.storage.options import parse_options
from jobs.command import Outcome, outcome_of, print_document, print_lines
from jobs.flags import parse
from jobs.standing import damage_text, document_of, lines_of, short_line, status_of

DAY_S = 86400.0
INDENT = 8 * " "  # of what goes on in a next line
ANEW = "\033[H\033[J"  # of a terminal: from its upper left corner on, nothing beneath


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusConfig:
    """Say how far a run is, from its files alone, without Ray."""

    out: tyro.conf.Positional[str]
    """Run directory."""
    follow: bool = False
    """Look again and again, until the run is whole: on a terminal all of it is redrawn, elsewhere a line a time."""
    every: float = 10.0
    """Seconds between two looks of --follow."""
    json: bool = False
    """Print one JSON document to stdout, with --follow one a line; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""


def run(arguments: list[str]) -> Outcome:
    """Print how far the run is; `incomplete` until every shard is committed; exit code 5 if one is damaged."""
    config = parse(StatusConfig, arguments, "status")
    if not 0 < config.every <= DAY_S:
        raise UsageError(f"--every expects seconds above 0 and at most {DAY_S:.0f}, got {config.every}")
    run_dir = open_run_dir(config.out, parse_options(config.storage_options))
    watch = Watch(run_dir)
    state = watch.look()
    while config.follow and not state.is_whole:
        _show(config, run_dir, state)
        time.sleep(config.every)
        state = watch.look()
    if config.follow and is_screen(sys.stdout):
        print(ANEW, end="", file=beneath(sys.stdout))
    held = held_in(run_dir)
    if not config.json:
        suspects_in = config.out if run_dir.exists(SUSPECTS) else None
        print_lines(lines_of(state, held, config.out, suspects_in))
    return outcome_of(
        state.census.totals,
        config.out,
        status=StorageError.status if state.damaged else status_of(state),
        exit_code=StorageError.exit_code if state.damaged else 0,
        error=damage_text(state, config.out) if state.damaged else None,
        document=document_of(state, held, config.out),
    )


def _show(config: StatusConfig, run_dir: RunDir, state: State) -> None:
    """Show how far the run is on the way."""
    if config.json:
        print_document(document_of(state, held_in(run_dir), config.out))
    elif is_screen(sys.stdout):
        columns, rows = shutil.get_terminal_size()
        lines = [short_line(state), *lines_of(state, held_in(run_dir), config.out, None)]
        wrapped = [part for line in lines for part in textwrap.wrap(visible(line), columns, subsequent_indent=INDENT)]
        print(ANEW, end="", file=beneath(sys.stdout))
        print_lines(wrapped[: rows - 1])
    else:
        print_lines([short_line(state)])
