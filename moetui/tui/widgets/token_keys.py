"""What keys and the mouse do in the token table: move its cursor, scroll, sort, select a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from moetui.routing.timeline import TimelineView
from moetui.tui.messages import SiteSelected, TokenSelected
from moetui.tui.widgets.pens import Pens
from moetui.tui.widgets.token_columns import TablePlan
from moetui.tui.widgets.token_rows import Sort, TokenRows


class TokenKeys(Pens):
    """Bindings and their actions; the table itself says what its rows are and draws them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="tokens.up", tooltip="The row above"),
        Binding("down,j", "move(1)", "Down", show=False, id="tokens.down", tooltip="The row below"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="tokens.page_up", tooltip="A screen up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="tokens.page_down", tooltip="A screen down"),
        Binding("home", "edge(-1)", "First", show=False, id="tokens.first", tooltip="The first row"),
        Binding(
            "end",
            "edge(1)",
            "Last",
            show=False,
            id="tokens.last",
            tooltip="The last row; the newest token is followed again",
        ),
        Binding(
            "left,h", "layer(-1)", "Layer before", show=False, id="tokens.layer_before", tooltip="The layer before"
        ),
        Binding("right,l", "layer(1)", "Layer after", show=False, id="tokens.layer_after", tooltip="The layer after"),
        Binding("enter", "open", "Detail", show=False, id="tokens.open", tooltip="Open or close the token's detail"),
    ]

    @dataclass
    class Opened(Message):
        """Enter on a row."""

        token: int

    rows: TokenRows
    sort: Sort
    following: bool
    token: int | None
    site: int
    _view: TimelineView | None
    _top: int
    _plan: TablePlan | None

    @property
    def total_rows(self) -> int:
        """Rows in the table."""
        return len(self.rows.numbers)

    @property
    def page(self) -> int:
        """Rows that fit on the screen."""
        return max(1, self.room.height - 1)

    def set_sort(self, key: str, descending: bool) -> None:
        """Order the rows by a column."""
        raise NotImplementedError

    def follow(self, on: bool) -> None:
        """Follow the newest token, or stay."""
        raise NotImplementedError

    def _place(self) -> None:
        raise NotImplementedError

    def _repaint(self) -> None:
        raise NotImplementedError

    def action_move(self, by: int) -> None:
        """Move the cursor by rows."""
        row = self._row()
        self._go(by - 1 if row is None and by > 0 else by if row is None else row + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by screens."""
        self._go((self._row() or 0) + by * max(1, self.page - 1))

    def action_edge(self, end: int) -> None:
        """First row, or last row; at the newest token following begins again."""
        if end > 0 and self.sort.key == "index" and not self.sort.descending:
            self.follow(True)
        else:
            self._go(0 if end < 0 else self.total_rows - 1)

    def action_layer(self, by: int) -> None:
        """Select the layer before or after."""
        sites = len(self._view.sites) if self._view is not None else 0
        if sites:
            self.post_message(SiteSelected((self.site + by) % sites))

    def action_open(self) -> None:
        """Ask for the detail of the row."""
        if self.token is not None:
            self.post_message(self.Opened(self.token))

    def go_to(self, token: int) -> None:
        """Select a token by number, as if a person had moved there."""
        self.following = False
        self.token = token
        self._place()
        self.post_message(TokenSelected(token))

    def on_click(self, event: events.Click) -> None:
        """Select a row; on the header, sort."""
        offset = event.get_content_offset(self)
        if offset is None or self._plan is None:
            return
        if offset.y == 0:
            key = self._plan.at(offset.x)
            if key is not None:
                self.set_sort(key, not self.sort.descending if key == self.sort.key else key != "index")
            return
        row = self._top + offset.y - 1
        if row < self.total_rows:
            self._go(row)
            strip = self._plan.strip
            if strip.start <= offset.x < strip.start + strip.width:
                self.post_message(SiteSelected(self._plan.strip_from + (offset.x - strip.start) * self._plan.fold))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll without moving the cursor."""
        self._scroll(3)
        event.stop()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll without moving the cursor."""
        self._scroll(-3)
        event.stop()

    def _row(self) -> int | None:
        return None if self.token is None else self.rows.row_of(self.token)

    def _go(self, row: int) -> None:
        if not self.total_rows:
            return
        self.go_to(int(self.rows.numbers[max(0, min(self.total_rows - 1, row))]))

    def _scroll(self, by: int) -> None:
        if self.following and by < 0:
            self.following = False
            self.post_message(TokenSelected(self.token))
        self._top = max(0, min(self.total_rows - self.page, self._top + by))
        self._repaint()
