"""The token table: one row a token, drawn by the line, so that a hundred thousand rows cost what thirty do."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from textual.content import Content
from textual.geometry import Size
from textual.strip import Strip

from moetui.routing.timeline import TimelineView
from moetui.tui.cells import Line
from moetui.tui.keys import key_now
from moetui.tui.messages import TokenSelected
from moetui.tui.widgets.context import Related
from moetui.tui.widgets.pens import PEN_CSS, Pens
from moetui.tui.widgets.sharing import Rows
from moetui.tui.widgets.thumb import thumb
from moetui.tui.widgets.token_columns import TablePlan, plan_columns
from moetui.tui.widgets.token_fall import with_bar
from moetui.tui.widgets.token_header import draw_header
from moetui.tui.widgets.token_keys import TokenKeys
from moetui.tui.widgets.token_painter import RowFacts, RowLook, RowPainter, row_facts, token_rows_for_sharing
from moetui.tui.widgets.token_rows import SORT_KEYS, Sort, TokenQuery, TokenRows
from moetui.tui.widgets.token_timing import Span, Timings, span_of


class TokenTable(TokenKeys, can_focus=True):
    """Rows of a view; its cursor is the selected token, and it follows the newest until told otherwise."""

    DEFAULT_CSS = "TokenTable { height: 1fr; " + PEN_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = Pens.COMPONENT_CLASSES

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.rows = TokenRows()
        self.sort = Sort()
        self.following = True
        self.token: int | None = None
        self.site = 0
        self.marks: set[int] = set()
        self.related: Related | None = None
        self.asking = ""
        self.stopped: int | None = None
        self._view: TimelineView | None = None
        self._top = 0
        self._row_cache: dict[tuple[int, bool], Line] = {}
        self._facts: dict[int, RowFacts] = {}
        self._painter = RowPainter(self)
        self._strips: dict[int, Strip] = {}
        self._timings = Timings()
        self._plan: TablePlan | None = None
        self._span = Span()
        self._text_width = 8
        self._placed: Size | None = None

    # -- content ------------------------------------------------------------------------------------------------

    def show(self, view: TimelineView) -> bool:
        """Draw this view; False while a filter has not seen all of it yet."""
        self.renew_ink()
        if self._view is None or self._view.sites is not view.sites or view.end < self._view.end:
            self._row_cache, self._facts, self._timings = {}, {}, Timings()
        self._view = view
        self._timings.steps = view.steps()
        done = self.rows.update(view, self.sort)
        if self.following or self.token is None:
            self.token = self._newest()
        elif self.token < view.first and self.total_rows:
            self.token = int(self.rows.numbers[0])
        self._place()
        return done

    def filter_by(self, query: TokenQuery | None, *, hide: bool) -> bool:
        """Show only matching tokens (``hide``), or all with the matches lit; False while more is to be looked at."""
        self.rows.filter_by(query, hide=hide)
        self._row_cache = {}
        return self.show(self._view) if self._view is not None else True

    def select(self, token: int | None, site: int | None) -> None:
        """Move the cursor without telling anyone; ``token`` None follows the newest."""
        self.following = token is None
        self.token = self._newest() if token is None else token
        if site is not None and site != self.site:
            self.site = site
            if self.sort.key == "layers":
                self.set_sort("layers", self.sort.descending)
        self._place()

    def relate(self, related: Related | None, asking: str = "") -> None:
        """Show shares of tokens in one token beside them, or no more; ``asking`` says what is being worked out."""
        if related is not self.related or asking != self.asking:
            self.related, self.asking = related, asking
            self._drop_rows()

    def stop_at(self, token: int | None) -> None:
        """Mark the token at which a run stands still."""
        if token != self.stopped:
            self.stopped = token
            self._drop_rows()

    def set_sort(self, key: str, descending: bool) -> None:
        """Order the rows by a column."""
        assert key in SORT_KEYS
        self.sort = Sort(key, descending, self.site)
        if self._view is not None:
            self.show(self._view)

    def follow(self, on: bool) -> None:
        """Follow the newest token, or stay."""
        self.following = on
        if on:
            self.token = self._newest()
        self._place()
        self.post_message(TokenSelected(None if on else self.token))

    def toggle_mark(self) -> int | None:
        """Mark or unmark the cursor's token; return it."""
        if self.token is None:
            return None
        self.marks ^= {self.token}
        self._drop_rows()
        return self.token

    def next_mark(self) -> int | None:
        """The next marked token after the cursor's, wrapping around; None without marks."""
        marks = sorted(mark for mark in self.marks if self.rows.row_of(mark) is not None)
        if not marks:
            return None
        at = -1 if self.token is None else self.token
        return next((mark for mark in marks if mark > at), marks[0])

    def placed_in(self, size: Size) -> bool:
        """Whether the rows were placed for a widget of this size, and it has it."""
        return self.outer_size == size and self._placed == self.room

    def title(self) -> str:
        """What the frame says: how many, and what follows what."""
        order = "" if self.sort.key == "index" and not self.sort.descending else f" · by {self.sort.key}"
        if not self.total_rows:
            return f"tokens{order}"
        key = key_now(self.app, "network.follow", "f")
        follow = f"following · {key} stops" if self.following else f"token {self.token} · {key} follows"
        related = self.asking or (self.related.title if self.related is not None else "")
        return " · ".join(filter(None, (f"tokens{order}", related, follow)))

    def shared(self) -> tuple[str, Callable[[], Rows]]:
        """All rows in the order shown, with a header."""
        view, numbers, related = self._view, self.rows.numbers, self.related
        return "moetui-tokens", lambda: iter(()) if view is None else token_rows_for_sharing(view, numbers, related)

    def on_resize(self) -> None:
        """The columns depend on the room."""
        self._place()

    def notify_style_update(self) -> None:
        """A frame that comes or goes leaves other room for rows, without a new size."""
        super().notify_style_update()
        if self._placed is not None and self._placed != self.room:
            self._place()

    def forget_drawn(self) -> None:
        """Drop cached rows."""
        super().forget_drawn()
        self._row_cache, self._strips = {}, {}

    # -- state --------------------------------------------------------------------------------------------------

    def _newest(self) -> int | None:
        numbers = self.rows.numbers
        if not len(numbers):
            return None
        if self.sort.key == "index":
            return int(numbers[0] if self.sort.descending else numbers[-1])
        return int(numbers.max())

    def _place(self) -> None:
        """Keep the cursor in view, plan the columns, repaint."""
        self._placed = self.room
        row = self._row()
        if row is not None:
            if row < self._top:
                self._top = row
            elif row >= self._top + self.page:
                self._top = row - self.page + 1
        self._top = max(0, min(self._top, self.total_rows - self.page))
        self._repaint()

    def _drop_rows(self) -> None:
        self._row_cache = {}
        self._repaint()

    def _repaint(self) -> None:
        view = self._view
        if view is None or self.room.width <= 0:
            return
        shown = self.rows.numbers[self._top : self._top + self.page]
        self._measure(view, shown)
        plan = plan_columns(
            self.room.width - 1,
            len(view.sites),
            max(0, view.end - 1),
            branches=self._many_branches(),
            foldable=self.ink.shaded,
            site=self.site,
            text=self._text_width,
            related=self.related.heading if self.related is not None else "",
        )
        if plan != self._plan:
            self._plan, self._row_cache = plan, {}
        self._strips = {}
        self.border_title = Content(self.ink.words(self.title()))
        self.refresh()

    def _measure(self, view: TimelineView, shown: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
        found = [(token, timing) for token in shown.tolist() if (timing := self._timings.of(view, token)) is not None]
        self._text_width = max([self._text_width, *(timing.text for _, timing in found)])
        whole = self.sort.key == "index" and len(self.rows.numbers) == self.rows.total
        self._span = span_of(found, cut_pauses=whole)

    def _many_branches(self) -> bool:
        steps = self._timings.steps
        return steps is not None and len(steps.branch) > 0 and bool((steps.branch != steps.branch[0]).any())

    # -- drawing ------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """One line: the header, or a row."""
        width = self.room.width
        view, plan = self._view, self._plan
        plain = self.pen()
        if view is None or plan is None or not self.total_rows:
            text = ("no token matches" if self.rows.filtered else "no tokens yet") if y == min(1, self.page) else ""
            return Line().space(2, plain).add(text, self.pen("dim")).strip(width, plain)
        if y == 0:
            return draw_header(self, view, plan, self.sort, self.site, self._span, width)
        row = self._top + y - 1
        if row >= self.total_rows:
            return Strip.blank(width, plain)
        strip = self._strips.get(y)
        if strip is None:
            strip = self._strips[y] = self._draw_row(view, plan, int(self.rows.numbers[row]), y, width)
        return strip

    def _draw_row(self, view: TimelineView, plan: TablePlan, token: int, y: int, width: int) -> Strip:
        selected = token == self.token
        timing = self._timings.of(view, token)
        if timing is None:
            return Strip.blank(width, self.pen())
        left, place = self._left_part(view, plan, token, selected), self._span.place(token, timing)
        cell = thumb(y - 1, self._top, self.page, self.total_rows, ascii_only=self.ink.ascii_only)
        return with_bar(self, left, plan.waterfall, place, timing, cell, width, selected=selected)

    def _facts_of(self, view: TimelineView, token: int) -> RowFacts:
        """A token's facts, looked up with those of the rows that stand with it, as they will be asked for too."""
        found = self._facts.get(token)
        if found is None:
            shown = self.rows.numbers[self._top : self._top + self.page]
            near = shown[(shown >= token) & (shown < token + self.page)]
            self._facts = row_facts(view, token, int(near.max()) + 1 if near.size else token + 1)
            found = self._facts[token]
        return found

    def _left_part(self, view: TimelineView, plan: TablePlan, token: int, selected: bool) -> Line:
        key = (token, selected)
        line = self._row_cache.get(key)
        if line is None:
            if len(self._row_cache) > 2048:
                self._row_cache.clear()
            marked, lit = token in self.marks, self.rows.is_lit(token)
            look = RowLook(selected, marked, lit, token == self.stopped, self.related)
            line = self._painter.row(view, plan, token, self._facts_of(view, token), look)
            if plan.waterfall.width:
                line.to(plan.waterfall.start, self.row_pen("", selected))
                line.add(self.ink.glyphs.rule, self.row_pen("dim", selected))
            self._row_cache[key] = line
        return line
