"""``moe``: the commands as Python functions."""

from __future__ import annotations

import inspect
from typing import Any

from moetui.console.context import Context
from moetui.console.registry import Command, nearest
from moetui.console.result import Result


class Bound:
    """A command, ready to be called from Python; it answers with a ``Result``, whose data it can be used as."""

    def __init__(self, command: Command, context: Context) -> None:
        self._command, self._context = command, context
        self.__name__ = command.attribute
        self.__doc__ = inspect.getdoc(command.function)

    def __call__(self, *arguments: Any, **keywords: Any) -> Result:
        """Run it."""
        with self._context.waiter.whole():
            return self._command.call(self._context, arguments, keywords)

    def __repr__(self) -> str:
        return f"moe.{self._command.signature}: {self._command.doc.summary}"


class Moe:
    """All commands by name: ``moe.ban_experts([2], layers=[4])``."""

    def __init__(self, context: Context) -> None:
        self._bound = {command.attribute: Bound(command, context) for command in context.registry}

    def __getattr__(self, name: str) -> Bound:
        bound = self.__dict__.get("_bound", {})
        if name not in bound:
            hint = nearest(name, bound) or "'help' lists the commands"
            raise AttributeError(f"moe has no command {name}: {hint}")
        found = bound[name]
        assert isinstance(found, Bound)
        return found

    def __dir__(self) -> list[str]:
        return list(self._bound)

    def __repr__(self) -> str:
        return f"the commands of the console, {len(self._bound)} in number; moe.help() lists them"
