"""A canvas of braille dots, 2 × 4 a cell, each cell in the colour of what weighs most in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint8)


class Canvas:
    """Dots on ``width`` × ``height`` cells; every cell remembers the tag drawn there with the greatest weight."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._dots = np.zeros((height, width), np.uint8)
        self._weight = np.full((height, width), -np.inf, np.float32)
        self._tag = np.full((height, width), -1, np.int32)

    def curve(self, start: tuple[float, float], stop: tuple[float, float], tag: int, weight: float) -> None:
        """A line from ``start`` to ``stop`` (x, y in dots) that leaves and arrives level; faint lines are dotted."""
        (x0, y0), (x1, y1) = start, stop
        count = int(max(abs(x1 - x0), abs(y1 - y0) * 1.6)) + 2
        t = np.linspace(0.0, 1.0, count)
        if weight < 0.2:
            t = t[::2]
        ease = t * t * (3 - 2 * t)
        xs = np.clip(np.round(x0 + (x1 - x0) * t), 0, 2 * self.width - 1).astype(np.int64)
        ys = np.clip(np.round(y0 + (y1 - y0) * ease), 0, 4 * self.height - 1).astype(np.int64)
        self._set(xs, ys, tag, weight)

    def _set(self, xs: NDArray[np.int64], ys: NDArray[np.int64], tag: int, weight: float) -> None:
        rows, columns = ys // 4, xs // 2
        np.bitwise_or.at(self._dots, (rows, columns), _BITS[ys % 4, xs % 2])
        heavier = self._weight[rows, columns] < weight
        self._weight[rows[heavier], columns[heavier]] = weight
        self._tag[rows[heavier], columns[heavier]] = tag

    def row(self, y: int) -> list[tuple[str, int]]:
        """The characters of a cell row with their tags (-1: nothing drawn)."""
        return [
            (chr(0x2800 + dots) if dots else " ", tag)
            for dots, tag in zip(self._dots[y].tolist(), self._tag[y].tolist())
        ]
