"""`rebox`: a new run from another one's maps, with its own boxes and images tables.

Its request is the one that `label` would have been given with these box settings, so that its files are the same, byte
for byte. `maps_from` in its run.json says where the maps are. The maps are only read.
"""

from contextlib import closing
from dataclasses import replace
from functools import partial

from cam_ops.errors import UsageError
from cluster.executors.choose import choose_replicas, no_gpus, open_executor
from cluster.executors.work import Work
from cluster.process.console import say
from cluster.rebox.config import ReboxConfig
from cluster.runs.calibration import calibrated
from cluster.runs.census import Census
from cluster.runs.differences import refuse_another
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.plan import copy_plan
from cluster.runs.record import MapsFrom, Run, clear_run, config_document, existing_run, maps_of, read_run, run_bytes
from cluster.runs.resume import (
    begin,
    finish,
    pending_shards,
    refuse_incomplete,
    refuse_strangers,
    refuse_unwritable,
    run_missing,
    say_complete,
)
from cluster.runs.verify import repair
from cluster.storage.objects import real


def rebox(config: ReboxConfig, command_line: tuple[str, ...] | None = None) -> Census:
    """Do what is missing of the run in `config.out`, beginning it if it is new; return what it comes to.

    `command_line` is what was typed, without secrets, for run.json and the log.
    """
    run_dir, named_dir = open_run_dir(config.out, config.options), open_run_dir(config.run, config.options)
    source_dir, source = maps_of(named_dir, existing_run(named_dir))
    if real(run_dir.root) in (real(named_dir.root), real(source_dir.root)):
        raise UsageError(f"--out {run_dir.root} is the run whose maps are taken; give another --out")
    asked = replace(_asked(config, source_dir, source), command_line=command_line)
    run_bytes(asked)  # refused here, or never
    run = None if config.overwrite else read_run(run_dir)
    if run:
        refuse_another(run_dir, run, asked.request, asked.maps_from)
        if config.repair:
            repair(run_dir, run)
        if not pending_shards(run_dir, run):
            say_complete(run_dir, run, repaired=config.repair)
            return finish(run_dir, run)
    else:
        if not config.overwrite:
            refuse_strangers(run_dir)
        refuse_unwritable(run_dir)
        refuse_incomplete(source_dir, source)
    with closing(open_executor(config.executor, config.ray_address, no_gpus)) as executor:
        replicas = choose_replicas(config.replicas, "cpu", executor)
        if run is None:
            if config.overwrite:  # not before: what cannot be done costs no earlier run
                clear_run(run_dir)
            run = _begin(run_dir, source_dir, asked)
        run_missing(run_dir, run, _work(run_dir, run), executor, replicas, config.shard_timeout, command_line)
    return finish(run_dir, run)


def _asked(config: ReboxConfig, source_dir: RunDir, source: Run) -> Run:
    before = source.request
    if config.calibration is not None:
        request = calibrated(before, config.calibration)
    elif config.has_own_boxes:
        request = replace(before, maps=config.maps(before.maps), boxes=config.boxes(before.boxes), calibration=None)
    else:
        request = before
    return replace(
        source,
        request=request,
        config=config_document(config),
        maps_from=MapsFrom(root=source_dir.root, fingerprint=before.fingerprint()),
    )


def _begin(run_dir: RunDir, source_dir: RunDir, asked: Run) -> Run:
    """Begin the run with a copy of the plan."""
    put_plan = partial(copy_plan, source_dir, run_dir, asked.plan)
    put_plan()
    run = begin(run_dir, asked, put_plan)
    if run is asked:
        say(f"boxes from the maps of {source_dir.root}: {run.plan.num_images} images in {run.plan.num_shards} shards")
    return run


def _work(run_dir: RunDir, run: Run) -> Work:
    return Work(
        device="cpu",
        factory="cluster.rebox.replica:ReboxReplica",
        arguments=(run_dir, run.request.fingerprint()),
    )
