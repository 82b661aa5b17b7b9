"""How much memory the model takes, for its steps: looked at now and then, as asking costs time."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

_SECONDS = 0.05


class MemoryMeter:
    """Megabytes (10^6 bytes) of the process, or of the device where the model is on one.

    Args:
        device: as the model's tensors name it: ``cpu``, ``cuda:0``.
        clock: seconds.
    """

    def __init__(self, device: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ask = _of_cuda(device) if device.startswith("cuda") else _of_process()
        self._due = -float("inf")
        self._held = float("nan")

    def megabytes(self) -> float:
        """As it was at most 50 ms ago."""
        now = self._clock()
        if now >= self._due:
            self._due = now + _SECONDS
            self._held = self._ask() / 1e6
        return self._held


def _of_process() -> Callable[[], int]:
    process = psutil.Process()
    return lambda: int(process.memory_info().rss)


def _of_cuda(device: str) -> Callable[[], int]:
    import torch

    return lambda: torch.cuda.memory_allocated(device)
