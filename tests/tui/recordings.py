"""Recordings of known content, written as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moetui.routing import ModelInfo, Step, Timeline
from moetui.trace import TraceWriter
from tests.tui.builders import make_info, make_timeline


class KeptSteps(Timeline):
    """A timeline that remembers the steps it was given."""

    def __init__(self, info: ModelInfo) -> None:
        super().__init__(info, 100_000)
        self.steps: list[Step] = []

    def append(self, step: Step, *args: Any, **kwargs: Any) -> int:
        self.steps.append(step)
        return super().append(step, *args, **kwargs)


def write_steps(path: Path, info: ModelInfo, steps: list[Step]) -> Path:
    writer = TraceWriter(path, info, prompt="Once")
    for step in steps:
        writer.write_step(step)
    writer.close()
    assert not writer.problem
    return path


def write_recording(path: Path, info: ModelInfo | None = None, **of_timeline: Any) -> Path:
    """What ``make_timeline`` makes, as a trace."""
    info = info or make_info()
    kept = KeptSteps(info)
    make_timeline(info, timeline=kept, **of_timeline)
    return write_steps(path, info, kept.steps)
