"""Finds lines that only moved up or down between two pictures, as a table's do that follows the newest row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FARTHEST = 12  # lines
_WORTH = 60  # cells that must be spared
_ENTERING = 3  # a line sent whole costs a third of as many cells here and there, each with its own colour and place


@dataclass(frozen=True, slots=True)
class Shift:
    """Lines ``first .. stop - 1`` move up by ``by`` lines (down, if it is negative)."""

    first: int
    stop: int
    by: int


def find_shift(old: NDArray[np.int32], new: NDArray[np.int32]) -> Shift | None:
    """The move after which the fewest cells must be sent; None if none is worth it.

    Args:
        old, new: ``[rows, columns]`` cells as numbers.
    """
    rows, columns = old.shape
    stay = (new != old).sum(1)
    best, found = _WORTH, None
    for by in range(1, min(_FARTHEST, rows - 1) + 1):
        for sign in (1, -1):
            # Row y shows what stood at row y + by before: compare with that, where there is such a row.
            moved = (new[:-by] != old[by:]).sum(1) if sign > 0 else (new[by:] != old[:-by]).sum(1)
            gain = (stay[:-by] if sign > 0 else stay[by:]) - moved
            first, stop, total = _best_run(gain)
            stop += by  # the region holds the lines moved and those they leave or enter
            # The lines that come in at the end are sent whole.
            entering = stay[stop - by : stop] if sign > 0 else stay[first : first + by]
            total -= int(np.maximum(columns // _ENTERING - entering, 0).sum())
            if total > best:
                best, found = total, Shift(first, stop, sign * by)
    return found


def _best_run(gain: NDArray[np.int64]) -> tuple[int, int, int]:
    """The contiguous run with the largest sum (Kadane): first, one past its last, sum."""
    best = (0, 0, 0)
    start, total = 0, 0
    for index, value in enumerate(gain.tolist()):
        if total <= 0:
            start, total = index, 0
        total += value
        if total > best[2]:
            best = (start, index + 1, total)
    return best
