"""The Profiler's chart of tokens a second. Loaded with the first data, for what draws it takes its time to load."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from textual_plotext import PlotextPlot

from moetui.tui.ink import ink_of

_FRAME = str.maketrans({"┤": "|", "│": "|", "└": "+", "┬": "+", "─": "-", "┼": "+", "┴": "+", "├": "|", "┘": "+"})


class RateChart(PlotextPlot):  # type: ignore[misc]  # it comes without types
    """Rates over the last steps: a line of dots of an eighth of a cell, of asterisks where there is ASCII alone."""

    def render(self) -> Text:
        """The chart in characters there are."""
        drawn = super().render()
        text = drawn if isinstance(drawn, Text) else Text(str(drawn))
        if ink_of(self).ascii_only:
            text.plain = text.plain.translate(_FRAME)  # each as long as it was: the styles stay where they are
        return text

    def draw(self, rates: Sequence[float], style: Style) -> None:
        """Draw tokens a second, the newest last, at least two, with a style's colour."""
        # Where the app draws in the terminal's own colours, these are the ground too.
        self.theme = "clear" if self.app.native_ansi_color else "auto"
        plot = self.plt
        plot.clear_data()
        count, top = len(rates), 1.15 * max(rates)
        ink = style.color
        color = None if ink is None else ink.number if ink.triplet is None else tuple(ink.triplet)
        marker = "*" if ink_of(self).ascii_only else "braille"
        plot.plot(list(range(1 - count, 1)), list(rates), marker=marker, **({} if color is None else {"color": color}))
        plot.ylim(0, top)
        marks = [-count + 1, -(count // 2), 0]
        plot.xticks(marks, [f"{mark} steps" if mark else "now" for mark in marks])
        heights = [0.0, top / 2, top]
        plot.yticks(heights, [f"{height:.0f}" for height in heights])
        plot.xaxes(True, False)
        plot.yaxes(True, False)
        self.refresh()
