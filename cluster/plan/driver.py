"""Settle what `label` would, look through its pictures, have a replica label a few of them, and foretell."""

import time
from contextlib import closing
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import pyarrow as pa

from cam_ops.errors import RefusedError
from cluster.executors.choose import choose_device, choose_replicas, open_executor
from cluster.executors.events import Event
from cluster.executors.inline import InlineExecutor
from cluster.executors.work import Executor, Replicas, ShardReport, Work, replica_share
from cluster.label.config import LabelConfig
from cluster.label.driver import num_gpus, refuse_to_begin, refuse_to_resume
from cluster.label.preparing import Preparing
from cluster.label.settled import Survey
from cluster.plan.config import PlanConfig
from cluster.plan.document import Document, Resume, document_of, done_document
from cluster.plan.estimate import Pending, ends_of, forecast, pending_of, speed_of, table_bytes
from cluster.plan.findings import Aside, Findings, Group
from cluster.process.apart import Apart
from cluster.process.console import say
from cluster.process.memory import peak_mib
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.names import RUN
from cluster.runs.plan import auto_shard_size, read_shard
from cluster.runs.record import Run, read_run
from cluster.runs.resume import pending_shards
from cluster.sources.inventory import take_inventory

NUM_HEADERS = 256
LEAST_GROUPS = 4


def plan(config: PlanConfig) -> Document:
    """Return what `label` would do and what that would take. Writes nothing to --out.

    Raises what `label` would raise before its first shard, but for RefusedError, which the document tells of.
    """
    start_s = time.monotonic()
    label = replace(config.label, images=config.label.addresses)
    resume = _look_at_out(label, open_run_dir(label.out, label.options))
    if resume.is_done:
        return done_document(resume)
    preparing = None if resume.run else Preparing(label, apart=True)
    try:
        executor = open_executor(label.executor, label.ray_address, num_gpus)
        try:
            asked = _Asked(config=config, label=label, resume=resume, executor=executor)
            found = _find(asked, preparing, start_s)
        finally:
            close_s = time.monotonic()
            executor.close()
            close_s = time.monotonic() - close_s
    finally:
        if preparing:
            preparing.close()
    return _foretold(asked, found, close_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What was asked for, and where it is to be done."""

    config: PlanConfig
    label: LabelConfig
    resume: Resume
    executor: Executor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What was found by looking and trying."""

    survey: Survey
    replicas: int
    findings: Findings
    driver_s: float  # before a replica was asked for


def _look_at_out(label: LabelConfig, run_dir: RunDir) -> Resume:
    """Say what --out holds, and what `label` would make of it."""
    if label.overwrite:
        refuse_to_begin(label, run_dir)
        holds = "a run" if run_dir.exists(RUN) else "no run"
        return Resume(holds=holds, num_removed=len(run_dir.shards("images")))
    run = read_run(run_dir)
    try:
        if run:
            refuse_to_resume(label, run_dir, run)
            return Resume(holds="this run", run=run, pending=tuple(pending_shards(run_dir, run)))
        refuse_to_begin(label, run_dir)
    except RefusedError as error:
        return Resume(holds="another run" if run else "shards of no run", refusal=str(error))
    return Resume(holds="no run")


def _find(asked: _Asked, preparing: Preparing | None, start_s: float) -> _Found:
    label, run, executor = asked.label, asked.resume.run, asked.executor
    device = choose_device(label.device, run.request.device if run else None, executor)
    replicas = choose_replicas(label.replicas, device, executor)
    num_rows = asked.config.pilot + NUM_HEADERS
    if preparing:
        preparing.settle(replicas.number, device)
        survey = preparing.survey(num_rows, LEAST_GROUPS + 1)
        preparing.close()
    else:
        assert run
        num_rows += (LEAST_GROUPS + 1) * run.request.batch_size
        survey = _survey_again(open_run_dir(label.out, label.options), run, asked.resume.pending, num_rows)
    driver_s = time.monotonic() - start_s
    most = max([replicas.number, *asked.config.for_replicas]) if device == "cpu" else 1
    crowd = 1 if isinstance(executor, InlineExecutor) else most
    run_work = _run_apart if isinstance(executor, InlineExecutor) else _run
    with TemporaryDirectory(prefix="camray-", ignore_cleanup_errors=True) as scratch:
        # on this machine it goes with the driver, as a replica that is interrupted cannot remove it
        work, num_groups = pilot_work(asked.config, survey, crowd, None if executor.can_grow else scratch)
        say(f"the pilot labels {num_groups} batches, and one before to warm up")
        findings = run_work(executor, work, num_groups, label.shard_timeout)
    return _Found(survey=survey, replicas=replicas.number, findings=findings, driver_s=driver_s)


def _survey_again(run_dir: RunDir, run: Run, pending: tuple[int, ...], num_rows: int) -> Survey:
    """Look through what is left of a run; the source is not listed again."""
    num_left = sum(map(run.plan.size_of, pending))
    batches = (batch for shard in pending for batch in read_shard(run_dir, shard).to_batches())
    return Survey(run=run, inventory=take_inventory(batches, num_left, num_rows), said=(), peak_mib=0.0)


def pilot_work(config: PlanConfig, survey: Survey, crowd: int, scratch: str | None) -> tuple[Work, int]:
    """Return the work of the pilot's replica, and the number of its groups; the last two are as of `open_pilot`."""
    sample, request = survey.inventory.sample, survey.run.request
    size = min(request.batch_size, len(sample))
    num_groups = min(max(-(-config.pilot // size), LEAST_GROUPS), len(sample) // size)
    timed, rest = sample.slice(0, num_groups * size), sample.slice(num_groups * size)
    warm_up = (rest if len(rest) >= size else sample).slice(0, size)
    others = rest.slice(size if len(rest) >= size else 0, NUM_HEADERS)
    model = replace(config.label.model, class_names=None)
    rows = pa.concat_tables([warm_up, timed])
    return Work(
        device=request.device,
        factory="cluster.plan.pilot:open_pilot",
        arguments=(survey.run, rows, others, size, model, config.label.options, crowd, scratch),
    ), num_groups


def _run(executor: Executor, work: Work, num_groups: int, timeout_s: float | None) -> Findings:
    """Run the pilot on a replica of the executor."""
    up_s: list[float] = []

    def listen(event: Event) -> None:
        if event.kind == "replica_up":
            seconds = event.fields["seconds"]
            assert isinstance(seconds, float)
            up_s.append(seconds)

    shards = range(num_groups + 2)
    with closing(executor.run(work, Replicas(1, True), shards, lambda shard: False, timeout_s, listen)) as reports:
        found = list(reports)
    return _findings(up_s[-1], found, num_groups)


def _run_apart(executor: Executor, work: Work, num_groups: int, timeout_s: float | None) -> Findings:
    """Run the pilot in a process of its own, so that its memory can be told."""
    num_threads = replica_share(work.device, 1, executor.num_cpus, executor.num_gpus).threads
    start_s = time.monotonic()
    with closing(Apart(work.factory, *work.arguments, num_threads)) as replica:
        replica.call("ready")
        up_s = time.monotonic() - start_s
        found = [replica.call("run_shard", shard, shard) for shard in range(num_groups + 2)]
    return _findings(up_s, found, num_groups)


def _findings(start_s: float, found: list[ShardReport], num_groups: int) -> Findings:
    by_shard = {report.shard: report.findings for report in found}
    groups: list[Group] = [by_shard[shard] for shard in range(1, num_groups + 1)]
    aside: Aside = by_shard[num_groups + 1]
    return Findings(start_s=start_s, groups=groups, aside=aside)


def _foretold(asked: _Asked, found: _Found, close_s: float) -> Document:
    survey, findings, label = found.survey, found.findings, asked.label
    request = survey.run.request
    device, batch_size = request.device, request.batch_size
    speed = speed_of(findings, device, batch_size)
    ends = ends_of(findings, found.driver_s, close_s)
    executor = asked.executor
    units = 1.0
    if device == "cuda":
        units = replica_share(device, found.replicas, executor.num_cpus, executor.num_gpus).gpus

    def left(replicas: int) -> Pending:
        """Return what is left to do if so many replicas are asked for, on which the size of shards may depend."""
        if asked.resume.run:
            return asked.resume.left()
        num_images = survey.inventory.num_images
        size = label.shard_size or auto_shard_size(num_images, replicas, batch_size)
        return pending_of(num_images, size)

    forecasts = [
        forecast(speed, ends, left(replicas), replicas, units, asked.config.price_per_hour)
        for replicas in dict.fromkeys((found.replicas, *asked.config.for_replicas))
    ]
    pending = left(found.replicas)
    return document_of(
        survey=survey,
        resume=asked.resume,
        findings=findings,
        speed=speed,
        ends=ends,
        pending=pending,
        written=table_bytes(findings.aside.parts, findings.aside.joined, pending),
        forecasts=forecasts,
        driver_mib=peak_mib() + survey.peak_mib,
        price=asked.config.price_per_hour,
    )
