"""The layer × expert heatmap: line API, sixteen levels, runs merged, lines cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.strip import Strip

from moetui.routing import drawable
from moetui.tui.cells import Line, fit
from moetui.tui.messages import SiteSelected
from moetui.tui.widgets.heat_cells import HeatCells
from moetui.tui.widgets.heat_grid import ZOOMS, keep_in_view, number_columns, plan_grid
from moetui.tui.widgets.heat_numbers import as_read, beside_row, in_cells, known_span
from moetui.tui.widgets.heat_values import HeatPicture, Levels, Pooling, pool, quantise
from moetui.tui.widgets.pens import PEN_CSS, Pens
from moetui.tui.widgets.sharing import Rows


class Heatmap(Pens, can_focus=True):
    """Draws a ``HeatPicture``; its cursor is the selected site and expert."""

    DEFAULT_CSS = "Heatmap { height: 1fr; " + PEN_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = Pens.COMPONENT_CLASSES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1, 0)", "Up", show=False, id="heatmap.up", tooltip="The row above"),
        Binding("down,j", "move(1, 0)", "Down", show=False, id="heatmap.down", tooltip="The row below"),
        Binding("left,h", "move(0, -1)", "Left", show=False, id="heatmap.left", tooltip="The column before"),
        Binding("right,l", "move(0, 1)", "Right", show=False, id="heatmap.right", tooltip="The column after"),
        Binding("z", "zoom(-1)", "Zoom in", show=False, id="heatmap.zoom_in", tooltip="Wider cells"),
        Binding("Z", "zoom(1)", "Zoom out", show=False, id="heatmap.zoom_out", tooltip="Narrower cells, folding"),
        Binding("0", "zoom(0)", "Fit", show=False, id="heatmap.fit", tooltip="Show every expert at once"),
        Binding(
            "enter", "filter_cell", "Filter by it", show=False, id="heatmap.filter", tooltip="Tokens of this expert"
        ),
    ]

    @dataclass
    class CellChosen(Message):
        """Enter on a cell: the person wants its tokens."""

        site: int
        expert: int

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._picture: HeatPicture | None = None
        self._levels: Levels = np.zeros((0, 0), np.uint8)
        self._drawn: Levels = self._levels
        self._high = 0.0
        self._trail_span = (0.0, 1.0)
        self._names: Sequence[str] = ()
        self._grid = plan_grid(0, 0, 20, 1, label=3, stats=False)
        self._head = 1
        self._top = self._left = 0
        self._strips: dict[object, Strip] = {}
        self._cells = HeatCells(self)
        self.cursor = (0, 0)
        self.zoom: int | None = None
        self.pooling: Pooling = "max"
        self.swapped = False
        self.numbers = False
        self.stopped: int | None = None

    # -- what is shown ------------------------------------------------------------------------------------------

    def show(self, picture: HeatPicture) -> None:
        """Draw this picture; nothing is repainted if it looks like the one before."""
        self.renew_ink()
        heat = picture.heat
        # A scale that followed every token would make the whole map flicker: it shrinks only when most is unused.
        keep = self._picture is not None and self._picture.heat.unit == heat.unit and heat.high > self._high * 0.45
        self._high = max(self._high, heat.high) if keep else heat.high
        levels = quantise(heat, -self._high if heat.diverging else 0.0, self._high)
        before = self._picture
        same = (
            before is not None
            and np.array_equal(levels, self._levels)
            and before.title == picture.title
            and before.names == picture.names
            and as_read(before) == as_read(picture)
            and before.cursor_text(*self.cursor) == picture.cursor_text(*self.cursor)
        )
        if before is None or before.heat.diverging != heat.diverging:
            self._strips = {}
            self._cells.forget(diverging=heat.diverging)
        self._picture, self._levels = picture, levels
        self._trail_span = known_span(picture.trail)
        if not same:
            self._replan()

    def move_cursor(self, site: int | None, expert: int | None) -> None:
        """Put the cursor on a site and expert, as far as given, without telling anyone."""
        cursor = (self.cursor[0] if site is None else site, self.cursor[1] if expert is None else expert)
        if cursor != self.cursor:
            self.cursor = cursor
            self._replan()

    def stop_at(self, site: int | None) -> None:
        """Mark the site at which a run stands still."""
        if site != self.stopped:
            self.stopped = site
            self.refresh()

    def toggle(self, what: str) -> None:
        """Flip a display option: ``swapped``, ``numbers`` or ``pooling``."""
        if what == "pooling":
            self.pooling = "mean" if self.pooling == "max" else "max"
        else:
            setattr(self, what, not getattr(self, what))
        self._replan()

    def lines_wanted(self) -> tuple[int, int]:
        """Content lines that show every row: without folding, and with two rows a line."""
        rows = len(self._labels())
        return rows + 2, (-(-rows // 2) if self.ink.shaded else rows) + 2

    def layout_text(self, room: int = 0) -> str:
        """How rows and columns are folded and scrolled, in words; empty if they are not.

        Args:
            room: cells there are; what is longer is said with initials (0: no such limit).
        """
        grid, (rows, columns) = self._grid, self._matrix().shape
        across, down = ("layers", "experts") if self.swapped else ("experts", "layers")
        shown_rows, shown = grid.lines * grid.stacked, grid.columns * grid.fold
        first = self._left * grid.fold
        words, short = [], []
        if grid.fold > 1:
            words.append(f"a cell: {self.pooling} of {grid.fold} {across}")
            short.append(f"{self.pooling} of {grid.fold} a cell")
        if grid.stacked > 1:
            words.append(f"a line: 2 {down}")
            short.append("2 a line")
        for name, start, stop, whole in (
            (down, self._top, self._top + shown_rows, rows),
            (across, first, first + shown, columns),
        ):
            if whole > stop - start:
                words.append(f"{name} {start}–{min(whole, stop) - 1} of {whole}")
                short.append(f"{name[0].upper()}{start}–{min(whole, stop) - 1}/{whole}")
        text = " · ".join(words)
        return text if not room or len(text) <= room else " · ".join(short)

    def shared(self) -> tuple[str, Callable[[], Rows]]:
        """The values shown, unfolded, as rows with a header."""
        picture = self._picture

        def rows() -> Rows:
            if picture is None:
                return
            yield ("site", *range(picture.heat.values.shape[1]))
            for name, values in zip(picture.names, picture.heat.values.tolist()):
                yield (drawable(name), *values)

        return "moetui-heatmap", rows

    # -- actions ------------------------------------------------------------------------------------------------

    def action_move(self, rows: int, columns: int) -> None:
        """Move the cursor by cells as drawn."""
        shape = self._matrix().shape
        if not shape[0] or not shape[1]:
            return
        row, column = self._to_drawn(self.cursor)
        row = max(0, min(shape[0] - 1, row + rows))
        column = max(
            0, min(shape[1] - 1, (column // self._grid.fold + columns) * self._grid.fold if columns else column)
        )
        self._choose(row, column)

    def action_zoom(self, by: int) -> None:
        """Zoom out (1), in (-1), or to fit (0)."""
        if by == 0:
            self.zoom = None
        else:
            now = self.zoom if self.zoom is not None else ZOOMS.index((self._grid.cell, self._grid.fold))
            self.zoom = max(0, min(len(ZOOMS) - 1, now + by))
        self._replan()

    def action_filter_cell(self) -> None:
        """Ask for the tokens that went to the expert under the cursor."""
        if self._picture is not None:
            self.post_message(self.CellChosen(*self.cursor))

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the cell that was clicked."""
        offset = event.get_content_offset(self)
        grid, shape = self._grid, self._matrix().shape
        if offset is None or not shape[0] or not 0 <= offset.y - self._head < grid.lines:
            return
        column = (self._left + (offset.x - grid.label) // grid.cell) * grid.fold
        row = self._top + (offset.y - self._head) * grid.stacked
        if offset.x >= grid.label and row < shape[0] and column < shape[1]:
            self._choose(row, column)

    def on_resize(self) -> None:
        """The layout depends on the room."""
        self._replan()

    def forget_drawn(self) -> None:
        """Drop cached lines."""
        super().forget_drawn()
        self._strips = {}
        self._cells.forget()

    # -- layout -------------------------------------------------------------------------------------------------

    def _choose(self, row: int, column: int) -> None:
        site, expert = (column, row) if self.swapped else (row, column)
        self.cursor = (site, expert)
        self._replan()
        self.post_message(SiteSelected(site, expert))

    def _matrix(self) -> Levels:
        return self._levels.T if self.swapped else self._levels

    def _to_drawn(self, cell: tuple[int, int]) -> tuple[int, int]:
        return (cell[1], cell[0]) if self.swapped else cell

    def _labels(self) -> Sequence[str]:
        if self._picture is None:
            return ()
        if self.swapped:
            return [f"E{expert}" for expert in range(self._levels.shape[1])]
        return [drawable(name) for name in self._picture.names]

    def _replan(self) -> None:
        rows, columns = self._matrix().shape
        width, height = self.room
        if width <= 0 or height <= 0:
            return
        self._head = 1 if height > 2 else 0
        labels = self._names = self._labels()
        label = min(12, max((len(text) for text in labels), default=2)) + 1
        self._grid = plan_grid(
            rows,
            columns,
            width,
            height - self._head - (height > 1),
            label=label,
            stats=not self.swapped,
            zoom=self.zoom,
            stackable=self.ink.shaded,
        )
        row, column = self._to_drawn(self.cursor)
        grid = self._grid
        top = keep_in_view(self._top, row, grid.lines * grid.stacked, rows)
        self._top = top - top % grid.stacked
        if row >= self._top + grid.lines * grid.stacked:
            self._top += grid.stacked
        self._left = keep_in_view(self._left, column // grid.fold, grid.columns, -(-columns // grid.fold))
        shown = self._matrix()[self._top : self._top + grid.lines * grid.stacked]
        diverging = self._picture is not None and self._picture.heat.diverging
        drawn = pool(shown, grid.fold, self.pooling, diverging=diverging)
        self._drawn = drawn[:, self._left : self._left + grid.columns]
        subtitle = self.layout_text(max(1, self.outer_size.width - 6))
        self.border_subtitle = Content(self.ink.words(subtitle)) if subtitle else None
        self.border_title = Content(self.ink.words(self._picture.title if self._picture is not None else "routing"))
        self.refresh()

    # -- drawing ------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """One line: header, rows, or the status with the legend."""
        width, height = self.room
        plain = self.pen()
        if self._picture is None or not self._levels.size:
            text = "no routing seen yet" if y == min(1, height - 1) else ""
            return Line().space(1, plain).add(text, self.pen("dim")).strip(width, plain)
        if y < self._head:
            return self._header(width)
        if y == height - 1 and height > 1:
            return self._status(width)
        row = self._top + (y - self._head) * self._grid.stacked
        if row - self._top >= len(self._drawn):
            return Strip.blank(width, plain)
        return self._row(row, width)

    def _header(self, width: int) -> Strip:
        grid, head = self._grid, self.pen("head")
        end = grid.label + grid.columns * grid.cell
        before, text, after = number_columns(grid, self._left, self._matrix().shape[1], self._to_drawn(self.cursor)[1])
        line = Line().add(before, head).add(text, self.pen("accent")).add(after, head)
        if grid.stats:
            assert self._picture is not None
            change = "" if self._picture.loads_before is None else self.ink.glyphs.delta
            line.to(end, head).add(fit(f"{change}H", 6, "right") + fit(f"{change}fair", 6, "right"), head)
        return line.strip(width, head)

    def _row(self, row: int, width: int) -> Strip:
        grid = self._grid
        picture = self._picture
        assert picture is not None
        drawn = self._drawn[row - self._top : row - self._top + grid.stacked]
        cursor_row, cursor_column = self._to_drawn(self.cursor)
        here = row <= cursor_row < row + grid.stacked
        cursor = cursor_column // grid.fold - self._left if here else -1
        label = self._names[row]
        stopped = not self.swapped and self.stopped is not None and row <= self.stopped < row + grid.stacked
        extras = ("", "", "")
        texts: tuple[str, ...] = ()
        if grid.stats:
            extras = beside_row(picture, row, grid.stacked, self.ink.glyphs, self._trail_span if grid.spark else None)
        if self.numbers and grid.cell >= 3 and grid.stacked == 1:
            columns = range(self._left, min(self._left + grid.columns, self._matrix().shape[1]))
            zero = self.ink.glyphs.zero
            texts = in_cells(picture, self._matrix()[row], row, columns, swapped=self.swapped, zero=zero)
        key = (
            drawn.tobytes(),
            cursor,
            cursor_row - row if here else -1,
            label,
            stopped,
            extras,
            texts,
            grid,
            width,
            self.has_focus,
        )
        strip = self._strips.get(key)
        if strip is not None:
            return strip
        head = self.pen("accent" if here else "head")
        line = Line().add(fit(label, grid.label - 1), head)
        line.add(self.ink.glyphs.stopped if stopped else " ", self.pen("warn") if stopped else head)
        if grid.stacked == 2 and len(drawn) == 2:
            self._cells.stacked(line, drawn, grid.cell, cursor, cursor_row - row)
        else:
            self._cells.plain(line, drawn[0], grid.cell, cursor, texts)
        if grid.stats:
            entropy, fair, spark = extras
            line.add(fit(entropy, 6, "right") + fit(fair, 6, "right"), self.pen("strong" if here else ""))
            line.add(" " + spark if spark else "", self.pen("dim"))
        strip = line.strip(width, self.pen())
        if len(self._strips) > 512:
            self._strips.clear()
        self._strips[key] = strip
        return strip

    def _status(self, width: int) -> Strip:
        picture = self._picture
        assert picture is not None
        plain = self.pen()
        text = self.ink.words(picture.cursor_text(*self.cursor))
        legend = self._cells.legend(self._high, picture.heat.unit)
        if cell_len(text) >= width - legend.width:
            legend = self._cells.legend(self._high, picture.heat.unit, brief=True)
        room = width - legend.width - 1
        line = Line().add(fit(text, max(0, room), "left", self.ink.glyphs.ellipsis), plain)
        line.to(width - legend.width, plain).extend(legend)
        return line.strip(width, plain)
