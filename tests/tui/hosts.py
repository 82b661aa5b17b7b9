"""Small apps that hold one widget, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot
from textual.widget import Widget

from moetui.tui.ink import Ink
from moetui.tui.messages import SiteSelected, TokenSelected
from moetui.tui.themes import THEMES

W = TypeVar("W", bound=Widget)


class Host(App[None]):
    """Holds one widget and keeps what it posts; spreads no selection, as a lone panel must do without."""

    def __init__(self, widget: Widget, ink: Ink) -> None:
        super().__init__()
        self.widget = widget
        self.ink = ink
        self.heard: list[Message] = []
        self.said: list[str] = []
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = "moetui-dark"

    def compose(self) -> ComposeResult:
        yield self.widget

    def on_token_selected(self, event: TokenSelected) -> None:
        self.heard.append(event)

    def on_site_selected(self, event: SiteSelected) -> None:
        self.heard.append(event)

    def notify(self, message: str, **_: Any) -> None:  # type: ignore[override]
        self.said.append(message)


@asynccontextmanager
async def hosted(widget: W, size: tuple[int, int] = (80, 24), ink: Ink | None = None) -> AsyncIterator[Pilot[None]]:
    """The widget on a screen of ``size`` cells, focused."""
    app = Host(widget, ink or Ink())
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        if widget.focusable:
            widget.focus()
            await pilot.pause()
        yield pilot


def lines_of(widget: Widget) -> list[str]:
    """The text of every content line."""
    return [widget.render_line(y).text for y in range(widget.content_size.height)]


def heard(pilot: Pilot[None]) -> list[Message]:
    """What the app heard of the widget."""
    app = pilot.app
    assert isinstance(app, Host)
    return app.heard
