"""The load-balance strip: one line of numbers, each with its recent course in one colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.strip import Strip

from moetui.tui.cells import Line, number, short
from moetui.tui.widgets.pens import PEN_CSS, Pens


@dataclass(frozen=True, slots=True)
class Gauge:
    """One number of the strip.

    Attributes:
        name: what stands before it.
        text: the number, as shown.
        course: its recent values, oldest first; empty for no sparkline.
        pen: how the number is drawn.
        low, high: ends of the sparkline's scale; None for the values' own.
    """

    name: str
    text: str
    course: tuple[float, ...] = ()
    pen: str = "strong"
    low: float | None = None
    high: float | None = None


def balance_gauges(
    fairness: Sequence[float],
    variation: Sequence[float],
    peak: Sequence[float],
    *,
    dead: int,
    dropped: int,
    rate: float,
    rates: Sequence[float],
    unit: str = "tok/s",
    sure: bool = True,
    counted: bool = True,
    dash: str = "–",
) -> tuple[Gauge, ...]:
    """The strip's gauges from recent values (the last is the present one).

    ``sure`` says that enough tokens were seen to call unused experts dead; a question mark says that they were not, or
    that not all of them are counted yet, a dash that there are no tokens.
    """
    nan = float("nan")
    unused = str(dead) if counted and (sure or not dead) else f"{dead}?"
    if not dead and (not peak or math.isnan(peak[-1])):
        unused = dash  # of no token nothing is known
    return (
        Gauge("fairness", number(fairness[-1] if fairness else nan, 2, dash), tuple(fairness)),
        Gauge("CV", number(variation[-1] if variation else nan, 2, dash), tuple(variation)),
        Gauge("max/mean", number(peak[-1] if peak else nan, 1, dash), tuple(peak)),
        Gauge(
            "dead",
            unused,
            pen="warn" if dead and sure else "strong",
        ),
        Gauge("dropped", str(dropped) if counted else f"{dropped}?", pen="bad" if dropped else "strong"),
        Gauge(unit, short(rate, dash), tuple(rates), low=0.0),
    )


class BalanceStrip(Pens):
    """Draws gauges in one line; sparklines leave before numbers do where there is little room."""

    DEFAULT_CSS = "BalanceStrip { height: 1; " + PEN_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = Pens.COMPONENT_CLASSES

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._gauges: tuple[Gauge, ...] = ()

    def show(self, gauges: tuple[Gauge, ...]) -> None:
        """Draw these gauges."""
        self.renew_ink()
        if gauges != self._gauges:
            self._gauges = gauges
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The line."""
        width, plain = self.room.width, self.pen()
        if y or not self._gauges:
            return Strip.blank(width, plain)
        bare = sum(len(gauge.name) + len(gauge.text) + 4 for gauge in self._gauges)
        courses = sum(1 for gauge in self._gauges if gauge.course)
        spark = max(0, min(10, (width - bare) // max(1, courses) - 1))
        spark = spark if spark >= 4 else 0
        glyphs = self.ink.glyphs
        line = Line().space(1, plain)
        for gauge in self._gauges:
            part = Line().add(gauge.name + " ", self.pen("head")).add(gauge.text, self.pen(gauge.pen))
            if spark and gauge.course:
                course = glyphs.spark(gauge.course, spark, gauge.low, gauge.high).lstrip()
                part.add(" " + course, self.pen("dim"))
            if line.width + part.width > width:
                break
            line.extend(part).space(3, plain)
        return Line().extend(line.clip(width)).strip(width, plain)
