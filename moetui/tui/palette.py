"""The command palette, quiet: a blinking cursor would send something twice a second."""

from __future__ import annotations

from textual.command import CommandPalette
from textual.widgets import Input


class Palette(CommandPalette):
    """Textual's, with a cursor that stands still and without an emoji."""

    DEFAULT_CSS = """
    Palette {
        & SearchIcon { display: none; }
        & Input { padding-left: 1; }
    }
    """

    def on_mount(self) -> None:
        """Once the input is there."""
        self.query_one(Input).cursor_blink = False
