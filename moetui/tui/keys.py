"""The keys of the app itself. Each has an id, so that a settings file can move it; panels have their own besides."""

from __future__ import annotations

from typing import Any

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

# Keys whose characters Textual does not know: it would offer them where they are typed.
_CHARACTERS = {"plus": "+", "minus": "-", "slash": "/", "backslash": "\\", "at": "@", "underscore": "_"}


def is_typed(screen: Screen[Any], key: str) -> bool:
    """Whether what has the focus takes the key as text."""
    character, focused = _CHARACTERS.get(key), screen.focused
    return character is not None and focused is not None and focused.check_consume_key(key, character)


def key_now(app: App[Any], name: str, usual: str) -> str:
    """The key that does something now, as the key bar writes it: a settings file may have moved it.

    Args:
        name: the binding's id.
        usual: its key where nobody did.
    """
    moved = app._keymap.get(name, "").partition(",")[0]
    return app.get_key_display(Binding(moved or usual, "", ""))


RUN = Binding.Group("run")
KEYS: list[BindingType] = [
    Binding("space", "toggle_run", "pause/go", id="toggle", tooltip="Pause the run, or go on"),
    Binding("n,f10", "step", "token", id="step", tooltip="Let one step of the model pass"),
    Binding("s,f11", "step_layer", "layer", id="step_layer", tooltip="Go on to the next router and pause there"),
    Binding("c,f5", "resume", "continue", id="resume", tooltip="Go on until the end or the next breakpoint"),
    Binding("x", "stop", "stop", id="stop", tooltip="End the run; what was generated stays"),
    Binding("E", "finish", "to the end", id="finish", show=False, tooltip="Go on to the end, past every breakpoint"),
    Binding("X", "restart", "again", id="restart", show=False, tooltip="Run the last prompt again from its start"),
    Binding("b", "breakpoints", "break", id="breakpoints", tooltip="List the breakpoints: add, edit, switch, delete"),
    Binding("F", "fork", "fork", id="fork", show=False, tooltip="A branch from before the selected token"),
    Binding("backspace", "rewind", "rewind", id="rewind", show=False, tooltip="Stand before the selected token again"),
    Binding("e", "force", "force", id="force", show=False, tooltip="Type which experts to force from here on"),
    Binding("C", "compare", "compare", id="compare", show=False, tooltip="Compare the branch with its parent"),
    Binding("comma", "step_back", "back", id="step_back", tooltip="One step back in the recording"),
    Binding("plus,equals_sign", "faster", "faster", id="faster", tooltip="Play twice as fast", show=False),
    Binding("minus", "slower", "slower", id="slower", tooltip="Play half as fast", show=False),
    Binding("g", "seek_dialog", "go to", id="seek", tooltip="Go to a token or a time of the recording"),
    Binding(
        "J",
        "jump(1)",
        "next event",
        id="next_event",
        show=False,
        tooltip="Go to what happened next: a finding, a branch",
    ),
    Binding("K", "jump(-1)", "event before", id="previous_event", show=False, tooltip="Go to what happened before"),
    Binding("o", "loop", "loop", id="loop", tooltip="Repeat the last 32 tokens, or stop repeating", show=False),
    Binding("p", "prompt", "prompt", id="prompt", tooltip="Type a prompt"),
    Binding("escape,colon", "drawer", "console", id="console", tooltip="Open or close the console under this tab"),
    Binding(
        "exclamation_mark", "findings", "findings", id="findings", tooltip="What the diagnostics found", show=False
    ),
    Binding("1", "tab('network')", "Network", id="network", tooltip="Tokens, experts, load", show=False),
    Binding("2", "tab('elements')", "Elements", id="elements", tooltip="Modules, experts, parameters", show=False),
    Binding("3", "tab('console')", "Console", id="console_tab", tooltip="Commands and Python", show=False),
    Binding("4", "tab('profiler')", "Profiler", id="profiler", tooltip="Where the time goes", show=False),
    Binding(
        "right_curly_bracket,ctrl+pagedown",
        "next_tab(1)",
        "next tab",
        id="next_tab",
        show=False,
        tooltip="The tab to the right",
    ),
    Binding(
        "left_curly_bracket,ctrl+pageup",
        "next_tab(-1)",
        "previous tab",
        id="previous_tab",
        show=False,
        tooltip="The tab to the left",
    ),
    Binding("question_mark,f1", "help", "help", id="help", tooltip="All keys that do something here"),
    Binding("q", "quit", "quit", id="quit", tooltip="Leave; a recording is closed properly"),
    Binding("ctrl+q", "quit", "quit", show=False, priority=True, tooltip="Leave; a recording is closed properly"),
    Binding(
        "ctrl+c",
        "interrupt",
        "pause, twice: quit",
        show=False,
        priority=True,
        tooltip="Give up a line that runs or is typed, pause the run, close a dialog; else, or twice: leave",
    ),
    Binding("ctrl+z", "suspend_process", "suspend", show=False, tooltip="Back to the shell; fg returns"),
    Binding("ctrl+l", "redraw", "redraw", id="redraw", show=False, tooltip="Draw everything anew"),
]
