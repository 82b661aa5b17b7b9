"""When each token's step ran, for the waterfall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moetui.routing.phase import Phase
from moetui.routing.timeline import StepColumns, TimelineView

_KEPT = 4096
_AHEAD = 32  # tokens looked up together
_PAUSE = 8  # steps
_LEAST_PAUSE = 0.3  # s: loading and printing take a while too


@dataclass(frozen=True, slots=True)
class Timing:
    """Start and end of a token's step in seconds, whether it was a prefill, and the cells its text wants.

    Start and end are NaN where a damaged file lost them.
    """

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
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._look_up(view, token)
        return self._kept.get(token)

    def _look_up(self, view: TimelineView, first: int) -> None:
        """Those of some tokens from one on: the rows behind it are mostly asked for next."""
        columns = view.tokens(first, first + _AHEAD)
        if not len(columns.pad) or first < view.first:
            return
        took = columns.ms.astype(np.float64)
        if self.steps is not None and len(self.steps.index):
            rows = np.minimum(np.searchsorted(self.steps.index, columns.step), len(self.steps.index) - 1)
            took = np.where(self.steps.index[rows] == columns.step, self.steps.duration[rows], took)
        stop = columns.started + np.where(np.isfinite(took), took, 0.0) / 1000
        values = zip(columns.started.tolist(), stop.tolist(), (columns.phase == Phase.PREFILL).tolist())
        for at, (value, token_id) in enumerate(zip(values, columns.token_id.tolist())):
            self._kept[first + at] = Timing(*value, min(24, len(view.text(token_id)) + 1))


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a waterfall shows.

    Attributes:
        low, high: seconds.
        cut: by token, the seconds of pauses before it that are left out.
        pauses: whether any are.
        known: whether any time is.
    """

    low: float = 0.0
    high: float = 1.0
    cut: Mapping[int, float] = field(default_factory=dict)
    pauses: bool = False
    known: bool = True

    def place(self, token: int, timing: Timing) -> tuple[float, float]:
        """Start and end of a token's bar as shares of the span; NaN where its time is not known."""
        low, scale = self.low + self.cut.get(token, 0.0), 1 / (self.high - self.low)
        return (timing.start - low) * scale, (timing.stop - low) * scale

    def text(self, width: int, title: str) -> str:
        """The waterfall's heading: the title, and at the right how much time it shows."""
        if not self.known:
            return title if width >= len(title) else ""
        took = self.high - self.low
        text = f"{took * 1000:.0f} ms" if took < 1 else f"{took:.2f} s" if took < 100 else f"{took:.0f} s"
        if self.pauses:
            text += " + pauses"
        if width >= len(title) + len(text) + 1:
            return title + text.rjust(width - len(title))
        short = text.partition(" +")[0]
        return next((each for each in (text, short, short.replace(" ", "")) if len(each) <= width), "")


def span_of(shown: Sequence[tuple[int, Timing]], *, cut_pauses: bool) -> Span:
    """The span of rows; a gap of more than ``_PAUSE`` usual steps is a pause, of which only the length of one is kept.

    Args:
        shown: tokens with their timings.
        cut_pauses: nothing stands between neighbours in time, so that a gap is a pause.
    """
    rows = sorted((row for row in shown if math.isfinite(row[1].start)), key=lambda row: row[1].start)
    if not rows:
        return Span(known=False)
    cut: dict[int, float] = {}
    gone, until = 0.0, rows[0][1].stop
    usual = sorted(timing.stop - timing.start for _, timing in rows)[len(rows) // 2]
    for token, timing in rows:
        if cut_pauses and timing.start - until > max(_PAUSE * usual, _LEAST_PAUSE):
            gone += timing.start - until - usual
        cut[token] = gone
        until = max(until, timing.stop)
    low, high = rows[0][1].start, until - gone
    return Span(low, high, cut if gone else {}, gone > 0) if high > low else Span(known=False)
