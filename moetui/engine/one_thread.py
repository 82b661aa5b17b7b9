"""Keeps what is asked of torch to the thread that asks."""

from __future__ import annotations

import contextlib
import os

import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from torch import nn

_SMALL = 10_000_000  # parameters


def work_alone() -> None:
    """From now on torch's operations that this thread calls start no others, whatever they are asked to work on.

    Each thread that calls one of some size gets OpenMP threads of its own, which stay as long as it does. When there
    are more in a process than processors, all of them sleep between two operations instead of waiting for the next:
    waking them makes every step of a small model take twice its time on the CPU.

    ``torch.set_num_threads`` would hold for threads that begin later, too.
    """
    torch.get_num_threads()  # where a thread has asked for nothing yet, its first operation would set the number again
    with contextlib.suppress(Exception):  # a library that it cannot read costs speed, nothing else
        ThreadpoolController().limit(limits=1, user_api="openmp")


def suit_threads(model: nn.Module) -> None:
    """Let this process run a small model by one thread, unless ``OMP_NUM_THREADS`` says how many it shall be.

    Two take no step of it faster. Where another program wants one of their processors they wait for each other, awake,
    hundreds of times a step: two such runs side by side on two processors took forty times as long.
    """
    if "OMP_NUM_THREADS" not in os.environ and sum(each.numel() for each in model.parameters()) < _SMALL:
        torch.set_num_threads(1)
