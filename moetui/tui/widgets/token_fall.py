"""Puts a token's bar of the waterfall behind its cells, and the scroll bar's cell at the end of the line."""

from __future__ import annotations

import math

from rich.segment import Segment
from textual.strip import Strip

from moetui.tui.cells import Line
from moetui.tui.glyphs import waterfall_bar
from moetui.tui.widgets.pens import Pens
from moetui.tui.widgets.token_columns import Column
from moetui.tui.widgets.token_timing import Timing


def with_bar(
    pens: Pens,
    left: Line,
    fall: Column,
    place: tuple[float, float],
    timing: Timing,
    thumb: str,
    width: int,
    *,
    selected: bool,
) -> Strip:
    """One whole line of the table.

    Args:
        pens: to draw with.
        left: the cells up to the waterfall.
        fall: the waterfall's column; of no width for none.
        place: start and end of the bar as shares of the time shown; NaN for none, as its time is not known.
        timing: the token's.
        thumb: the scroll bar's cell.
        width: cells of the line.
        selected: the line is the cursor's.
    """
    plain, segments = pens.row_pen("", selected), list(left.segments())
    rest = width - 1 - left.width
    # Every row is drawn at every step, because all bars move: segments are put together by hand here.
    if fall.width and math.isfinite(place[0]):
        first, bar = waterfall_bar(*place, fall.width - 2, ascii_only=pens.ink.ascii_only)
        segments.append(Segment(" " * (first + 1), plain))
        segments.append(
            Segment(
                bar,
                pens.row_pen("head" if timing.prefill and selected else "dim" if timing.prefill else "bar", selected),
            )
        )
        rest -= first + 1 + len(bar)
    if rest > 0:
        segments.append(Segment(" " * rest, plain))
    segments.append(Segment(thumb, pens.pen("head") if thumb != " " else plain))
    strip = Strip(segments, width if rest >= 0 else width - rest)
    return strip if rest >= 0 else strip.crop(0, width)
