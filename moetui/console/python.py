"""Python at the console: compiled here, run where the model may be touched, shown in a few lines."""

from __future__ import annotations

import ast
import builtins
import codeop
import ctypes
import keyword
import re
import threading
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import brief, lines, text
from moetui.console.namespace import Moe
from moetui.console.output import caught_output
from moetui.console.plain import plain
from moetui.console.registry import nearest
from moetui.console.result import Result
from moetui.console.summaries import summary
from moetui.routing import MoetuiError, UsageError
from moetui.session import Capability

_FILE = "<console>"
_FRAMES = 3
_PLAIN = (bool, int, float, str, list, tuple, dict, set, frozenset, np.generic)
_ARGUMENT = re.compile(r"\s*[\w\"'-]")
_MODEL_NAMES = ("model", "tokenizer")


@dataclass(frozen=True, slots=True)
class _Outcome:
    printed: str
    dropped: int
    shown: tuple[RenderableType, ...] = ()
    data: Any = None
    error: str = ""
    hint: str = ""


class Python:
    """Names that live as long as the console, and one piece of code at a time that runs on them.

    With ``Capability.PYTHON`` the code runs in the generation thread, between two steps, where nobody else touches the
    model; without, in the calling thread, and there is no model.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._thread: int | None = None
        self._lock = threading.Lock()
        self.moe = Moe(context)
        provided = vars(builtins).copy()
        provided.update({name: getattr(self.moe, name) for name in dir(self.moe) if name not in provided})
        provided.update(help=self.moe.help, input=_no_input, breakpoint=_no_input, exit=_no_exit, quit=_no_exit)
        self.names: dict[str, Any] = {"__name__": "__console__", "__builtins__": provided, "moe": self.moe, "np": np}

    def run(self, source: str) -> Result:
        """Run statements or an expression; the value of a last expression is shown, and is ``_`` from then on."""
        self.names.setdefault("moe", self.moe)  # ``del moe`` brings back what was hidden
        self.names.update(session=self._context.session, trace=self._context.view, recording=self._context.recording)
        if Capability.PYTHON in self._context.session.capabilities:
            self._context.info  # noqa: B018 - raises while there is no model, which a call would wait for
            outcome = self._context.result(self._context.session.call(lambda *given: self._job(source, given)))
        else:
            outcome = self._job(source, None)
        assert isinstance(outcome, _Outcome)
        shown: list[RenderableType] = list(lines(outcome.printed.rstrip("\n"))) if outcome.printed else []
        if outcome.dropped:
            shown.append(Text(f"… {outcome.dropped:,} characters more", "dim"))
        return Result((*shown, *outcome.shown), outcome.data, error=brief(outcome.error), hint=brief(outcome.hint))

    def interrupt(self) -> bool:
        """Raise ``KeyboardInterrupt`` in the code that runs, behind the command that it calls; False if none runs."""
        with self._lock:
            if self._thread is None:
                return False
            if not self._context.waiter.put_off():
                _raise_in(self._thread, KeyboardInterrupt)
            return True

    def _job(self, source: str, given: tuple[Any, Any] | None) -> _Outcome:
        if given is not None:
            self.names.update(zip(_MODEL_NAMES, given))
        with caught_output() as caught:
            outcome = self._guarded(source)
        return _Outcome(caught.text, caught.dropped, *outcome)

    def _guarded(self, source: str) -> tuple[tuple[RenderableType, ...], Any, str, str]:
        try:
            value = self._interruptible(source)
            return _shown(value)
        except SyntaxError as error:
            return _syntax(error, source, self._context.registry.names)
        except MoetuiError as error:
            return (), None, error.message, error.hint
        except KeyboardInterrupt:
            return (), None, "interrupted", ""
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever typed it, and must not end this thread
            return _failure(error, self._context)

    def _interruptible(self, source: str) -> Any:
        """Run with ``interrupt`` working; none that came too late reaches what this thread does next."""
        me = threading.get_ident()
        try:
            with self._lock:
                self._thread = me
            self._context.waiter.enter(me if Capability.PYTHON in self._context.session.capabilities else None)
            return self._execute(source)
        finally:
            while self._thread is not None:
                try:
                    self._disarm(me)
                except KeyboardInterrupt:  # it came just now, and the code is over
                    continue

    def _disarm(self, me: int) -> None:
        with self._lock:
            _raise_in(me, None)
            self._thread = None
        self._context.waiter.enter(None)

    def _execute(self, source: str) -> Any:
        body, last = compile_source(source)
        if body is not None:
            exec(body, self.names)
        if last is None:
            return None
        value = eval(last, self.names)  # noqa: S307 - the same
        if value is not None:
            self.names["_"] = value
        return value


def compile_source(source: str) -> tuple[CodeType | None, CodeType | None]:
    """Statements, and a last expression whose value is to be shown; either may be missing."""
    tree = ast.parse(source, _FILE)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        ending = tree.body.pop()
        assert isinstance(ending, ast.Expr)
        last = compile(ast.Expression(ending.value), _FILE, "eval", dont_inherit=True)
    body = compile(tree, _FILE, "exec", dont_inherit=True) if tree.body else None
    return body, last


def needs_more(source: str) -> bool:
    """Whether a statement is not finished: an open bracket or string, or a block that a blank line has not ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if codeop.compile_command(source, _FILE, "exec") is None:
                return True
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
            return False
    last = source.rpartition("\n")[2]
    return "\n" in source and last != last.lstrip() and bool(last.strip())


def _shown(value: Any) -> tuple[tuple[RenderableType, ...], Any, str, str]:
    if value is None:
        return (), None, "", ""
    if isinstance(value, Result):
        return value.renderables, value.data, value.error, value.hint
    shown = summary(value)
    data: Any = "\n".join(shown)
    if isinstance(value, _PLAIN):
        data = plain(value)
    return tuple(text(line) for line in shown), data, "", ""


def _syntax(error: SyntaxError, source: str, commands: list[str]) -> tuple[tuple[RenderableType, ...], Any, str, str]:
    shown: tuple[RenderableType, ...] = ()
    if error.text and error.offset:
        line = error.text.rstrip("\n")
        shown = (text(line), text(" " * min(len(line), error.offset - 1) + "^"))
    word, _, rest = source.strip().partition(" ")
    hint = nearest(word, commands) if word.isidentifier() else ""
    message = f"{type(error).__name__}: {error.msg}"
    if "\n" in source.strip():
        message += f" (line {error.lineno})"
    elif (
        error.msg == "invalid syntax" and word.isidentifier() and not keyword.iskeyword(word) and _ARGUMENT.match(rest)
    ):
        shown, message = (), f"no such command: {word}"
    return shown, None, message, hint or "'help' lists the commands"


def _failure(error: BaseException, context: Context) -> tuple[tuple[RenderableType, ...], Any, str, str]:
    frames = traceback.extract_tb(error.__traceback__)
    typed = [frame for frame in frames if frame.filename == _FILE]
    inner = list(frames[frames.index(typed[-1]) + 1 :]) if typed else []
    shown = tuple(
        text(f"  {frame.filename.rpartition('/')[2]}:{frame.lineno} in {frame.name}", "dim")
        for frame in inner[-_FRAMES:]
    )
    message = " ".join(str(error).split())
    where = f" (line {typed[-1].lineno})" if typed and (typed[-1].lineno or 0) > 1 else ""
    return shown, None, f"{type(error).__name__}{': ' if message else ''}{message}{where}", _hint(error, context)


def _hint(error: BaseException, context: Context) -> str:
    if not isinstance(error, NameError) or not error.name:
        return ""
    if error.name in _MODEL_NAMES:
        return "there is no model here: 'moetui run MODEL' opens one"
    return nearest(error.name, context.registry.names)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have the interpreter raise ``error`` in a thread at its next instruction; None takes a pending one back."""
    target: Callable[..., int] = ctypes.pythonapi.PyThreadState_SetAsyncExc
    target(ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error))


def _no_input(*_: object) -> str:
    raise UsageError("there is no keyboard to read from here", "assign the value instead")


def _no_exit(*_: object) -> None:
    raise UsageError("this would end the model's thread", "q leaves moetui")
