"""What a process is told once, before a network runs in it: all of it holds for the whole process."""

import warnings

import cv2
import torch

from cluster.machine.allocator import keep_freed_memory


def prepare_process() -> None:
    """Keep freed memory, leave threads to replicas, silence libraries on damaged pictures."""
    keep_freed_memory()
    cv2.setNumThreads(0)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong with a picture, its row says
    warnings.filterwarnings("ignore", module=r"PIL\.")
    torch.set_num_threads(1)  # on the CPU; before a GPU each thread that decodes would have a team of its own
