"""Commands on a session: typed lines in, results out. No widgets here."""

from __future__ import annotations

from moetui.console.console import Completion, Console, Result

__all__ = ["Completion", "Console", "Result"]
