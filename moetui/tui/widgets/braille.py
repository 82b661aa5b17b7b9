"""A canvas of braille dots, 2 × 4 a cell, each cell in the colour of what weighs most in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint8)
_FAINT = 0.2


@dataclass(frozen=True, slots=True)
class Curve:
    """A line that leaves ``start`` and arrives at ``stop`` (x, y in dots) level; dotted where its weight is small."""

    start: tuple[float, float]
    stop: tuple[float, float]
    tag: int
    weight: float


class Canvas:
    """``width`` × ``height`` cells with all curves on them; a cell shows the tag of the heaviest curve through it."""

    def __init__(self, width: int, height: int, curves: list[Curve]) -> None:
        self._dots = np.zeros((height, width), np.uint8)
        self._tag = np.full((height, width), -1, np.int32)
        if not curves:
            return
        # The heaviest last: of writes to one cell the last one stays.
        ordered = sorted(curves, key=lambda curve: curve.weight)
        ends = np.array([(*curve.start, *curve.stop) for curve in ordered])
        x0, y0, x1, y1 = (ends[:, i, None] for i in range(4))
        count = int(np.maximum(np.abs(x1 - x0), np.abs(y1 - y0) * 1.6).max()) + 2
        t = np.linspace(0.0, 1.0, count)[None, :]
        xs = np.clip(np.round(x0 + (x1 - x0) * t), 0, 2 * width - 1).astype(np.int64)
        ys = np.clip(np.round(y0 + (y1 - y0) * (t * t * (3 - 2 * t))), 0, 4 * height - 1).astype(np.int64)
        faint = np.array([curve.weight < _FAINT for curve in ordered])[:, None]
        kept = ~(faint & ((xs + ys) % 2 == 1))
        tags = np.broadcast_to(np.array([curve.tag for curve in ordered])[:, None], xs.shape)[kept]
        xs, ys = xs[kept], ys[kept]
        np.bitwise_or.at(self._dots, (ys // 4, xs // 2), _BITS[ys % 4, xs % 2])
        self._tag[ys // 4, xs // 2] = tags

    def row(self, y: int) -> list[tuple[str, int]]:
        """The characters of a cell row with their tags (-1: nothing drawn)."""
        dots, tags = self._dots[y].tolist(), self._tag[y].tolist()
        return [(chr(0x2800 + bits) if bits else " ", tag) for bits, tag in zip(dots, tags)]
