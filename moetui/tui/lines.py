"""Widgets of one line: they build a strip from parts, drop the least important where room is short, and take clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from moetui.tui.cells import Line, fit


def styles_of(widget: Widget, prefix: str) -> Callable[[str], Style]:
    """Styles of a widget's component classes by their short names: ``dim`` for ``<prefix>--dim``; no ground colour."""

    def style(name: str) -> Style:
        return widget.get_component_rich_style(f"{prefix}--{name}", partial=True)

    return style


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a line.

    Attributes:
        text: drawable text.
        role: name of the style (``LineWidget.ROLES``).
        rank: parts with the highest rank are dropped first; 0 is never dropped.
        action: what a click on it does, an action string of the app; empty for nothing.
    """

    text: str
    role: str = ""
    rank: int = 0
    action: str = ""

    @property
    def width(self) -> int:
        """Cells it takes."""
        return cell_len(self.text)


def choose(left: Sequence[Part], right: Sequence[Part], width: int, gap: int = 2) -> tuple[list[Part], list[Part]]:
    """Keep as many parts as fit into ``width`` cells; those of the highest rank are dropped first, all at once."""
    kept_left, kept_right = list(left), list(right)
    while True:
        need = sum(part.width for part in kept_left) + sum(part.width for part in kept_right)
        if need + (gap if kept_right else 0) <= width:
            return kept_left, kept_right
        worst = max((part.rank for part in (*kept_left, *kept_right)), default=0)
        if worst == 0:
            return kept_left, kept_right
        kept_left = [part for part in kept_left if part.rank != worst]
        kept_right = [part for part in kept_right if part.rank != worst]


class LineWidget(Widget):
    """One line of parts, some at the left end, some at the right."""

    ROLES: ClassVar[tuple[str, ...]] = ("strong", "dim", "accent", "good", "warn", "bad", "key", "current")
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"line--{role}" for role in ROLES}
    DEFAULT_CSS = """
    LineWidget {
        height: 1; width: 1fr;
        & > .line--strong { text-style: bold; }
        & > .line--dim { color: $foreground-muted; }
        & > .line--accent { color: $accent; }
        & > .line--good { color: $text-success; }
        & > .line--warn { color: $text-warning; }
        & > .line--bad { color: $text-error; text-style: bold; }
        & > .line--key { color: $accent; text-style: bold; }
        & > .line--current { color: $accent; text-style: bold underline; }
        &:ansi > .line--dim { color: ansi_default; text-style: dim; }
        &:nocolor > .line--current { text-style: bold reverse; }
        &:nocolor > .line--bad { text-style: bold reverse; }
    }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes)
        self._left: list[Part] = []
        self._right: list[Part] = []
        self._more = ""
        self._actions: list[tuple[int, int, str]] = []

    def show(self, left: Sequence[Part], right: Sequence[Part] = (), *, more: str = "") -> None:
        """Draw these parts from now on; nothing happens if they are the ones shown.

        Args:
            more: what stands behind the left ones where some of them were dropped.
        """
        if list(left) != self._left or list(right) != self._right:
            self._left, self._right, self._more = list(left), list(right), more
            self.refresh()

    def role_style(self, role: str) -> Style:
        """The style of a role on this widget's ground."""
        return self.get_component_rich_style(f"line--{role}") if role else self.rich_style

    def render_line(self, y: int) -> Strip:
        """The line."""
        width = self.size.width
        base = self.rich_style
        if y > 0:
            return Strip.blank(width, base)
        left, right = choose(self._left, self._right, width)
        if self._more and len(left) < len(self._left):
            more = Part(self._more, "dim")
            left, right = choose([*self._left, more], self._right, width)
        line = Line()
        self._actions = []
        for part in left:
            self._put(line, part, width)
        line.to(width - sum(part.width for part in right), base)
        for part in right:
            self._put(line, part, width)
        return line.strip(width, base)

    def _put(self, line: Line, part: Part, width: int) -> None:
        start = line.width
        text = part.text if start + part.width <= width else fit(part.text, width - start)
        line.add(text, self.role_style(part.role))
        if part.action:
            self._actions.append((start, line.width, part.action))

    async def _on_click(self, event: object) -> None:
        x = getattr(event, "x", -1)
        for start, stop, action in self._actions:
            if start <= x < stop:
                await self.app.run_action(action)
                return
