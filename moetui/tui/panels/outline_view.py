"""The tree on screen: one strip a line, made only for the lines in view."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from moetui.tui.cells import Line, fit
from moetui.tui.ink import colored, ink_of
from moetui.tui.lines import styles_of
from moetui.tui.panels.outline import Entry, Outline, count_text
from moetui.tui.widgets.sharing import Rows, Shared

_BAR, _FULL = 8, 4.0  # cells of a bar, and how many times the even share fills it


class OutlineView(ScrollView, can_focus=True):
    """The module tree with a cursor; experts carry their share of the tokens as a bar."""

    HELP_TITLE = "module tree"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("home", "move(-1000000)", "First line", show=False),
        Binding("end", "move(1000000)", "Last line", show=False),
        Binding("right,l", "open", "open", tooltip="Open this node, or go to its first child"),
        Binding("left,h", "shut", "close", tooltip="Close this node, or go to its parent"),
        Binding("enter", "flip", "open or close", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "outline--cursor",
        "outline--dim",
        "outline--number",
        "outline--router",
        "outline--stopped",
    }
    DEFAULT_CSS = """
    OutlineView {
        overflow-x: hidden;
        & > .outline--stopped { color: $warning; }
        & > .outline--cursor { background: $block-cursor-blurred-background; }
        &:focus > .outline--cursor {
            background: $block-cursor-background;
            color: $block-cursor-foreground;
            text-style: $block-cursor-text-style;
        }
        & > .outline--dim { color: $foreground-muted; }
        & > .outline--number { color: $foreground-muted; }
        & > .outline--router { color: $accent; }
        &:nocolor > .outline--cursor { text-style: bold; }
        &:nocolor:focus > .outline--cursor { text-style: reverse; }
    }
    """

    class Moved(Message):
        """The cursor stands on another line."""

        def __init__(self, entry: Entry) -> None:
            super().__init__()
            self.entry = entry

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._outline: Outline | None = None
        self._open: set[str] = {""}
        self._rows: list[tuple[Entry, int]] = []
        self._cursor = 0
        self._stopped: int | None = None
        self._stopped_row = -1
        self._usage: NDArray[np.float64] | None = None

    @property
    def entry(self) -> Entry | None:
        """The line under the cursor."""
        return self._rows[self._cursor][0] if self._rows else None

    def shared(self) -> Shared | None:
        """The lines of the tree as it is opened, with a header."""
        lines, usage = tuple(self._rows), self._usage

        def rows() -> Rows:
            yield ("depth", "path", "name", "what", "parameters", "bytes", "share_of_tokens")
            for entry, depth in lines:
                share = math.nan
                if usage is not None and entry.site is not None and entry.expert is not None:
                    share = float(usage[entry.site, entry.expert])
                yield (depth, entry.path, entry.label, entry.note, entry.parameters, entry.nbytes, share)

        return ("moetui-modules", rows) if lines else None

    def load(self, outline: Outline) -> None:
        """Show another model's tree, opened down to the layers."""
        self._outline = outline
        self._open = {""}
        at: Entry | None = outline.root
        # A chain of lone children (a wrapper in a wrapper) says nothing: open it, down to the first layers.
        while at is not None:
            below = outline.children(at)
            self._open.add(at.path)
            inner = [entry for entry in below if entry.parent and entry.expert is None]
            at = next((e for e in inner if e.label in ("model", "layers", "decoder", "transformer", "h")), None)
        self._rebuild()

    def show_usage(self, usage: NDArray[np.float64] | None) -> None:
        """Share of the tokens that each expert got, ``[S, E]``; None while nothing is known."""
        if usage is not None or self._usage is not None:
            self._usage = usage
            if any(entry.expert is not None for entry, _ in self._rows):
                self.refresh()

    def stop_at(self, site: int | None) -> None:
        """Mark the router at which a run stands still, or what hides it."""
        if site != self._stopped:
            self._stopped = site
            self._find_stop()
            self.refresh()

    def _find_stop(self) -> None:
        self._stopped_row = -1
        if self._stopped is None or self._outline is None:
            return
        path = self._outline.info.sites[self._stopped].router_path
        for row, (entry, _) in enumerate(self._rows):
            if entry.expert is None and (path + ".").startswith(entry.path + "." if entry.path else ""):
                self._stopped_row = row

    def reveal(self, site: int, expert: int | None) -> None:
        """Move the cursor to a router or an expert, opening what hides it; posts nothing."""
        if self._outline is None:
            return
        here = self.entry
        if here is not None and here.site == site and here.expert == expert and here.role in ("router", "experts"):
            return
        info_site = self._outline.info.sites[site]
        self._open.update(self._outline.ancestors(info_site, expert))
        self._rebuild()
        for row, (entry, _) in enumerate(self._rows):
            if entry.site == site and entry.expert == expert and (expert is not None or entry.role == "router"):
                self._cursor = row
                break
        self._follow()

    def _rebuild(self) -> None:
        if self._outline is None:
            return
        rows: list[tuple[Entry, int]] = []
        waiting = [(self._outline.root, 0)]
        while waiting:
            entry, depth = waiting.pop()
            rows.append((entry, depth))
            if entry.path in self._open and entry.parent:
                waiting.extend((child, depth + 1) for child in reversed(self._outline.children(entry)))
        self._rows = rows
        self._find_stop()
        self._cursor = min(self._cursor, len(rows) - 1)
        self.virtual_size = Size(self.size.width, len(rows))
        self.refresh()

    def _follow(self) -> None:
        top = int(self.scroll_y)
        height = max(1, self.size.height)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False)
        elif self._cursor >= top + height:
            self.scroll_to(y=self._cursor - height + 1, animate=False)
        self.refresh()

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        if self._rows:
            self._go(min(max(self._cursor + by, 0), len(self._rows) - 1))

    def action_page(self, by: int) -> None:
        """Move the cursor by a screenful."""
        self.action_move(by * max(1, self.size.height - 1))

    def action_open(self) -> None:
        """Open the node, or go into it."""
        entry = self.entry
        if entry is None or not entry.parent:
            return
        if entry.path not in self._open:
            self._open.add(entry.path)
            self._rebuild()
        else:
            self.action_move(1)

    def action_shut(self) -> None:
        """Close the node, or go to its parent."""
        entry = self.entry
        if entry is None:
            return
        if entry.parent and entry.path in self._open:
            self._open.discard(entry.path)
            self._rebuild()
            return
        depth = self._rows[self._cursor][1]
        for row in range(self._cursor - 1, -1, -1):
            if self._rows[row][1] < depth:
                self._go(row)
                return

    def action_flip(self) -> None:
        """Open or close the node."""
        entry = self.entry
        if entry is not None and entry.parent:
            self._open.symmetric_difference_update({entry.path})
            self._rebuild()

    def _go(self, row: int) -> None:
        if row != self._cursor:
            self._cursor = row
            self._follow()
            self.post_message(self.Moved(self._rows[row][0]))

    def on_resize(self) -> None:
        """Keep the virtual size as wide as the widget."""
        self.virtual_size = Size(self.size.width, len(self._rows))
        self._follow()

    def on_click(self, event: events.Click) -> None:
        """Move to the line clicked; a second click opens or closes it."""
        row = int(self.scroll_y) + event.y
        if 0 <= row < len(self._rows):
            if row == self._cursor or (self._rows[row][0].parent and event.x <= 2 * self._rows[row][1] + 2):
                self._go(row)
                self.action_flip()
            else:
                self._go(row)

    def render_line(self, y: int) -> Strip:
        """One line of the tree."""
        width = self.scrollable_content_region.width
        row = int(self.scroll_y) + y
        base = self.rich_style
        if row >= len(self._rows):
            return Strip.blank(width, base)
        entry, depth = self._rows[row]
        here = row == self._cursor
        over = self.get_component_rich_style("outline--cursor", partial=True) if here else Style()
        style = styles_of(self, "outline")
        plain = base + over
        quiet = base + style("dim") + over
        ink = ink_of(self)
        marks = ("+ ", "- ") if ink.ascii_only else ("▸ ", "▾ ")
        line = Line()
        mark = (marks[1] if entry.path in self._open else marks[0]) if entry.parent else "  "
        if row == self._stopped_row:
            line.add("  " * depth, quiet).add(ink.glyphs.stopped + " ", base + style("stopped") + over)
        else:
            line.add("  " * depth + mark, quiet)
        label = plain
        if entry.expert is not None:
            label = colored(plain, ink.expert(entry.expert)) + Style(bold=True)
        elif entry.role == "router":
            label = base + style("router") + over
        tail = self._tail(entry)
        room = max(4, width - len(tail) - line.width - 1)
        line.add(fit(entry.label, min(room, len(entry.label))), label)
        if entry.expert is not None:
            self._bar(line, entry, colored(plain, ink.expert(entry.expert)), quiet, ink.glyphs.bar)
        elif entry.note and width - len(tail) - line.width > 6:
            line.add("  " + fit(entry.note, min(len(entry.note), width - len(tail) - line.width - 3)), quiet)
        line.to(width - len(tail), plain)
        line.add(tail, base + style("number") + over)
        return line.strip(width, plain)

    def _tail(self, entry: Entry) -> str:
        return f" {count_text(entry.parameters)} " if entry.parameters else " "

    def _bar(self, line: Line, entry: Entry, style: Style, quiet: Style, bar: str) -> None:
        usage = self._usage
        if usage is None or entry.site is None or entry.expert is None:
            return
        share = float(usage[entry.site, entry.expert])
        if np.isnan(share):
            return
        line.add("  " if entry.expert > 9 else "   ", style)
        assert self._outline is not None
        site = self._outline.info.sites[entry.site]
        even = site.top_k / site.num_experts
        length = min(_BAR, round(share / even * _BAR / _FULL))
        line.add(bar * length, style).add(" " * (_BAR - length), quiet)
        line.add(f" {share:>5.1%}", quiet)
