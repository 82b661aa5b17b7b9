"""Keeps what is asked of torch to the thread that asks."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

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
    # Once a program has called ``torch.set_num_threads``, MKL goes by that number and no longer by OpenMP's. It lies
    # within torch's library, where nothing else sees it; in builds without, there is no such file or no such function.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).MKL_Set_Num_Threads_Local(1)


def run_by_one() -> None:
    """Let this process run models by one thread, unless ``OMP_NUM_THREADS`` says how many it shall be.

    For the demo: two take no decode step of it faster, and its numbers are the same by one (32-bit floats are others).
    Where another program wants one of two processors they wait for each other, awake, hundreds of times a step: two
    such runs side by side took forty times as long.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
