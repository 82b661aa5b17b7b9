"""The numbers beside a heatmap's cells and in them, as text."""

from __future__ import annotations

import numpy as np

from moetui.routing.step import F64
from moetui.tui.cells import number
from moetui.tui.glyphs import Glyphs
from moetui.tui.widgets.heat_values import ABSENT, UNKNOWN, ZERO, HeatPicture, Levels


def beside_row(
    picture: HeatPicture, row: int, stacked: int, glyphs: Glyphs, trail_span: tuple[float, float] | None
) -> tuple[str, str, str]:
    """Entropy, fairness and the entropy's course, the mean over a line's sites; the course where its span is given."""
    until = row + stacked
    course = [] if trail_span is None else [_mean(values) for values in picture.trail[:, row:until]]
    spark = "" if trail_span is None else glyphs.spark(course, 8, *trail_span)
    return (
        number(_mean(picture.entropy[row:until]), 2, glyphs.dash),
        number(_mean(picture.fairness[row:until]), 2, glyphs.dash),
        spark,
    )


def as_read(picture: HeatPicture) -> object:
    """What the numbers beside all rows read: equal for pictures that look the same there."""
    return tuple(np.round(each, 2).tobytes() for each in (picture.entropy, picture.fairness, picture.trail))


def in_cells(
    picture: HeatPicture, levels: Levels, row: int, columns: range, *, swapped: bool, zero: str
) -> tuple[str, ...]:
    """The values of a row's cells; ``levels`` are those of that row."""
    values = picture.heat.values.T if swapped else picture.heat.values
    digits = 0 if picture.heat.unit in ("%", "points") else 1
    return tuple(
        zero if levels[c] == ZERO else "?" if levels[c] == UNKNOWN else "" if levels[c] == ABSENT
        else f"{values[row, c]:.{digits}f}"
        for c in columns
    )  # fmt: skip


def known_span(values: F64) -> tuple[float, float]:
    """Least and most of what is known; 0 and 1 where nothing is."""
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def _mean(values: F64) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
