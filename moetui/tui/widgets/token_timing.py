"""When each token's step ran, for the waterfall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moetui.routing.step import Phase
from moetui.routing.timeline import StepColumns, TimelineView

_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Timing:
    """Start and end of a token's step in seconds, whether it was a prefill, and the cells its text wants."""

    start: float
    stop: float
    prefill: bool
    text: int


class Timings:
    """Timings of tokens; they never change, so they are kept.

    Attributes:
        steps: the steps of the view that is asked about; to be set before.
    """

    def __init__(self) -> None:
        self.steps: StepColumns | None = None
        self._kept: dict[int, Timing] = {}

    def of(self, view: TimelineView, token: int) -> Timing | None:
        """One token's timing; None if it is not held any more. Without its step, its own share of time stands."""
        found = self._kept.get(token)
        if found is not None:
            return found
        columns = view.tokens(token, token + 1)
        if not len(columns.pad):
            return None
        steps = self.steps
        start, took = float(columns.started[0]), float(columns.ms[0])
        row = int(np.searchsorted(steps.index, int(columns.step[0]))) if steps is not None else 0
        if steps is not None and row < len(steps.index) and steps.index[row] == columns.step[0]:
            took = float(steps.duration[row])
        stop = start + (took if math.isfinite(took) else 0.0) / 1000
        text = min(24, len(view.text(int(columns.token_id[0]))) + 1)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        found = self._kept[token] = Timing(start, stop, int(columns.phase[0]) == Phase.PREFILL, text)
        return found


def span_text(span: tuple[float, float], width: int, title: str) -> str:
    """The waterfall's heading: the title, and at the right how much time it shows."""
    took = span[1] - span[0]
    text = f"{took * 1000:.0f} ms" if took < 1 else f"{took:.2f} s" if took < 100 else f"{took:.0f} s"
    if width >= len(title) + len(text) + 1:
        return title + text.rjust(width - len(title))
    return next((each for each in (text, text.replace(" ", "")) if len(each) <= width), "")
