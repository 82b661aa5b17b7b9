"""A list of rows under a header, drawn by the line, with a cursor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from moetui.tui.cells import Line
from moetui.tui.widgets.pens import PEN_CSS, Pens
from moetui.tui.widgets.thumb import thumb


class RowList(Pens, can_focus=True):
    """Subclasses say how many rows there are and draw them; only those in view are drawn."""

    DEFAULT_CSS = "RowList { height: 1fr; " + PEN_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = Pens.COMPONENT_CLASSES
    EMPTY = "none"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False, tooltip="The row above"),
        Binding("down,j", "move(1)", "down", show=False, tooltip="The row below"),
        Binding("pageup", "page(-1)", "page up", show=False, tooltip="A screen up"),
        Binding("pagedown", "page(1)", "page down", show=False, tooltip="A screen down"),
        Binding("home", "edge(-1)", "first", show=False, tooltip="The first row"),
        Binding("end", "edge(1)", "last", show=False, tooltip="The last row"),
    ]

    @dataclass
    class Moved(Message):
        """A person put the cursor on a row."""

        rows: RowList
        row: int

        @property
        def control(self) -> RowList:
            """The list, for selectors."""
            return self.rows

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.cursor = 0
        self._top = 0

    @property
    def total(self) -> int:
        """Rows in the list."""
        return 0

    @property
    def empty(self) -> str:
        """What is said where there are no rows."""
        return self.EMPTY

    @property
    def page(self) -> int:
        """Rows that fit."""
        return max(1, self.room.height - 1)

    def header(self, width: int) -> Line:
        """The line above the rows."""
        return Line()

    def draw_row(self, row: int, width: int, *, selected: bool) -> Line:
        """A row, up to ``width`` cells."""
        raise NotImplementedError

    def move_cursor(self, row: int) -> None:
        """Put the cursor on a row and bring it into view, without telling anyone."""
        self.cursor = max(0, min(self.total - 1, row))
        margin = min(2, self.page // 3)  # what follows is of interest
        if self.cursor - margin < self._top:
            self._top = self.cursor - margin
        elif self.cursor + margin >= self._top + self.page:
            self._top = self.cursor + margin - self.page + 1
        self._clamp()

    def action_move(self, by: int) -> None:
        """Move the cursor by rows."""
        self._go(self.cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by screens."""
        self._go(self.cursor + by * max(1, self.page - 1))

    def action_edge(self, end: int) -> None:
        """To the first row, or the last."""
        self._go(0 if end < 0 else self.total - 1)

    def on_click(self, event: events.Click) -> None:
        """Select a row."""
        offset = event.get_content_offset(self)
        if offset is not None and 0 < offset.y <= self.total - self._top:
            self._go(self._top + offset.y - 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll without moving the cursor."""
        event.stop()
        self._top += 3
        self._clamp()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll without moving the cursor."""
        event.stop()
        self._top -= 3
        self._clamp()

    def on_resize(self) -> None:
        """Keep the cursor in view."""
        self.move_cursor(self.cursor)

    def render_line(self, y: int) -> Strip:
        """The header or a row, and the scroll bar's cell."""
        width, plain = self.room.width, self.pen()
        if y == 0:
            return self.header(width - 1).strip(width, self.pen("head"))
        row = self._top + y - 1
        if row >= self.total:
            line = Line().space(1, plain)
            return (line.add(self.empty, self.pen("dim")) if not self.total and y == 1 else line).strip(width, plain)
        selected = row == self.cursor
        line = self.draw_row(row, width - 1, selected=selected).clip(width - 1)
        line.to(width - 1, self.row_pen("", selected))
        cell = thumb(y - 1, self._top, self.page, self.total, ascii_only=self.ink.ascii_only)
        return line.add(cell, self.pen("head")).strip(width, plain)

    def _go(self, row: int) -> None:
        if self.total:
            self.move_cursor(row)
            self.post_message(self.Moved(self, self.cursor))

    def _clamp(self) -> None:
        self._top = max(0, min(self._top, self.total - self.page))
        self.refresh()
