"""The words that the one being typed could become, as a list over the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from moetui.routing import drawable
from moetui.tui.cells import Line, fit
from moetui.tui.ink import ink_of
from moetui.tui.lines import styles_of

_MOST_ROWS, _LEAST_WIDTH, _MOST_WIDTH = 8, 8, 48


class WordList(Widget):
    """Up to eight words, more by scrolling; the chosen one is marked."""

    can_focus = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"words--here", "words--dim"}
    DEFAULT_CSS = """
    WordList {
        layer: above; dock: bottom; display: none; height: 1; background: $panel;
        & > .words--here {
            color: $block-cursor-foreground; background: $block-cursor-background;
            text-style: $block-cursor-text-style;
        }
        & > .words--dim { color: $foreground-muted; }
        &:ansi { text-style: none; background: ansi_default; }
    }
    """

    class Picked(Message):
        """A word was clicked."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self) -> None:
        super().__init__(id="console-words")
        self._words: tuple[str, ...] = ()
        self._chosen: int | None = None
        self._top = 0

    def show(self, words: Sequence[str], chosen: int | None, x: int, above: int) -> None:
        """Show words.

        Args:
            words: none hides the list.
            chosen: number of the marked one.
            x: column of what they would replace.
            above: rows that lie below the list.
        """
        self.display = bool(words)
        if not words:
            self._words, self._top = (), 0
            return
        if tuple(words) != self._words:
            self._words, self._top = tuple(words), 0
        self._chosen = chosen
        space = max(1, self.app.size.height if self.parent is None else self.parent.size.height - above)  # type: ignore[attr-defined]
        rows = min(_MOST_ROWS, len(words), space)
        if chosen is not None:
            self._top = min(max(self._top, chosen - rows + 1), chosen)
        widest = max(cell_len(drawable(word)) for word in words)
        width = min(max(widest, _LEAST_WIDTH), _MOST_WIDTH) + 2 + len(self._count(rows))
        room = self.app.size.width
        self.styles.width, self.styles.height = width, rows
        self.styles.offset = (max(0, min(x - 1, room - width)), -above)
        self.refresh()

    def _count(self, rows: int) -> str:
        return f" {len(self._words)} " if len(self._words) > rows else ""

    def render_line(self, y: int) -> Strip:
        """A word; how many there are behind the last row."""
        style, base, width = styles_of(self, "words"), self.rich_style, self.size.width
        number = self._top + y
        if number >= len(self._words):
            return Strip.blank(width, base)
        pen = base + style("here") if number == self._chosen else base
        count = self._count(self.size.height) if y == self.size.height - 1 else ""
        text = fit(drawable(self._words[number]), width - 1 - len(count), "left", ink_of(self).glyphs.ellipsis)
        # An edge, for terminals where the ground does not tell the list from the log.
        return Line().add("▏", base + style("dim")).add(text, pen).add(count, base + style("dim")).strip(width, base)

    def on_click(self, event: object) -> None:
        """A click takes the word."""
        number = self._top + int(getattr(event, "y", 0))
        if number < len(self._words):
            self.post_message(self.Picked(number))
