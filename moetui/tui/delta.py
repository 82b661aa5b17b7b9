"""Sends only the cells that changed. It knows what it sent; what a terminal may have done on its own is sent whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import textual
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

KNOWN_VERSION = "8.2.8"
"""The Textual whose updates this was written for and proven with; any other gets Textual's own way."""

_GAP = 5  # unchanged cells that are cheaper to send again than to jump over

Cell = tuple[str, Style | None]
_TAIL = ""  # text of the second cell of a wide character
_UNKNOWN: Cell = ("\0", None)  # equals no cell that can be drawn


def supported() -> bool:
    """Whether the installed Textual is the one this was proven with."""
    return textual.__version__ == KNOWN_VERSION


class SentScreen:
    """The screen as the terminal has it, and what to send so that it becomes another one."""

    def __init__(self, color_system: ColorSystem | None = ColorSystem.TRUECOLOR) -> None:
        self._colors = color_system
        self._lines: list[list[Cell]] = []
        self._odd: list[bool] = []

    @property
    def known(self) -> bool:
        """Whether a full picture was sent, so that differences can be told."""
        return bool(self._lines)

    def forget(self) -> None:
        """The terminal may show anything now; the next update must be a full one."""
        self._lines, self._odd = [], []

    def encode(self, update: LayoutUpdate | ChopsUpdate) -> str:
        """What to send for an update; empty if it changes nothing."""
        out: list[str] = []
        if isinstance(update, LayoutUpdate):
            width, height = update.region.right, update.region.bottom
            if len(self._lines) != height or len(self._lines[0]) != width:
                self._lines = [[_UNKNOWN] * width for _ in range(height)]
                self._odd = [False] * height
            for y, strips in enumerate(update.strips, update.region.y):
                self._line(y, [(update.region.x, [segment for strip in strips for segment in strip])], out)
        else:
            for y, spans in _spans_of(update).items():
                if y < len(self._lines):
                    self._line(y, spans, out)
        if out:
            out.append("\x1b[m")
        return "".join(out)

    def _line(self, y: int, spans: list[tuple[int, list[Segment]]], out: list[str]) -> None:
        old = self._lines[y]
        new = list(old)
        odd = False
        for x, segments in spans:
            odd = _put(new, x, segments) or odd
        runs = _changes(old, new)
        if not runs:
            return
        # A terminal may draw a wide or combining character wider or narrower than it should: then cells that did not
        # change here may have moved there. Such a line is sent whole whenever anything in it changes.
        if odd or self._odd[y]:
            runs = [(0, len(new))]
            self._odd[y] = any(len(text) != 1 for text, _ in new)
        self._lines[y] = new
        for start, stop in runs:
            self._emit(y, start, stop, new, out)

    def _emit(self, y: int, start: int, stop: int, cells: Sequence[Cell], out: list[str]) -> None:
        out.append(f"\x1b[{y + 1};{start + 1}H")
        at = start
        while at < stop:
            style = cells[at][1]
            end = at
            while end < stop and cells[end][1] == style:
                end += 1
            out.append(f"\x1b[{_codes(style, self._colors)}m")
            out.append("".join([text for text, _ in cells[at:end]]))
            at = end


@lru_cache(maxsize=4096)
def _codes(style: Style | None, colors: ColorSystem | None) -> str:
    """The SGR parameters that set a style from nothing."""
    if style is None:
        return ""
    codes = Strip.render_ansi(style, colors or ColorSystem.TRUECOLOR)
    return f"0;{codes}" if codes else ""


def _put(cells: list[Cell], x: int, segments: Iterable[Segment]) -> bool:
    """Write segments into cells from column ``x``; tell whether any character is not one cell wide."""
    width = len(cells)
    odd = False
    for text, style, control in segments:
        if control:
            continue
        if text.isascii():
            for char in text:
                if 0 <= x < width:
                    cells[x] = (char, style)
                x += 1
            continue
        for char in text:
            size = cell_len(char)
            if size == 0:
                odd = True
                if 0 < x <= width and cells[x - 1][0]:
                    cells[x - 1] = (cells[x - 1][0] + char, cells[x - 1][1])
                continue
            if 0 <= x < width:
                cells[x] = (char, style)
            if size == 2:
                odd = True
                if 0 <= x + 1 < width:
                    cells[x + 1] = (_TAIL, style)
            x += size
    return odd


def _changes(old: Sequence[Cell], new: Sequence[Cell]) -> list[tuple[int, int]]:
    """Half-open runs of columns that differ, those close together joined."""
    runs: list[tuple[int, int]] = []
    start = stop = -1
    for x, (before, after) in enumerate(zip(old, new)):
        if before is after or before == after:
            continue
        if start >= 0 and x - stop <= _GAP:
            stop = x + 1
            continue
        if start >= 0:
            runs.append((start, stop))
        start, stop = x, x + 1
    if start >= 0:
        runs.append((start, stop))
    return runs


def _spans_of(update: ChopsUpdate) -> dict[int, list[tuple[int, list[Segment]]]]:
    """Line → what a partial update draws there, each with its first column."""
    lines: dict[int, list[tuple[int, list[Segment]]]] = {}
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items()):
            if strip is None or x >= x2 or end <= x1:
                continue
            shown = strip.crop(0, min(end, x2) - x)
            lines.setdefault(y, []).append((x, list(shown)))
    return lines


class Encoded(CompositorUpdate):
    """Stands in for an update: the same picture, sent as the difference."""

    def __init__(self, update: LayoutUpdate | ChopsUpdate, screen: SentScreen) -> None:
        self._update = update
        self._screen = screen

    def render_segments(self, console: Console) -> str:
        """Called by Textual when it sends; only then does the terminal get it."""
        if not self._screen.known and not isinstance(self._update, LayoutUpdate):
            return self._update.render_segments(console)
        return self._screen.encode(self._update)
