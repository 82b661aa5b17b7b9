"""A capture under watch: its steps and events, and inputs for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from moetui.engine import Capture, CaptureOptions
from moetui.engine.caches import cache_argument, returned_cache
from moetui.routing import Step
from moetui.routing.events import FindingRaised


class Watched:
    """A capture, its steps and its events."""

    def __init__(self, model: nn.Module, options: CaptureOptions | None = None, **arguments: Any) -> None:
        self.steps: list[Step] = []
        self.events: list[Any] = []
        self.capture = Capture(model, options, on_step=self.steps.append, on_event=self.events.append, **arguments)

    def __enter__(self) -> Watched:
        self.capture.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.capture.close()

    @property
    def findings(self) -> list[Any]:
        return [event.finding for event in self.events if isinstance(event, FindingRaised)]


def onto(model: nn.Module, cache: Any) -> dict[str, Any]:
    """The argument that makes a call go on from a cache, or from that of an earlier call's output."""
    found = returned_cache(cache)
    return {cache_argument(model): cache if found is None else found}


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, 500, shape, generator=torch.Generator().manual_seed(seed))


def table(steps: list[Step], name: str, batch: int) -> np.ndarray[Any, Any]:
    """A column of all steps, a row a sequence."""
    return np.concatenate([getattr(step, name).reshape(batch, -1) for step in steps], 1)
