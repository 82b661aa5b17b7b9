"""Commands on a session: typed lines in, results out. No widgets here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moetui.console.console import Console, ScriptError
    from moetui.console.history import History, history_path
    from moetui.console.result import Completion, Result

__all__ = ["Completion", "Console", "History", "Result", "ScriptError", "history_path"]

_HOMES = {
    "Completion": "moetui.console.result",
    "Console": "moetui.console.console",
    "History": "moetui.console.history",
    "Result": "moetui.console.result",
    "ScriptError": "moetui.console.console",
    "history_path": "moetui.console.history",
}


def __getattr__(name: str) -> Any:
    # By name: a run's text, which the screen writes down, is not to wait for all commands.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
