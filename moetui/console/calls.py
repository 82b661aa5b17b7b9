"""The call form with literals, ``moe.ban_experts([2], layers=[4])``: read without executing anything."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import Any

from moetui.console.registry import Command, Registry

_MOST = 20_000  # characters: ast.literal_eval is quick below, and nobody types more


@dataclass(frozen=True, slots=True)
class LiteralCall:
    """A command with the arguments it was called with."""

    command: Command
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


def read_call(source: str, registry: Registry) -> LiteralCall | None:
    """The call that ``source`` is, if it is one of a command and all arguments are literals; else None."""
    if len(source) > _MOST:
        return None
    try:
        tree = _expression(source)
        if not isinstance(tree, ast.Call):
            return None
        command = _called(tree.func, registry)
        if command is None or any(keyword.arg is None for keyword in tree.keywords):
            return None
        return LiteralCall(
            command,
            tuple(ast.literal_eval(argument) for argument in tree.args),
            {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords},
        )
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


def called_name(source: str) -> str:
    """The name that ``moe.name(...)`` or ``name(...)`` calls; empty if it is no such call."""
    try:
        tree = _expression(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return ""
    if not isinstance(tree, ast.Call):
        return ""
    if isinstance(tree.func, ast.Attribute) and isinstance(tree.func.value, ast.Name) and tree.func.value.id == "moe":
        return tree.func.attr
    return tree.func.id if isinstance(tree.func, ast.Name) else ""


def _expression(source: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the line's own oddities, if it is run at all, Python tells then
        return ast.parse(source.strip(), "<console>", "eval").body


def _called(function: ast.expr, registry: Registry) -> Command | None:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "moe":
        return registry.find(function.attr)
    return registry.find(function.id) if isinstance(function, ast.Name) else None
