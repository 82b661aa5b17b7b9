"""What stands in place of the panels until there is a model: progress, or why there will be none."""

from __future__ import annotations

import time
from typing import ClassVar

from rich.text import Text
from textual.app import RenderResult
from textual.widget import Widget

from moetui.routing import drawable
from moetui.tui.ink import ink_of
from moetui.tui.keys import key_now
from moetui.tui.lines import styles_of

_BAR = 40


class LoadingView(Widget):
    """Progress of loading in the middle of the screen; after a failure, its reason and what to do."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"loading--{name}" for name in ("name", "bar", "rest", "bad", "hint")}
    DEFAULT_CSS = """
    LoadingView {
        width: 1fr; height: 1fr; content-align: center middle; text-align: center;
        & > .loading--name { text-style: bold; }
        & > .loading--bar { color: $accent; }
        & > .loading--rest { color: $foreground-muted; }
        & > .loading--bad { color: $text-error; text-style: bold; }
        & > .loading--hint { color: $foreground-muted; }
    }
    """

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(id="loading")
        self._what, self._hint = drawable(name), hint
        self._message = "starting"
        self._fraction: float | None = None
        self._failure: tuple[str, str] | None = None
        self._since = time.monotonic()

    def progress(self, message: str, fraction: float | None) -> None:
        """Show what is being done, and how much of it if that is known."""
        self._message, self._fraction = drawable(message), fraction
        self.refresh()

    def fail(self, reason: str, hint: str) -> None:
        """Show that there will be no model."""
        self._failure = (drawable(reason), drawable(hint))
        self.refresh()

    def render(self) -> RenderResult:
        """The text."""
        glyphs = ink_of(self).glyphs
        style = styles_of(self, "loading")
        if self._failure is not None:
            reason, hint = self._failure
            mark = glyphs.dropped
            lines = [Text(f"{mark} {self._what} could not be opened", style("bad")), Text(""), Text(reason)]
            lines += [Text(""), Text(hint, style("hint"))] if hint else []
            lines += [Text(""), Text(f"{key_now(self.app, 'quit', 'q')} quits", style("hint"))]
            return Text("\n", justify="center").join(lines)
        full, rest = glyphs.bar, "-" if glyphs.bar == "=" else "─"
        width = min(_BAR, max(8, self.size.width - 8))
        bar = Text()
        if self._fraction is not None:
            done = round(min(1.0, max(0.0, self._fraction)) * width)
            bar.append(full * done, style("bar")).append(rest * (width - done), style("rest"))
        else:
            bar.append(rest * width, style("rest"))
        share = "" if self._fraction is None else f"  {self._fraction:.0%}"
        lines = [
            Text(f"opening {self._what}", style("name")),
            Text(""),
            bar,
            Text(f"{self._message}{share}", style("rest")),
            Text(""),
            Text(self._hint, style("hint")),
        ]
        return Text("\n", justify="center").join(lines)
