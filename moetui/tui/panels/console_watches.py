"""What is watched: conditions with their values at the newest token, and which are other than at the last stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.strip import Strip
from textual.widget import Widget

from moetui.routing import drawable
from moetui.tui.cells import Line, fit
from moetui.tui.ink import ink_of
from moetui.tui.lines import styles_of

_HOLDS = {None: "–", True: "yes", False: "no"}


@dataclass(frozen=True, slots=True)
class Watch:
    """A watched condition.

    Attributes:
        query: the condition.
        holds: whether it holds; None where that cannot be said.
        values: its parts with their values, in words.
    """

    query: str
    holds: bool | None
    values: str


class Changes:
    """Remembers what was shown when the run last went on, and so knows what is other now."""

    def __init__(self) -> None:
        self._now: dict[str, str] = {}
        self._before: dict[str, str] = {}
        self._stood = False

    def take(self, watches: Sequence[Watch], *, stands: bool) -> list[bool]:
        """Whether each watch is other than it was at the last stop; ``stands``: the run does not go on now."""
        if self._stood and not stands:
            self._before = self._now
        self._stood = stands
        self._now = {watch.query: watch.values for watch in watches}
        return [self._before.get(watch.query, watch.values) != watch.values for watch in watches]


class Watches(Widget):
    """A row a watch; nothing where nothing is watched."""

    can_focus = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"watch--dim", "watch--changed", "watch--yes"}
    DEFAULT_CSS = """
    Watches {
        height: 1; display: none; background: $surface; padding: 0 1;
        & > .watch--dim { color: $foreground-muted; }
        & > .watch--changed { color: $text-warning; text-style: bold; }
        & > .watch--yes { color: $text-success; }
        &:ansi > .watch--dim { color: ansi_default; text-style: dim; }
    }
    """

    def __init__(self) -> None:
        super().__init__(id="console-watches")
        self._changes = Changes()
        self._watches: list[Watch] = []
        self._changed: list[bool] = []

    def show(self, rows: Sequence[Any], *, stands: bool, most: int) -> None:
        """Show what a console's ``watched`` gave.

        Args:
            rows: ``{"query", "holds", "values"}`` each.
            stands: whether the run does not go on at present.
            most: rows there is room for; the newest watches are shown.
        """
        watches = [Watch(row["query"], row["holds"], row["values"]) for row in rows]
        changed = self._changes.take(watches, stands=stands)
        watches, changed = watches[-most:], changed[-most:]
        if (watches, changed) == (self._watches, self._changed):
            return
        self._watches, self._changed = watches, changed
        self.display = bool(watches)
        self.styles.height = max(1, len(watches))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """``● entropy < 0.5 and layer == 3   no   entropy = 0.61``."""
        style, base, width = styles_of(self, "watch"), self.rich_style, self.content_size.width
        if y >= len(self._watches):
            return Strip.blank(width, base)
        ink, watch, changed = ink_of(self), self._watches[y], self._changed[y]
        widest = min(max(len(drawable(each.query)) for each in self._watches), max(12, width // 2))
        line = Line().add(("* " if ink.ascii_only else "● ") if changed else "  ", base + style("changed"))
        line.add(fit(drawable(watch.query), widest, "left", ink.glyphs.ellipsis) + "  ", base + style("dim"))
        line.add(f"{ink.words(_HOLDS[watch.holds]):<5}", base + style("yes") if watch.holds else base + style("dim"))
        values = fit(drawable(watch.values), max(0, width - line.width), "left", ink.glyphs.ellipsis)
        return line.add(values, base + style("changed") if changed else base).strip(width, base)
