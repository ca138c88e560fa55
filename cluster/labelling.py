"""The main job: plan once, run what is missing, add up.

`label` may be called again after any crash: what is committed stays, what is not is done.
"""

from contextlib import closing
from dataclasses import replace

from cluster.apart import Apart, Here
from cluster.label_config import LabelConfig
from cluster.labels import OWN
from cluster.request import Run, read_run
from cluster.resources import (
    Work,
    choose_device,
    choose_replicas,
    open_executor,
)
from cluster.resume import finish, pending_shards, refuse_strangers, run_missing
from cluster.rundir import RunDir, open_run_dir
from cluster.sources import source_address
from cluster.totals import Totals
from cluster.verify import repair


def label(config: LabelConfig) -> Totals:
    """Do what is missing of the run in `config.out`, planning it first if it is new; return its totals."""
    run_dir = open_run_dir(config.out, config.options)
    config = replace(config, images=source_address(config.images))
    run = None if config.overwrite else read_run(run_dir)
    if run and config.classes is None and config.label_source in OWN:
        config = replace(config, classes=run.request.classes)  # whether it has labels was settled with the plan
    if not run and not config.overwrite:
        refuse_strangers(run_dir)
    with closing(_prepare(config, run)) as preparation:
        if run and config.repair:
            preparation.call("refuse_another")
            repair(run_dir, run)
        if run and not pending_shards(run_dir, run):
            preparation.call("refuse_another")
            return finish(run_dir, run)
        with closing(open_executor(config.executor, config.ray_address)) as executor:
            if run:
                preparation.call("refuse_another")
            device = choose_device(config.device, run.request.device if run else None, executor)
            replicas = choose_replicas(config.replicas, device, executor)
            run = run or preparation.call("plan", replicas.number, device)
            assert run
            preparation.close()
            run_missing(run, _work(config, run_dir, run), executor, replicas, config.shard_timeout)
    return finish(run_dir, run)


def _prepare(config: LabelConfig, run: Run | None) -> Apart | Here:
    """Begin to look at the network, in a process of its own where actors will do the work."""
    return (Here if config.executor == "inline" else Apart)("cluster.preparation:Preparation", config, run)


def _work(config: LabelConfig, run_dir: RunDir, run: Run) -> Work:
    model = replace(config.model, class_names=None)  # the names stand in run.json
    return Work(
        run_dir=run_dir,
        device=run.request.device,
        factory="cluster.worker:CamWorker",
        arguments=(run_dir, model, run.request.fingerprint()),
    )
