"""How the screen is to be drawn: colours, glyphs, rate. Fixed before Textual is imported, which reads them then."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

from moetui.routing.errors import UsageError

ColorMode = Literal["auto", "truecolor", "256", "16", "none"]

# what Textual's TEXTUAL_COLOR_SYSTEM calls them
_COLOR_SYSTEMS = {"auto": "auto", "truecolor": "truecolor", "256": "256", "16": "standard", "none": "standard"}


@dataclass(frozen=True, slots=True)
class ScreenOptions:
    """What a person asked of the screen.

    Attributes:
        fps: frames a second at most; None leaves it to the line's speed (2 to 10).
        low_bandwidth: 256 colours, no mouse motion, fewer frames; None means "when under ssh".
        color: colours to use; ``auto`` asks the terminal's environment and ``NO_COLOR``.
        ascii: draw with ASCII alone.
        mouse: let the terminal send mouse events.
        theme: name of a theme; empty for the one that fits the colours.
        prompt: run this as soon as the model is ready, behind the script.
        script: console lines to run before that, in the console's own panel; they stop at the first that fails.
        script_name: where they are from.
        state: folder in which the console's lines are kept from session to session; None keeps none.
        python: let the console run Python.
        keys: binding id → keys, comma-separated, instead of the built-in ones.
    """

    fps: float | None = None
    low_bandwidth: bool | None = None
    color: ColorMode = "auto"
    ascii: bool = False
    mouse: bool = True
    theme: str = ""
    prompt: str = ""
    script: tuple[str, ...] = ()
    script_name: str = ""
    state: Path | None = None
    python: bool = True
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """What is drawn with, once the environment was asked.

    Attributes:
        colors: how many the terminal is sent: ``truecolor``, ``256``, ``16`` or ``none``.
        slow: the line is to be spared: fewer frames, and of the mouse clicks only, not its motion.
        clipboard: the terminal may take text for its clipboard (OSC 52); False where it is known not to.
        tmux: the screen is drawn in tmux, which by its own settings keeps such text to itself, and is to be asked.
    """

    colors: Literal["truecolor", "256", "16", "none"]
    slow: bool
    ascii: bool
    mouse: bool
    clipboard: bool = True
    tmux: bool = False


def resolve(options: ScreenOptions, environ: Mapping[str, str]) -> Look:
    """Decide colours and rate from the options, the environment (``NO_COLOR``, ssh, locale ...) and the terminal."""
    slow = options.low_bandwidth if options.low_bandwidth is not None else "SSH_CONNECTION" in environ
    colors = options.color
    if colors == "auto":
        colors = "none" if environ.get("NO_COLOR") else _terminal_colors(environ)
        if slow and colors == "truecolor":
            colors = "256"
    plain = options.ascii or not _unicode(environ) or not all(map(_takes_unicode, terminals()[:1]))
    return Look(colors, slow, plain, options.mouse, _clipboard(environ), tmux=bool(environ.get("TMUX")))


def _terminal_colors(environ: Mapping[str, str]) -> Literal["truecolor", "256", "16"]:
    if environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "truecolor"
    term = environ.get("TERM", "").lower()
    if term.endswith(("-direct", "-truecolor")):
        return "truecolor"
    return "256" if "256color" in term or term.startswith(("xterm-kitty", "alacritty", "foot", "tmux")) else "16"


def _clipboard(environ: Mapping[str, str]) -> bool:
    """False for consoles without a clipboard, for GNU screen, which keeps such sequences, and for macOS's Terminal."""
    if environ.get("TERM_PROGRAM") == "Apple_Terminal" or ("STY" in environ and "TMUX" not in environ):
        return False
    return not environ.get("TERM", "").lower().startswith(("linux", "vt", "cons"))


def _unicode(environ: Mapping[str, str]) -> bool:
    """Whether the locale says UTF-8; none at all is taken for a bare environment of today, which is."""
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    return not locale or locale in ("C", "POSIX") or "utf" in locale.lower()


def terminals() -> list[TextIOWrapper]:
    """Which of standard error and output are one; the first is drawn on."""
    return [file for file in (sys.__stderr__, sys.__stdout__) if file is not None and not file.closed and file.isatty()]


def _takes_unicode(file: TextIOWrapper) -> bool:
    """Whether what Python was told of encodings leaves it UTF-8: else signs arrive as wider escapes."""
    return file.encoding.lower().replace("_", "-") in ("utf-8", "utf8")


def runs_python(options: ScreenOptions, environ: Mapping[str, str]) -> bool:
    """Whether the console may run Python: not where it was switched off, and never for whoever reads a browser."""
    return options.python and "web" not in environ.get("TEXTUAL_DRIVER", "").lower()


def check_terminal(environ: Mapping[str, str]) -> None:
    """Refuse what cannot show a screen.

    Raises:
        UsageError: no terminal on standard input or output, or ``TERM=dumb``.
    """
    hint = "'moetui record' runs without a screen, 'moetui stats' prints a recording's numbers"
    if environ.get("TERM", "").lower() in ("dumb", "unknown"):
        raise UsageError(f"this terminal cannot show a screen (TERM={environ['TERM']})", hint)
    if not (sys.__stdin__ and sys.__stdin__.isatty() and terminals()):
        raise UsageError("the screen needs a terminal", hint)


def prepare_environment(look: Look, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what Textual and Rich read at import, so that the look holds."""
    environ["TEXTUAL_COLOR_SYSTEM"] = _COLOR_SYSTEMS[look.colors]
    environ["TEXTUAL_ANIMATIONS"] = "none"
    environ["TEXTUAL_SMOOTH_SCROLL"] = "0"
    # Textual's own ceiling on repaints, for scrolling and cursor moves; new data comes by the ticker's rate.
    environ["TEXTUAL_FPS"] = "15" if look.slow else "30"
    if look.colors == "none":
        environ["NO_COLOR"] = "1"
    else:
        environ.pop("NO_COLOR", None)
