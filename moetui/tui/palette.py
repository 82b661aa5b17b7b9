"""The command palette, quiet: a blinking cursor would send something twice a second."""

from __future__ import annotations

import re

from textual.command import CommandPalette, Hit, Hits
from textual.content import Content
from textual.system_commands import SystemCommandsProvider
from textual.widgets import Input

_BY_HELP = 0.01  # of 1: behind all that is found by its name


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


class Commands(SystemCommandsProvider):
    """Textual's, which knows names alone: here commands are found by the words of their help line, too."""

    async def search(self, query: str) -> Hits:
        """By name as Textual does; behind these, those of whose help every word that is typed begins a word."""
        matcher = self.matcher(query)
        words = [re.compile(rf"\b{re.escape(word)}", re.IGNORECASE) for word in query.split()]
        for name, told, callback, *_ in self.app.get_system_commands(self.screen):
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), callback, name, told)
            elif words and all(word.search(told) for word in words):
                yield Hit(_BY_HELP, Content(name), callback, name, told)
