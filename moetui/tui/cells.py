"""Text measured in terminal cells: cutting, padding, numbers that align, and strips with few segments."""

from __future__ import annotations

import math
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

Align = Literal["left", "right", "center"]


def fit(text: str, width: int, align: Align = "left", ellipsis: str = "…") -> str:
    """``text`` in exactly ``width`` cells: padded, or cut with an ellipsis. ``text`` must be drawable already."""
    if width <= 0:
        return ""
    length = len(text) if text.isascii() else cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + ellipsis
    room = width - length
    if align == "right":
        return " " * room + text
    if align == "center":
        return " " * (room // 2) + text + " " * (room - room // 2)
    return text + " " * room


def number(value: float, digits: int = 2, unknown: str = "–") -> str:
    """A number as a column shows it: ``.71``, ``-.21``, ``1.02``, ``inf``; ``unknown`` for NaN."""
    if math.isnan(value):
        return unknown
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{value:.{digits}f}"
    if text.startswith("0."):
        return text[1:]
    if text.startswith("-0."):
        return "-" + text[2:] if float(text) else text[2:]
    return text


def chance(value: float, unknown: str = "–") -> str:
    """A probability in at most four characters: ``.83``, ``1.00``, ``<.01`` for what is small but not nothing."""
    return "<.01" if 0 < value < 0.005 else number(value, 2, unknown)


def short(value: float, unknown: str = "–") -> str:
    """A magnitude in at most five characters: ``0.12``, ``22.4``, ``512``, ``1.2k``, ``34M``."""
    if math.isnan(value):
        return unknown
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    size = abs(value)
    if size < 9.995:
        return f"{value:.2f}"
    if size < 99.95:
        return f"{value:.1f}"
    for limit, divisor, unit in ((9999.5, 1, ""), (999_500, 1e3, "k"), (999.5e6, 1e6, "M")):
        if size < limit:
            scaled = value / divisor
            return f"{scaled:.0f}{unit}" if not unit or abs(scaled) >= 9.95 else f"{scaled:.1f}{unit}"
    return f"{value:.0e}"


class Line:
    """Builds one strip; neighbours of one style become one segment, because each segment costs bytes on the wire."""

    __slots__ = ("_parts", "_segments", "_style", "width")

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._parts: list[str] = []
        self._style: Style | None = None
        self.width = 0

    def add(self, text: str, style: Style, cells: int = -1) -> Line:
        """Append drawable text; its width is measured where ``cells`` does not tell it."""
        if not text:
            return self
        if cells < 0:
            cells = len(text) if text.isascii() else cell_len(text)
        self.width += cells
        if style is not self._style and style != self._style:
            self._flush()
            self._style = style
        self._parts.append(text)
        return self

    def extend(self, other: Line) -> Line:
        """Append all of another line, its segments as they are."""
        other._flush()
        self._flush()
        self._segments.extend(other._segments)
        self.width += other.width
        self._style = None
        return self

    def clip(self, width: int) -> Line:
        """This line, cut to ``width`` cells if it is longer."""
        if self.width <= width:
            return self
        self._flush()
        out = Line()
        out._segments = list(Strip(self._segments, self.width).crop(0, max(0, width)))
        out.width = max(0, width)
        return out

    def space(self, count: int, style: Style) -> Line:
        """Append blanks."""
        return self.add(" " * count, style) if count > 0 else self

    def to(self, column: int, style: Style) -> Line:
        """Blanks up to a column; nothing if it is passed already."""
        return self.space(column - self.width, style)

    def segments(self) -> list[Segment]:
        """The segments so far; the list is the line's own."""
        self._flush()
        return self._segments

    def strip(self, width: int, style: Style) -> Strip:
        """The strip, exactly ``width`` cells wide."""
        self.to(width, style)
        self._flush()
        out = Strip(self._segments, self.width)
        return out if self.width == width else out.crop(0, width)

    def _flush(self) -> None:
        if self._parts and self._style is not None:
            self._segments.append(Segment("".join(self._parts), self._style))
        self._parts = []
