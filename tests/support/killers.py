"""Factories of networks that kill the actor they run in; anywhere else they behave."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import torch
from torch import nn

from tests.support.networks import TwoChannels


def in_ray_worker() -> bool:
    return "default_worker" in sys.argv[0]


class DiesOnWhite(TwoChannels):
    """Dies when it sees a picture that is white at its first pixel."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        if in_ray_worker() and bool((images_BCHW[:, :, 0, 0] == 1).all(1).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images_BCHW)


def dies_on_white() -> nn.Module:
    return DiesOnWhite()


def starts_once() -> nn.Module:
    """The first replica starts and dies on white; every later one dies while it loads."""
    if in_ray_worker():
        marker = Path(os.environ["CAMRAY_TEST_MARKER"])
        if marker.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        marker.touch()
    return DiesOnWhite()


class EatsMemory(TwoChannels):
    """Takes memory at the first white picture of all, until it is ended or little is left; others wait for that."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        if in_ray_worker():
            marker = Path(os.environ["CAMRAY_TEST_MARKER"])
            if bool((images_BCHW[:, :, 0, 0] == 1).all(1).any()) and not marker.exists():
                marker.write_text(str(os.getpid()))
                take_memory()
            while marker.exists() and marker.read_text() and psutil.pid_exists(int(marker.read_text())):
                time.sleep(0.02)
        return super().forward(images_BCHW)


def take_memory() -> None:
    taken = []
    while psutil.virtual_memory().available > 3 * 2**30:
        taken.append(torch.ones(2**26))  # 256 MiB
    time.sleep(60)  # it is ended in the meantime


def eats_memory() -> nn.Module:
    return EatsMemory()
