"""A framed part of a tab that scrolls, has the focus like any other, and hands on what it shows."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text
from textual.containers import VerticalScroll
from textual.widgets import Static

from moetui.tui.widgets.sharing import Shared


class Box(VerticalScroll):
    """What is inside draws itself; whoever fills it says with ``offer`` what can be taken along."""

    HELP_TITLE = "this part"
    _offered: Shared | None = None

    @property
    def room(self) -> int:
        """Cells of a line, whether or not a scroll bar is there."""
        return max(0, self.content_region.width - self.styles.scrollbar_size_vertical)

    def offer(self, shared: Shared) -> None:
        """Hand this on from now on."""
        self._offered = shared

    def shared(self) -> Shared | None:
        """What was offered last."""
        return self._offered


class Facts(Static):
    """Text that is said again and again: drawn only if it is another, laid out only if it takes other room."""

    _said: Text | None = None
    _shape = (0, 0)

    def say(self, text: Text) -> None:
        """Show this."""
        if text == self._said:
            return
        lines = text.plain.split("\n")
        shape = (len(lines), max(cell_len(line) for line in lines))
        self.update(text, layout=shape != self._shape)
        self._said, self._shape = text, shape
