"""A line typed at the console, what it does, and what comes of it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from moetui.routing import MoetuiError, UnsupportedError, UsageError, drawable
from moetui.routing.metrics import jain_fairness, load_imbalance, loads
from moetui.session import Capability, Session

_PATIENCE = 600.0  # s that an expression may take: it waits for the step that runs, and may itself be a generation
_MOST_LINES = 200
_STATS_WINDOW = 4096  # tokens


@dataclass(frozen=True, slots=True)
class Result:
    """What a line came to.

    Attributes:
        renderables: what to show, safe to draw.
        data: the same as plain data, for ``--json``; None where there is none.
        error: one line if it failed.
        hint: what to do about it.
    """

    renderables: tuple[RenderableType, ...] = ()
    data: Any = None
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """How a line could go on: ``line[start:cursor]`` may be replaced by any of ``words``."""

    start: int
    words: tuple[str, ...] = ()


class Console:
    """Runs lines on a session.

    ``run`` may wait for the model, so that a screen calls it from a thread of its own.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._commands: dict[str, Callable[[str], Result]] = {
            "help": self._help,
            "generate": self._generate,
            "stats": self._stats,
            "findings": self._findings,
        }

    def run(self, line: str) -> Result:
        """Run one line: a command with its argument, or a Python expression."""
        text = line.strip()
        if not text:
            return Result()
        word, _, rest = text.partition(" ")
        try:
            command = self._commands.get(word)
            if command is not None and not rest.lstrip().startswith(("=", "(", ".")):
                return command(rest.strip())
            return self._python(text)
        except MoetuiError as error:
            return Result(error=drawable(error.message), hint=drawable(error.hint))

    def complete(self, line: str, cursor: int) -> Completion:
        """Words that the line could go on with."""
        start = cursor
        while start > 0 and (line[start - 1].isalnum() or line[start - 1] == "_"):
            start -= 1
        if line[:start].strip():
            return Completion(start)
        return Completion(start, tuple(name for name in sorted(self._commands) if name.startswith(line[start:cursor])))

    def _help(self, _: str) -> Result:
        """List the commands."""
        table = Table.grid(padding=(0, 2))
        for name, command in self._commands.items():
            table.add_row(Text(name, "bold"), Text(inspect.getdoc(command) or ""))
        if Capability.PYTHON in self._session.capabilities:
            table.add_row(Text("anything else", "bold"), Text("A Python expression on model, session, np"))
        return Result((table,), sorted(self._commands))

    def _generate(self, prompt: str) -> Result:
        """Run a prompt: generate Once there was."""
        if Capability.GENERATE not in self._session.capabilities:
            raise UnsupportedError("a recording cannot generate", "'moetui run' opens a model")
        self._session.generate(prompt.strip("\"'"))
        return Result((Text("running"),))

    def _findings(self, _: str) -> Result:
        """List what the diagnostics found."""
        findings = self._session.findings
        if not findings:
            return Result((Text("nothing found so far"),), [])
        table = Table.grid(padding=(0, 2))
        for finding in findings:
            table.add_row(finding.severity, Text(drawable(finding.site or "")), Text(drawable(finding.message)))
        return Result((table,), [finding.message for finding in findings])

    def _stats(self, _: str) -> Result:
        """Balance of every router over the last 4,096 tokens."""
        view = self._session.timeline.snapshot()
        start = max(view.first, view.end - _STATS_WINDOW)
        keep = ~view.tokens(start, view.end).pad
        if not keep.any():
            raise UsageError("no tokens yet", "type a prompt first")
        counts = loads(view.routing(start, view.end).indices, view.sites, keep)
        table = Table.grid(padding=(0, 2))
        table.add_row(*(Text(word, "dim") for word in ("site", "fairness", "max/mean", "unused", "loads")))
        data = []
        for site in view.sites:
            row = counts[site.index, : site.num_experts]
            fairness, imbalance = float(jain_fairness(row)), float(load_imbalance(row))
            unused = int((row == 0).sum())
            shown = " ".join(str(int(load)) for load in row[:16]) + (" …" if row.size > 16 else "")
            table.add_row(Text(drawable(site.name)), f"{fairness:.2f}", f"{imbalance:.2f}", str(unused), Text(shown))
            data.append({"site": site.name, "fairness_index": fairness, "load_imbalance": imbalance})
        return Result((Text(f"last {int(keep.sum()):,} tokens"), table), data)

    def _python(self, text: str) -> Result:
        if Capability.PYTHON not in self._session.capabilities:
            raise UsageError(f"no such command: {text.split()[0]}", "'help' lists the commands")
        try:
            tree = ast.parse(text, "<console>", "eval")
        except SyntaxError as error:
            return Result(error=drawable(f"{error.msg} (column {error.offset})"), hint="'help' lists the commands")
        code = compile(tree, "<console>", "eval")
        names = {"session": self._session, "np": np}

        def evaluate(model: Any, tokenizer: Any) -> tuple[Any, str]:
            value = eval(code, {**names, "model": model, "tokenizer": tokenizer})  # noqa: S307 - what a REPL is for
            return value, repr(value)  # here, where the model stands still

        try:
            value, shown = self._session.call(evaluate).result(_PATIENCE)
        except Exception as error:  # noqa: BLE001 - whatever an expression raises belongs to whoever typed it
            return Result(error=drawable(f"{type(error).__name__}: {error}"))
        if value is None:
            return Result()
        lines = shown.splitlines()
        out = [Text(drawable(row)) for row in lines[:_MOST_LINES]]
        if len(lines) > _MOST_LINES:
            out.append(Text(f"… {len(lines) - _MOST_LINES} lines more", "dim"))
        return Result(tuple(out), value)
