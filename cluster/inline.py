"""Run shards in this process, without Ray: one replica."""

import os
from collections.abc import Generator, Iterable

import torch

from cam_ops.settings import ModelConfig
from cluster.request import Device
from cluster.resources import Replicas, replica_share
from cluster.rows import ShardReport
from cluster.rundir import RunDir
from cluster.worker import CamWorker


class InlineExecutor:
    """This process as the only replica."""

    def __init__(self) -> None:
        self.num_gpus = min(1, torch.cuda.device_count())
        self.num_cpus = 1

    def run(
        self,
        run_dir: RunDir,
        model: ModelConfig,
        fingerprint: str,
        device: Device,
        replicas: Replicas,
        shards: Iterable[int],
        timeout_s: float | None,
    ) -> Generator[ShardReport, None, None]:
        """Yield one report per shard, in order. Nobody would end a shard that takes longer than `timeout_s`."""
        assert replicas.number == 1
        share = replica_share(device, 1, len(os.sched_getaffinity(0)), self.num_gpus)
        worker = CamWorker(run_dir, model, fingerprint, share.threads)
        for number, shard in enumerate(shards):
            yield worker.run_shard(shard, number, 0)

    def close(self) -> None:
        """Nothing to end."""
