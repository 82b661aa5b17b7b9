"""What the apps have in common: themes, what is drawn with, the line to the terminal, how they end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.geometry import Size
from textual.screen import Screen
from textual.scrollbar import ScrollBar, ScrollBarRender

from moetui.routing import UsageError
from moetui.tui.driver import TerminalDriver
from moetui.tui.filters import AsciiFilter, ColorlessFilter, WholeCells
from moetui.tui.handing_on import HandingOn
from moetui.tui.in_order import InOrder
from moetui.tui.ink import Ink
from moetui.tui.lines import LineWidget, Part
from moetui.tui.link import Linked
from moetui.tui.options import Look, ScreenOptions, resolve
from moetui.tui.themes import ON_LIGHT, find_theme, ramp_of, theme_name, themes_for

if TYPE_CHECKING:
    from textual.command import Provider

_KEY_WORDS = {"⏎": "enter", "⌫": "backspace", "↑": "up", "↓": "down", "←": "left", "→": "right"}
LEAST_WIDTH, LEAST_HEIGHT = 40, 12
_MOST_MESSAGES = 3  # in the corner at a time


def _commands() -> type[Provider]:
    from moetui.tui.palette import Commands

    return Commands


class Shell(HandingOn, InOrder, Linked, App[int]):
    """An app drawn by ``options``.

    Args:
        options: how to draw.
        look: what the environment allows; found out if not given.

    Raises:
        UsageError: no theme of the name asked for.
    """

    TITLE = "moetui"
    ENABLE_SELECT_AUTO_SCROLL = False
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_commands}
    # In the terminal's own colours Textual reverses what it draws white on black, and of a list's choice forgets that
    # it is to be reversed: neither would be seen.
    CSS = """
    Input:ansi > .input--cursor { background: ansi_default; color: ansi_default; text-style: reverse; }
    CommandList:ansi > .option-list--option-highlighted {
        background: ansi_cyan; color: ansi_black; text-style: bold underline;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,f7", "copy", "copy", id="copy", show=False, tooltip="Copy the table or map that has the focus"),
        Binding("Y,f8", "save_csv", "save csv", id="save", show=False, tooltip="Write it to a CSV file"),
        Binding("P", "picture", "picture", id="picture", show=False, tooltip="Write the screen to an SVG file"),
    ]

    def __init__(self, options: ScreenOptions, look: Look | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        import os

        self.options = options
        self.look = look or resolve(options, os.environ)
        self.animation_level = "none"
        for theme in themes_for(self.look):
            self.register_theme(theme)
        wanted = theme_name(options.theme, self.look)
        if wanted not in self.available_themes:
            raise UsageError(f"no theme is called '{options.theme}'", find_theme(options.theme))
        self.ansi_theme_light = ON_LIGHT
        self.theme = wanted
        self._ascii, self._colorless = AsciiFilter(), ColorlessFilter()
        ScrollBar.renderer = WholeCells if self.look.ascii else ScrollBarRender
        self.start_link()
        self.start_order()

    @property
    def ink(self) -> Ink:
        """What widgets draw with, by terminal and theme."""
        theme = self.current_theme
        return Ink(self.look.colors, self.look.ascii, ramp_of(theme), dark=theme.dark)

    def get_key_display(self, binding: Binding) -> str:
        """A key as it is written here: Textual's arrows are words where there is ASCII alone, Enter is one sign."""
        shown = super().get_key_display(binding)
        for sign, words in _KEY_WORDS.items():
            shown = shown.replace(sign, words if self.look.ascii else sign)
        return shown.replace("⏎", "↵")

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Besides Textual's: no colour and no other character than ASCII where that was asked for."""
        filters = list(super().get_line_filters())
        if self.look.colors == "none":
            filters = [self._colorless]
        return [*filters, self._ascii] if self.look.ascii else filters

    def fit_screen(self, size: Size) -> None:
        """Draw anew for another size; say so where it is too small for anything. The screen has a ``#too-small``."""
        self.forget_screen()
        self.console.size = (size.width, size.height)  # what Rich fits its tables into: it would guess
        small = size.width < LEAST_WIDTH or size.height < LEAST_HEIGHT
        under = self.screen_stack[0]  # whatever dialog lies over it
        under.set_class(small, "-too-small")
        if small:
            times = "x" if self.look.ascii else "×"
            needed = Part(f" {LEAST_WIDTH}{times}{LEAST_HEIGHT} needed", "warn")
            here = Part(f", this is {size.width}{times}{size.height}", "warn", 1)
            under.query_one("#too-small", LineWidget).show([needed, here])

    def watch_terminal(self) -> None:
        """Draw anew when the app comes back to the front; end when the terminal is gone, or on a signal."""
        self.app_resume_signal.subscribe(self, lambda _: self.forget_screen())
        if isinstance(self._driver, TerminalDriver):
            self.set_interval(1.0, self._look_for_terminal)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            try:
                loop.add_signal_handler(number, self.exit, 128 + number)
            except (NotImplementedError, RuntimeError, ValueError):  # no signals on this platform or thread
                return

    def _look_for_terminal(self) -> None:
        if isinstance(self._driver, TerminalDriver) and self._driver.hung_up():
            self.exit(128 + signal.SIGHUP)

    def _fatal_error(self) -> None:
        # Textual would print screenfuls of locals, arrays among them; whoever runs the app gets the error itself.
        self.bell()
        self._close_messages_no_wait()

    @property
    def crash(self) -> Exception | None:
        """The bug that ended the app, if one did."""
        return self._exception

    async def action_press(self, key: str) -> None:
        """What a click on a key in the key bar does."""
        self.simulate_key(key)

    def action_help(self) -> None:
        """All keys that do something here."""
        from moetui.tui.help import HelpScreen

        self.push_screen(HelpScreen(self.screen))

    def action_command_palette(self) -> None:
        """Find a command by its name, or by what it does."""
        from textual.command import CommandPalette

        from moetui.tui.palette import Palette

        if not any(isinstance(screen, CommandPalette) for screen in self.screen_stack):
            self.push_screen(Palette(id="--command-palette"))

    def search_themes(self) -> None:
        """Choose a theme by its name."""
        from textual.theme import ThemeProvider

        from moetui.tui.palette import Palette

        self.push_screen(Palette(providers=[ThemeProvider], placeholder="Search for themes…"))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: what the app's keys do, and the themes."""
        keys: dict[str, list[str]] = {}
        bindings: dict[str, Binding] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if active.enabled and binding.tooltip and active.node is self:
                keys.setdefault(binding.action, []).append(self.get_key_display(binding))
                bindings.setdefault(binding.action, binding)
        for action, binding in bindings.items():
            title = f"{binding.description.capitalize()}  ({' '.join(dict.fromkeys(keys[action]))})"
            yield SystemCommand(title, binding.tooltip, lambda action=action: self.run_action(action))
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)

    def _refresh_notifications(self) -> None:
        # A burst of messages would cover what they are about: the newest few stay, each once.
        shown: set[str] = set()
        for message in reversed(list(self._notifications)):
            if message.message in shown or len(shown) >= _MOST_MESSAGES:
                self._unnotify(message, refresh=False)
            shown.add(message.message)
        super()._refresh_notifications()

    def action_redraw(self) -> None:
        """Draw everything anew: a stray line of another program may have spoilt the screen."""
        self.forget_screen()

    async def action_quit(self) -> None:
        """Leave."""
        self.exit(0)
