"""How much memory the model takes, for its steps: looked at now and then, as asking costs time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

_SECONDS = 0.05


class MemoryMeter:
    """Megabytes (10^6 bytes) of the process, or on all devices of its kind where the model is on an accelerator.

    Args:
        device: as the model's tensors name it: ``cpu``, ``cuda:0``.
        clock: seconds.
    """

    def __init__(self, device: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ask = _of_devices(device.partition(":")[0]) or _of_process()
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


def _of_devices(kind: str) -> Callable[[], int] | None:
    """None where torch does not tell, or for a kind whose memory is the process's own."""
    import torch

    if kind in ("cpu", "meta", "mps"):
        return None
    module: Any = getattr(torch, kind, None)
    ask = getattr(module, "memory_allocated", None) or getattr(torch.accelerator, "memory_allocated", None)
    return None if ask is None else lambda: sum(int(ask(number)) for number in range(module.device_count()))
