"""Do the shards of a run that are not committed, and add up: the same for a new run and for one that was cut off."""

import errno
import os
import shlex
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from cam_ops.errors import RefusedError, StorageError
from cluster.executors.progress import Progress
from cluster.executors.work import Executor, Replicas, Work
from cluster.process.console import is_or_are, say
from cluster.process.failpoints import reach
from cluster.runs.agreement import suspects_file
from cluster.runs.census import Census, summary_of, take_census
from cluster.runs.differences import refuse_another
from cluster.runs.directory import RunDir
from cluster.runs.limits import limit_lines
from cluster.runs.log import RunLog, start_of
from cluster.runs.names import SUMMARY, SUSPECTS, TABLES, WRITTEN, shard_name
from cluster.runs.plan import check_plan, plan_digest
from cluster.runs.record import Run, again, existing_run, publish_run
from cluster.runs.watching import others_at_work
from cluster.storage.objects import is_store


def refuse_strangers(run_dir: RunDir) -> None:
    """Raise RefusedError where a folder without run.json holds shards."""
    if any(run_dir.shards(table) for table in TABLES):
        raise RefusedError(
            f"{run_dir.root} holds shards but no run.json that says what they are; use --overwrite to replace them, "
            "or another --out"
        )


def refuse_unwritable(run_dir: RunDir) -> None:
    """Raise StorageError where a run directory of this machine cannot be made, or not be written to."""
    run_dir.refuse_links(*WRITTEN)
    if is_store(run_dir.root):
        return
    place = Path(run_dir.root)
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise StorageError(f"cannot write {run_dir.root}: {place} is no folder; check --out")
    if not os.access(place, os.W_OK | os.X_OK):
        reason = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise StorageError(f"cannot write in {place}: {os.strerror(reason)}; check --out and its permissions")


def pending_shards(run_dir: RunDir, run: Run) -> list[int]:
    """Return the shards that are not committed, in order."""
    return sorted(set(range(run.plan.num_shards)) - run_dir.shards("images"))


def is_committed(run_dir: RunDir, shard: int) -> bool:
    """Say whether a shard's images file is there."""
    return run_dir.exists(shard_name("images", shard))


def refuse_incomplete(run_dir: RunDir, run: Run) -> None:
    """Raise StorageError unless every shard of the run is committed and the plan is its own."""
    if missing := len(pending_shards(run_dir, run)):
        raise StorageError(
            f"{missing} of {run.plan.num_shards} shards of {run_dir.root} {is_or_are(missing)} not committed; run "
            f"{again(run_dir, run)} to complete it, then this one"
        )
    check_plan(run_dir, run.plan)


def begin(run_dir: RunDir, run: Run, write_plan: Callable[[], object]) -> Run:
    """Publish run.json, the plan being in place: from here on the run exists.

    Returns `run`, or one with the same request that another driver has begun in the meantime; raises RefusedError if
    that one's request is another. `write_plan` puts the plan in place once more.
    """
    reach("plan")
    if not publish_run(run_dir, run):
        others = existing_run(run_dir)
        refuse_another(run_dir, others, run.request, run.maps_from)
        return others
    reach("run")
    if plan_digest(run_dir, run.plan) != run.plan.digest:  # one that lost the race for run.json wrote over ours
        write_plan()
    return run


def _say_others(run_dir: RunDir) -> None:
    """Say which other drivers seem to be at work on the run: allowed, but both do the same shards."""
    with suppress(StorageError):  # logs are for people
        for other, age_s in others_at_work(run_dir):
            say(
                f"warning: another {other.command}, process {other.process} on {other.host}, seems to be at "
                f"work on {run_dir.root}: its log was written {age_s:.0f} s ago and has no end. Both do the same "
                "shards, so one is paid for nothing: end one of them, unless the other was killed"
            )


def run_missing(
    run_dir: RunDir,
    run: Run,
    work: Work,
    executor: Executor,
    replicas: Replicas,
    timeout_s: float | None,
    command_line: tuple[str, ...] | None = None,
) -> None:
    """Run every shard that is not committed, and keep a log of it; `timeout_s` is how long a replica may take for one.

    `command_line` is what was typed, for the log.
    """
    run_dir.refuse_links(*WRITTEN)
    run_dir.sweep_scratch()
    pending = pending_shards(run_dir, run)
    num_images, num_shards = run.plan.num_images, run.plan.num_shards
    if len(pending) < num_shards:
        say(f"resuming {run_dir.root}: {num_shards - len(pending)} of {num_shards} shards committed")
    if pending:
        _say_others(run_dir)
    progress = Progress(
        num_images=num_images,
        num_shards=num_shards,
        done_images=num_images - sum(map(run.plan.size_of, pending)),
        done_shards=num_shards - len(pending),
    )
    start = start_of(
        run,
        command_line,
        images_pending=num_images - progress.done_images,
        shards_pending=len(pending),
        replicas=replicas.number,
        executor=executor.name,
    )
    with (
        RunLog(run_dir, start) as log,
        closing(
            executor.run(work, replicas, pending, partial(is_committed, run_dir), timeout_s, log.tell, progress.look)
        ) as reports,
    ):
        for report in reports:
            progress.add(report)
            log.add(report)
            reach(f"report-{report.shard}")
    reduced = run.request.preprocessing.decode == "reduced"
    for line in limit_lines(progress.stage_seconds, progress.replica_seconds, run.request.device, reduced=reduced):
        say(line)


def say_complete(run_dir: RunDir, run: Run, *, repaired: bool) -> None:
    """Say that there is nothing to do, and what a command that finds all shards committed has not looked at."""
    looked = "damaged ones would have been done again" if repaired else "their files were not read through: "
    proof = "" if repaired else f"`python -m jobs verify {shlex.quote(run_dir.root)}` proves them, --repair mends them"
    say(f"all {run.plan.num_shards} shards are committed; {looked}{proof}")


def finish(run_dir: RunDir, run: Run) -> Census:
    """Write suspects.parquet, if there are labels, and summary.json, unless they are there; return what they say."""
    check_plan(run_dir, run.plan)
    census = take_census(run_dir, run, list(range(run.plan.num_shards)))
    reach("totals")
    contents = {SUMMARY: summary_of(run.request.fingerprint(), census.totals)}
    if census.agreement:
        contents = {SUSPECTS: suspects_file(run, census.agreement), **contents}
    for name, content in contents.items():
        if run_dir.read(name) != content:
            run_dir.publish(name, content)
    return census
