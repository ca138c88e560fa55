"""The main job: plan once, run what is missing, add up.

`label` may be called again after any crash: what is committed stays, what is not is done.
"""

import os
from contextlib import closing
from dataclasses import replace

from cam_ops.errors import OtherWeightsError, UsageError
from cluster.executors.choose import choose_device, choose_replicas, open_executor
from cluster.executors.work import Work
from cluster.label.config import LabelConfig
from cluster.label.early import check_early
from cluster.label.preparing import Preparing
from cluster.label.settled import explain_again, names_network_of, refine_again, request_of, settled_again
from cluster.process.apart import build
from cluster.process.console import say
from cluster.runs.census import Census
from cluster.runs.differences import refuse_another
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.record import Run, clear_run, read_run
from cluster.runs.resume import finish, pending_shards, refuse_strangers, run_missing, say_complete
from cluster.runs.verify import repair


def label(config: LabelConfig, command_line: tuple[str, ...] | None = None) -> Census:
    """Do what is missing of the run in `config.out`, planning it first if it is new; return what it comes to.

    `command_line` is what was typed, without secrets, for run.json and the log.
    """
    run_dir = open_run_dir(config.out, config.options)
    config = replace(config, images=config.addresses)
    run = None if config.overwrite else read_run(run_dir)
    if run:
        return _resume(config, run_dir, run, command_line)
    refuse_to_begin(config, run_dir)
    with (
        closing(Preparing(config)) as preparing,
        closing(open_executor(config.executor, config.ray_address, num_gpus)) as executor,
    ):
        device = choose_device(config.device, None, executor)
        replicas = choose_replicas(config.replicas, device, executor)
        preparing.settle(replicas.number, device)
        if config.overwrite:  # not before: what cannot be done costs no earlier run
            clear_run(run_dir)
        run = preparing.begin(command_line)
        preparing.close()
        work = _work(config, run_dir, run)
        run_missing(run_dir, run, work, executor, replicas, config.shard_timeout, command_line)
    return finish(run_dir, run)


def _resume(config: LabelConfig, run_dir: RunDir, run: Run, command_line: tuple[str, ...] | None) -> Census:
    """Do what is missing of the run in place, unless another one is asked for."""
    is_whole = not pending_shards(run_dir, run)
    refuse_to_resume(config, run_dir, run)
    if config.repair:
        repair(run_dir, run)
        is_whole = not pending_shards(run_dir, run)
    if is_whole:
        say_complete(run_dir, run, repaired=config.repair)
        return finish(run_dir, run)
    with closing(open_executor(config.executor, config.ray_address, num_gpus)) as executor:
        device = choose_device(config.device, run.request.device, executor)
        replicas = choose_replicas(config.replicas, device, executor)
        work = _work(config, run_dir, run)
        try:
            run_missing(run_dir, run, work, executor, replicas, config.shard_timeout, command_line)
        except OtherWeightsError:  # on one of the machines, or is it another request?
            _look_and_refuse(config, run)
            raise
    return finish(run_dir, run)


def refuse_to_resume(config: LabelConfig, run_dir: RunDir, run: Run) -> None:
    """Raise RefusedError unless the configuration asks for what the run in place was asked for."""
    if not pending_shards(run_dir, run) or config.repair or not names_network_of(config, run):
        _look_and_refuse(config, run)
    else:  # replicas will look at the weights
        refuse_another(run_dir, run, request_of(config, settled_again(config, run)))
    if config.refine.keep_cam and run.request.refinement is None:
        say("maps: those of the run are not refined; they are what --keep-cam would keep")


def refuse_to_begin(config: LabelConfig, run_dir: RunDir) -> None:
    """Raise UsageError where a run would begin in the folder of its pictures, among which its own would lie.

    Raises RefusedError where --out holds shards of no run, and what can be refused without torch.
    """
    root = os.path.realpath(run_dir.root)
    if any(os.path.realpath(address) == root for address in config.images):  # those on a store come out equal too
        raise UsageError(
            f"--out {run_dir.root} is the folder of --images; give a folder of its own, such as {run_dir.root}/run"
        )
    if not config.overwrite:
        refuse_strangers(run_dir)
    check_early(config, run_dir)


def num_gpus() -> int:
    """Ask torch, in this process: for an executor whose replica will load it here as well."""
    number: int = build("cluster.machine.gpu:num_gpus", ())
    return number


def _look_and_refuse(config: LabelConfig, run: Run) -> None:
    """Raise RefusedError unless the network, too, is that of the run in place."""
    as_then = replace(config, explain=explain_again(config, run), refine=refine_again(config, run))
    with closing(Preparing(as_then)) as preparing:
        preparing.refuse_another(run)


def _work(config: LabelConfig, run_dir: RunDir, run: Run) -> Work:
    model = replace(config.model, class_names=None)  # the names stand in run.json
    return Work(
        device=run.request.device,
        factory="cluster.label.replica:open_replica",
        arguments=(run_dir, model, run.request.fingerprint()),
    )
