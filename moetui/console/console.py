"""A line typed at the console, what it does, and what comes of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable

from rich.text import Text

from moetui.console import complete as completion
from moetui.console.bare import parse_bare, split
from moetui.console.calls import called_name, read_call
from moetui.console.commands import registry
from moetui.console.context import Context
from moetui.console.draw import brief
from moetui.console.history import History
from moetui.console.plain import as_json
from moetui.console.python import Python, needs_more
from moetui.console.registry import Command, nearest
from moetui.console.result import Completion, Result
from moetui.routing import MoetuiError, TimelineView, UsageError, drawable
from moetui.session import Session

_FIRST = re.compile(r"[A-Za-z_]\w*")
_LONGEST = 100_000


class ScriptError(MoetuiError):
    """A line of a script failed; the message begins with its number."""


class Console:
    """Runs lines on a session: bare commands, ``moe.command(...)``, and Python.

    ``run`` may wait for the model, so that a screen calls it from a thread of its own; one line runs at a time.
    ``complete``, ``hint``, ``needs_more`` and ``interrupt`` return at once, from any thread.

    Args:
        session: what the lines act on.
        python: run what is no command as Python; without, commands take literals only.
        history: lines typed before; None remembers those of this console only.
        ascii_only: draw with ASCII alone.
    """

    def __init__(
        self, session: Session, *, python: bool = True, history: History | None = None, ascii_only: bool = False
    ) -> None:
        self._context = Context(session, registry(), history or History(), ascii=ascii_only, python=python)
        self._python = Python(self._context) if python else None
        self._running = threading.RLock()

    @property
    def history(self) -> History:
        """Lines typed, oldest first."""
        return self._context.history

    def run(self, line: str) -> Result:
        """Run one line, or several that belong together; whatever it is, a ``Result`` says what came of it."""
        source = line.rstrip()
        if not source.strip():
            return Result()
        self.history.add(source)
        with self._running:
            self._context.waiter.begin()
            return self._answered(source)

    def run_script(
        self,
        lines: Iterable[str],
        show: Callable[[str, Result], None] | None = None,
        *,
        begin: Callable[[str], None] | None = None,
    ) -> None:
        """Run a script's lines one after the other; ``generate`` and the like wait for their run's end.

        Args:
            lines: with or without line ends; blank lines and comments are passed over, blocks end at a blank line.
            show: called with each line and its result, the failing one included.
            begin: called with each line before it runs.

        Raises:
            ScriptError: a line failed; those after it were not run.
        """
        with self._running:
            before, self._context.blocking = self._context.blocking, True
            try:
                for number, source in self._statements(lines):
                    self._context.waiter.begin()
                    if begin is not None:
                        begin(source)
                    result = self._answered(source)
                    if show is not None:
                        show(source, result)
                    if result.error:
                        raise ScriptError(f"line {number}: {result.error}", result.hint)
            finally:
                self._context.blocking = before

    def complete(self, line: str, cursor: int) -> Completion:
        """Words that the line could go on with at ``cursor``; never raises."""
        try:
            names = self._python.names if self._python is not None else {}
            return completion.complete(self._context, names, line, cursor)
        except Exception:  # noqa: BLE001 - a key press must never fail; there is just nothing to propose
            return Completion(max(0, min(cursor, len(line))))

    def hint(self, line: str, cursor: int) -> str:
        """The signature of the command that is being typed at ``cursor``, safe to draw; never raises."""
        try:
            return drawable(completion.signature_at(self._context, line, cursor))
        except Exception:  # noqa: BLE001 - as for ``complete``
            return ""

    def needs_more(self, source: str) -> bool:
        """Whether more lines belong to what was typed so far: Enter then starts a new one."""
        return self._python is not None and self._bare_command(source.strip()) is None and needs_more(source)

    def interrupt(self) -> None:
        """Give up what runs: Python gets a ``KeyboardInterrupt``, a wait for the model ends."""
        if self._python is not None and self._python.interrupt():
            return
        self._context.waiter.interrupt()

    def watched(self, view: TimelineView | None = None) -> Result:
        """What ``watch`` would show now, for a screen that shows it at each stop; empty if nothing is watched."""
        if not self._context.watches:
            return Result()
        try:  # not as a typed line: the name may have been given away, and Python would wait for the model
            return self._context.registry.get("watch").run(self._context, {})
        except MoetuiError as error:
            return Result(error=brief(error.message), hint=brief(error.hint))

    def _answered(self, source: str) -> Result:
        try:
            return self._dispatch(source)
        except MoetuiError as error:
            return Result(error=brief(error.message), hint=brief(error.hint))
        except Exception as error:  # noqa: BLE001 - a command's bug costs its line, not the screen
            return Result(
                error=brief(f"internal error: {type(error).__name__}: {error}"), hint="this is a bug in moetui"
            )

    def _dispatch(self, source: str) -> Result:
        text = source.strip()
        if len(text) > _LONGEST:
            raise UsageError(f"the line is too long: {len(text):,} characters", f"{_LONGEST:,} at most")
        if text.startswith("#") and "\n" not in text:
            return Result()
        asked = re.fullmatch(r"\?\s*(?:moe\.)?(\w+)(?:\(\))?|(?:moe\.)?(\w+)(?:\(\))?\s*\?", text)
        if asked:
            return self._context.registry.get("help").run(self._context, {"name": asked[1] or asked[2]})
        command = self._bare_command(text)
        if command is not None:
            return self._run_bare(command, text)
        call = read_call(text, self._context.registry)
        if call is not None and not self._shadowed(text):
            return call.command.call(self._context, call.arguments, call.keywords)
        if self._python is None:
            raise self._not_understood(text)
        return self._python.run(source)

    def _bare_command(self, text: str) -> Command | None:
        """The command that a line begins with, if the line is one in the bare form."""
        first = _FIRST.match(text)
        command = self._context.registry.find(first[0]) if first else None
        if first is None or command is None or command.name != first[0]:
            return None
        rest = text[first.end() :]
        if rest and not rest[0].isspace():
            return None
        rest = rest.lstrip()
        if rest.startswith("=") and not rest.startswith("=="):
            return None
        if rest.startswith("(") and called_name(text):
            return None
        if "\n" in text and not any(parameter.kind.raw for parameter in command.parameters):
            return None
        return None if not rest and self._shadowed(text) else command

    def _shadowed(self, text: str) -> bool:
        """Whether the line's first word is a name that was assigned to in Python."""
        first = _FIRST.match(text)
        return first is not None and first[0] != "moe" and self._python is not None and first[0] in self._python.names

    def _run_bare(self, command: Command, text: str) -> Result:
        bare = parse_bare(command, text, split(text)[1:])
        result = command.run(self._context, bare.values)
        if not bare.json:
            return result
        return Result(tuple(Text(line) for line in as_json(result.data).splitlines()), result.data, clear=result.clear)

    def _not_understood(self, text: str) -> UsageError:
        name = called_name(text)
        if name and self._context.registry.find(name):
            return UsageError(f"the arguments of {name} must be literals here", f"help {name}")
        word = name or text.split()[0]
        hint = nearest(word, self._context.registry.names) or "'help' lists the commands"
        return UsageError(f"no such command: {word}", hint)

    def _statements(self, lines: Iterable[str]) -> Iterable[tuple[int, str]]:
        """Statements with the numbers of their first lines."""
        held: list[str] = []
        start = 0
        for number, line in enumerate(lines, 1):
            row = line.rstrip("\r\n")
            if not held and (not row.strip() or row.lstrip().startswith("#")):
                continue
            if held and row and not row[0].isspace() and not needs_more("\n".join(held) + "\n"):
                # A line at the margin ends a block, as in a file.
                continues = re.match(r"(else|elif|except|finally)\b", row)
                if not continues:
                    yield start, "\n".join(held)
                    held = []
            if not held:
                start = number
            held.append(row)
            source = "\n".join(held)
            block = source.rstrip().endswith(":") or (len(held) > 1 and row[:1].isspace())
            if self._python is None or not (self.needs_more(source) or block):
                yield start, source
                held = []
        if held:
            yield start, "\n".join(held)
