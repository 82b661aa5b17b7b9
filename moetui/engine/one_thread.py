"""Keeps what a thread asks of torch to that thread."""

from __future__ import annotations

import contextlib

import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


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
