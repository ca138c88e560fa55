"""What an interrupted `label` or `rebox` says: how much is committed."""

from dataclasses import replace

from cam_ops.errors import CamrayError
from cluster.process.interrupts import INTERRUPTED_CODE
from cluster.runs.census import take_census
from cluster.runs.directory import open_run_dir
from cluster.runs.record import read_run
from cluster.storage.options import StorageOptions
from jobs.command import INTERRUPTED, Outcome, outcome_of

MOST_READ = 500  # files of images; `ray job stop` kills after three seconds


def interrupted_run(out: str, options: StorageOptions) -> Outcome:
    """Return the outcome of a command on the run in `out` that was interrupted: what is committed.

    Of more files than can be read before a scheduler loses patience only images are counted, by the plan.
    """
    nothing = Outcome(status=INTERRUPTED, exit_code=INTERRUPTED_CODE, out=out)
    try:
        run_dir = open_run_dir(out, options)
        run = read_run(run_dir)
        if run is None:
            return nothing
        shards = sorted(shard for shard in run_dir.shards("images") if shard < run.plan.num_shards)
        if len(shards) > MOST_READ:
            missing = run.plan.num_shards * run.plan.shard_size - run.plan.num_images  # of the last
            images = len(shards) * run.plan.shard_size - (missing if shards[-1] == run.plan.num_shards - 1 else 0)
            return replace(nothing, images=images, ok=None, errors=None, boxes=None)
        totals = take_census(run_dir, run, shards).totals
    except CamrayError:  # it says nothing new of an interrupt
        return nothing
    return outcome_of(totals, out, status=INTERRUPTED, exit_code=INTERRUPTED_CODE)
