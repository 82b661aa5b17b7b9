"""The console's log: what was typed and what came of it, bounded, and drawn anew for another width."""

from __future__ import annotations

from collections import deque

from rich.console import RenderableType
from textual import events
from textual.widgets import RichLog

_MOST_LINES = 5000
_MOST_ENTRIES = 1000


class ConsoleLog(RichLog):
    """Keeps its entries, so that tables fit after a change of width, and its end in sight when it gets shorter."""

    can_focus = False  # the input has the keys; page up and down scroll

    def __init__(self) -> None:
        super().__init__(
            id="console-log", max_lines=_MOST_LINES, wrap=True, markup=False, highlight=False, min_width=20
        )
        self._entries: deque[RenderableType] = deque(maxlen=_MOST_ENTRIES)
        self._width = 0
        self._late = False
        self._at_end = True

    def put(self, entry: RenderableType, *, follow: bool = True) -> None:
        """Append an entry, and show the log's end; without ``follow`` only where that was shown before."""
        self._entries.append(entry)
        self._at_end = self._at_end or follow
        if self._width and not self.scrollable_content_region.width:  # hidden: there is no width to fit it into
            self._late = True
        else:
            self.write(entry, scroll_end=self._at_end)

    def empty(self) -> None:
        """Forget all entries."""
        self._entries.clear()
        self.clear()

    def scroll_pages(self, pages: int) -> None:
        """Scroll by so many pages; up is negative."""
        target = min(max(0, self.scroll_offset.y + pages * max(1, self.size.height - 1)), self.max_scroll_y)
        self._at_end = target >= self.max_scroll_y
        self.scroll_to(y=target, animate=False)

    def on_resize(self, event: events.Resize) -> None:
        """Draw all entries anew where the width is another; stay at the end."""
        if self._width and event.size.width and (self._late or event.size.width != self._width):
            self._draw_anew()
        self._width = event.size.width or self._width
        if self._at_end:
            self.scroll_end(animate=False, x_axis=False)

    def on_show(self) -> None:
        """Draw what came while it was hidden."""
        if self._late and self.scrollable_content_region.width:
            self._draw_anew()
            self.scroll_end(animate=False, x_axis=False)

    def _draw_anew(self) -> None:
        self._late = False
        self.clear()
        for entry in self._entries:
            self.write(entry, scroll_end=False)

    def on_mouse_scroll_up(self) -> None:
        """The wheel leaves the end."""
        self._at_end = False

    def on_mouse_scroll_down(self) -> None:
        """The wheel may come back to it."""
        self._at_end = self.scroll_offset.y + 3 >= self.max_scroll_y
