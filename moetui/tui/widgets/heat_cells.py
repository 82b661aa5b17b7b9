"""Draws a heatmap's cells: filled where there is colour, characters where there is none, two rows in one line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from rich.style import Style

from moetui.tui.cells import Line, fit
from moetui.tui.ramps import LEVELS, RGB, contrast_text, legible
from moetui.tui.widgets.heat_values import ABSENT, UNKNOWN, ZERO, Levels
from moetui.tui.widgets.pens import Pens


def number_in_cell(text: str, cell: int) -> str:
    """A number, or a mark, with a gap behind it; what is too long is shortened, and a sign may stand for the gap."""
    room = cell - 1
    if len(text) > room:
        text = text.replace("-0.", "-.")
    if len(text) == cell and text.startswith("-"):
        return text
    if len(text) > room and "." in text:
        text = f"{float(text):.0f}"
    return fit(text, room, "right") + " "


class HeatCells:
    """Draws levels with a widget's pens."""

    def __init__(self, pens: Pens) -> None:
        self._pens = pens
        self._diverging = False
        self._pairs: dict[int, tuple[str, Style]] = {}

    def forget(self, *, diverging: bool | None = None) -> None:
        """Drop what was drawn with other colours; from now on use the diverging ramp or not, if given."""
        self._pairs = {}
        if diverging is not None:
            self._diverging = diverging

    def plain(self, line: Line, levels: Levels, cell: int, cursor: int, texts: tuple[str, ...]) -> None:
        """One row of cells, ``cell`` wide; with ``texts`` the numbers in them."""
        column = 0
        ink = self._pens.ink
        for level, run in groupby(levels.tolist()):
            for _ in run:
                at_cursor = column == cursor
                style = self._cell_style(level)
                if texts:
                    text = number_in_cell(texts[column], cell)
                elif level >= LEVELS:
                    mark = {ZERO: ink.glyphs.zero, UNKNOWN: ink.glyphs.unknown}.get(level, " ")
                    text = mark.center(cell)
                elif ink.shaded:
                    text = " " * cell
                else:
                    text = self._characters(level, cell)
                if at_cursor and texts:
                    line.add(text, self._pens.pen("cursor"))
                elif at_cursor:
                    self._cursor_cell(line, text, level, style)
                else:
                    line.add(text, style)
                column += 1

    def _characters(self, level: int, cell: int) -> str:
        """A cell where no ground can be coloured; a difference has its sign before it."""
        ink = self._pens.ink
        if not self._diverging:
            return ink.glyphs.level(level) * max(1, cell - 1) + " " * (cell > 1)
        more = level >= LEVELS // 2
        apart = level - LEVELS // 2 if more else LEVELS // 2 - 1 - level
        if not apart:
            return ("." if ink.ascii_only else "·").center(cell)
        text = ("+" if more else ink.words("−")) + ink.glyphs.level(2 * apart + 1) * max(1, cell - 2)
        return text[:cell].ljust(cell)

    def _cursor_cell(self, line: Line, text: str, level: int, style: Style) -> None:
        if len(text) < 3:
            mark = text.strip() or (self._pens.ink.glyphs.level(level) if level < LEVELS else "")
            line.add(fit(mark, len(text)), self._pens.pen("cursor"))
            return
        edge = style + Style(bold=True)
        if self._pens.ink.shaded:
            left, right = "▐", "▌"
            line.add(left, self._pens.pen("accent")).add(text[1:-1], edge).add(right, self._pens.pen("accent"))
        else:
            line.add("[", self._pens.pen("accent")).add(text[1:-1], edge).add("]", self._pens.pen("accent"))

    def stacked(self, line: Line, pair: Levels, cell: int, cursor: int, which: int) -> None:
        """Two rows in one line; ``which`` of them has the cursor."""
        cache = self._pairs
        column = 0
        # Neighbours of one look become one segment; the look of a pair of levels is worked out once.
        for pairing, run in groupby(((pair[0].astype(np.int64) << 8) | pair[1]).tolist()):
            count = sum(1 for _ in run)
            found = cache.get(pairing)
            if found is None:
                found = cache[pairing] = self._pair_look(pairing >> 8, pairing & 255)
            text, style = found
            if column <= cursor < column + count:
                line.add((text * cell) * (cursor - column), style)
                shades = (*self._shades(), *[None] * 3)
                other = shades[(pairing & 255) if which == 0 else pairing >> 8] or self._ground()
                line.add(("▀" if which == 0 else "▄") * cell, self._pens.paint("accent", None, other))
                line.add((text * cell) * (column + count - cursor - 1), style)
            else:
                line.add(text * (cell * count), style, cell * count)
            column += count

    def _pair_look(self, a: int, b: int) -> tuple[str, Style]:
        ground = self._ground()
        shades = (*self._shades(), *[None] * 3)
        if a >= LEVELS and b >= LEVELS:
            return "?" if UNKNOWN in (a, b) else " " if a == ABSENT else self._pens.ink.glyphs.zero, self._pens.pen(
                "dim"
            )
        if a == b:
            return " ", self._cell_style(a)
        if a >= LEVELS:
            return "▄", self._pens.paint("", shades[b], ground)
        return "▀", self._pens.paint("", shades[a], shades[b] if b < LEVELS else ground)

    def _shades(self) -> Sequence[RGB]:
        return self._pens.ink.levels(diverging=self._diverging)

    def _ground(self) -> RGB | None:
        color = self._pens.pen().bgcolor
        triplet = None if color is None else color.triplet
        return None if triplet is None else (triplet.red, triplet.green, triplet.blue)

    def _cell_style(self, level: int) -> Style:
        if level >= LEVELS:
            return self._pens.pen("warn" if level == UNKNOWN else "dim")
        if not self._pens.ink.colored:
            return self._pens.pen()
        shade = self._shades()[level]
        if self._pens.ink.shaded:
            return self._pens.paint("", contrast_text(shade), shade)
        ground = self._ground()
        return self._pens.paint("", shade if ground is None or self._pens.ink.depth == "16" else legible(shade, ground))

    def legend(self, high: float, unit: str, *, brief: bool = False) -> Line:
        """The scale with its ends in numbers; ``brief``: without the mark of cells that have no value."""
        ink, dim = self._pens.ink, self._pens.pen("dim")
        legend = Line()
        if not self._diverging and not brief:
            legend.add(f"{ink.glyphs.zero} none  ", dim)
        legend.add("0 " if not self._diverging else ink.words(f"−{high:g} "), dim)
        for level in range(0, LEVELS, 2):
            style = self._cell_style(level)
            if ink.shaded:
                mark = " "
            elif self._diverging:
                mark = self._characters(level, 3)[1]
            else:
                mark = ink.glyphs.level(level)
            legend.add(mark, style)
        return legend.add(ink.words(f" {high:g}{'' if unit.startswith(('%', '×')) else ' '}{unit}"), dim)
