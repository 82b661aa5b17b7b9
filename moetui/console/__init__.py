"""Commands on a session: typed lines in, results out. No widgets here."""

from __future__ import annotations

from moetui.console.console import Console, ScriptError
from moetui.console.history import History, history_path
from moetui.console.result import Completion, Result

__all__ = ["Completion", "Console", "History", "Result", "ScriptError", "history_path"]
