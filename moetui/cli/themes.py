"""Names of themes as an option takes them: a mistyped one is told before anything is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[str, Any]
else:
    _ParamType = click.ParamType

OURS = ("dark", "light", "ansi", "terminal")  # known without loading what draws the screen


class _NoThemeError(click.BadParameter):
    def __init__(self, message: str, hint: str, ctx: click.Context | None, param: click.Parameter | None) -> None:
        super().__init__(message, ctx, param)
        self.hint = hint


class ThemeName(_ParamType):
    """``dark``, ``light``, ``ansi``, or another that the palette lists."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, if there is such a theme."""
        name = str(value)
        if name and name not in OURS:
            from moetui.tui.themes import find_theme

            hint = find_theme(name)
            if hint:
                raise _NoThemeError(f"no theme is called '{name}'", hint, ctx, param)
        return name
