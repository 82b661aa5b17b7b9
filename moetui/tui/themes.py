"""The themes: dark, light, and one of the terminal's own colours."""

from __future__ import annotations

import difflib
from dataclasses import fields, replace

from rich.terminal_theme import TerminalTheme
from textual.theme import BUILTIN_THEMES, Theme

from moetui.tui.options import Look
from moetui.tui.ramps import RAMP_NAMES, RampName, nearest_256, xterm_rgb

DARK = Theme(
    name="moetui-dark",
    primary="#6ea8fe",
    secondary="#8b949e",
    accent="#58c4dc",
    foreground="#d6dae0",
    background="#0f1216",
    surface="#14181d",
    panel="#1b2027",
    success="#57c785",
    warning="#e3b341",
    error="#f2777a",
    dark=True,
    variables={
        "foreground-muted": "#8a929c",
        "border": "#3a424d",
        "border-blurred": "#2c333c",
        "block-cursor-background": "#23435a",
        "block-cursor-foreground": "#f2f5f8",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": "#222a33",
        "block-cursor-blurred-foreground": "#d6dae0",
        "input-cursor-background": "#d6dae0",
        "input-cursor-foreground": "#0f1216",
        "scrollbar": "#3a424d",
        "scrollbar-hover": "#58606b",
        "scrollbar-active": "#58c4dc",
        "scrollbar-background": "#14181d",
        "scrollbar-background-hover": "#14181d",
        "scrollbar-background-active": "#14181d",
        "scrollbar-corner-color": "#14181d",
    },
)
LIGHT = Theme(
    name="moetui-light",
    primary="#1f5fbf",
    secondary="#57606a",
    accent="#0b7285",
    foreground="#1f2328",
    background="#fbfbfa",
    surface="#f4f5f5",
    panel="#e9ebec",
    success="#1a7f37",
    warning="#8a5a00",
    error="#b3261e",
    dark=False,
    variables={
        "foreground-muted": "#59636e",
        "text-disabled": "#6f7780",
        "border": "#b6bdc5",
        "border-blurred": "#d0d5da",
        "block-cursor-background": "#cfe6f2",
        "block-cursor-foreground": "#10151a",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": "#e2e8ec",
        "block-cursor-blurred-foreground": "#1f2328",
        "input-cursor-background": "#1f2328",
        "input-cursor-foreground": "#fbfbfa",
        "scrollbar": "#b6bdc5",
        "scrollbar-hover": "#8a929c",
        "scrollbar-active": "#0b7285",
        "scrollbar-background": "#eceeef",
        "scrollbar-background-hover": "#eceeef",
        "scrollbar-background-active": "#eceeef",
        "scrollbar-corner-color": "#eceeef",
    },
)
TERMINAL = Theme(
    name="moetui-terminal",
    ansi=True,
    primary="ansi_bright_blue",
    secondary="ansi_default",
    accent="ansi_cyan",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    success="ansi_green",
    warning="ansi_yellow",
    error="ansi_red",
    variables={
        **BUILTIN_THEMES["ansi-dark"].variables,
        "foreground-muted": "ansi_default",
        "text-success": "ansi_green",
        "text-warning": "ansi_yellow",
        "text-error": "ansi_red",
        "text-accent": "ansi_cyan",
        "border": "ansi_bright_black",
        "border-blurred": "ansi_bright_black",
        "block-cursor-background": "ansi_default",
        "block-cursor-foreground": "ansi_default",
        "block-cursor-text-style": "reverse",
        "block-cursor-blurred-background": "ansi_default",
        "block-cursor-blurred-foreground": "ansi_default",
        "block-cursor-blurred-text-style": "bold",
        "input-cursor-background": "ansi_default",
        "input-cursor-foreground": "ansi_default",
        "input-cursor-text-style": "reverse",
        "input-selection-background": "ansi_blue",
        "scrollbar": "ansi_bright_black",
        "scrollbar-hover": "ansi_white",
        "scrollbar-active": "ansi_cyan",
        "scrollbar-background": "ansi_default",
        "scrollbar-background-hover": "ansi_default",
        "scrollbar-background-active": "ansi_default",
        "scrollbar-corner-color": "ansi_default",
    },
)
_RAMP = "heatmap-ramp"  # the variable by which a theme names the colours of its heatmaps; viridis where it has none


def _with_ramp(theme: Theme, ramp: RampName) -> Theme:
    return replace(theme, name=f"{theme.name}-{ramp}", variables={**theme.variables, _RAMP: ramp})


THEMES = (DARK, LIGHT, TERMINAL, *(_with_ramp(theme, ramp) for theme in (DARK, LIGHT) for ramp in RAMP_NAMES[1:]))
# A choice keeps its hue where the nearest of 256 colours would be a grey like any other.
_HUES_OF_256 = {"#23435a": 23}
_FIRST_GREY = 232
# What the names of the terminal's colours (the console's "yellow") stand for on the light ground, where it reads.
ON_LIGHT = TerminalTheme(
    (251, 251, 250),
    (31, 35, 40),
    [
        (31, 35, 40),
        (179, 38, 30),
        (26, 127, 55),
        (138, 90, 0),
        (31, 95, 191),
        (122, 62, 157),
        (11, 114, 133),
        (89, 99, 110),
    ],
    [
        (89, 99, 110),
        (179, 38, 30),
        (26, 127, 55),
        (138, 90, 0),
        (31, 95, 191),
        (122, 62, 157),
        (11, 114, 133),
        (31, 35, 40),
    ],
)
_SHORT = {theme.name.removeprefix("moetui-"): theme.name for theme in THEMES} | {"ansi": TERMINAL.name}


def ramp_of(theme: Theme) -> RampName:
    """The colours of a theme's heatmaps."""
    wanted = theme.variables.get(_RAMP)
    return next((name for name in RAMP_NAMES if name == wanted), RAMP_NAMES[0])


def themes_for(look: Look) -> tuple[Theme, ...]:
    """The themes in colours that the terminal has.

    Of 256 colours Rich would choose by hue first, and make black or navy of dark greys that differ.
    """
    return tuple(_of_256(theme) for theme in THEMES) if look.colors == "256" else THEMES


def _of_256(theme: Theme) -> Theme:
    reduced = replace(theme, variables={name: _nearest(value) for name, value in theme.variables.items()})
    for field in fields(theme):
        value = getattr(theme, field.name)
        if isinstance(value, str):
            setattr(reduced, field.name, _nearest(value))
    return reduced


def _nearest(value: str) -> str:
    """The nearest of 256 colours to a ``#rrggbb``; anything else as it is."""
    if not value.startswith("#"):
        return value
    red, green, blue = (int(value[at : at + 2], 16) for at in (1, 3, 5))
    index = _HUES_OF_256.get(value) or nearest_256((red, green, blue))
    if index >= _FIRST_GREY:
        return "#" + f"{round((index - _FIRST_GREY + 1) * 255 / 25):02x}" * 3  # where Rich sees this grey
    return "#{:02x}{:02x}{:02x}".format(*xterm_rgb(index))


def theme_name(asked: str, look: Look) -> str:
    """The theme to start with: the one asked for (``dark``, ``light-magma``, ``ansi`` ..., or any by its name).

    With sixteen colours or none only the terminal's own palette can be drawn truly.
    """
    if look.colors in ("16", "none"):
        return TERMINAL.name
    return _SHORT.get(asked, asked) or DARK.name


def find_theme(name: str) -> str:
    """Empty if there is a theme of this name, else a hint at one that there is."""
    known = {*_SHORT, *BUILTIN_THEMES, *(theme.name for theme in THEMES)}
    if name in known:
        return ""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean '{near[0]}'?" if near else "dark, light, ansi, or one of the palette's"
