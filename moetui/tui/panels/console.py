"""The Console tab, and the drawer under the others: a log of what was typed and came of it, and an input."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message

from moetui.console import Console, History, Result, history_path
from moetui.console.tables import Tabular, tables_of
from moetui.routing import TimelineView, drawable
from moetui.routing.events import RunState
from moetui.session import Session
from moetui.tui.ink import ink_of
from moetui.tui.lines import LineWidget, Part, styles_of
from moetui.tui.messages import Selection
from moetui.tui.options import ScreenOptions, runs_python
from moetui.tui.panels.console_input import ConsoleInput
from moetui.tui.panels.console_log import ConsoleLog
from moetui.tui.panels.console_thread import ConsoleThread
from moetui.tui.panels.console_watches import Watches
from moetui.tui.panels.console_words import WordList
from moetui.tui.widgets.sharing import Rows, Shared

_MARK_WIDTH = 6
_INDENT = (0, 0, 0, 2)  # of what a line gave
_SOON = 0.4  # s; what is over by then is not worth a word


class ConsolePanel(Vertical):
    """Log, watches, a line that helps, the input; lines run in a thread of their own."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"say--prompt", "say--bad", "say--dim"}
    DEFAULT_CSS = """
    ConsolePanel {
        layers: base above;
        & > ConsoleLog { height: 1fr; padding: 0 1; background: $background; }
        & > #console-line { height: auto; }
        & #console-mark { width: 6; }
        & #console-input {
            width: 1fr; height: 1; padding: 0; background: transparent; scrollbar-size: 0 0;
            &:ansi { background: ansi_default; }
        }
        & > #console-hint { display: none; }
        & .say--prompt { color: $accent; }
        & .say--bad { color: $text-error; }
        & .say--dim { color: $foreground-muted; }
    }
    """

    class Idle(Message):
        """No line runs or waits any more."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._moe: Console | None = None
        self._thread: ConsoleThread | None = None
        self._session: Session | None = None
        self.ended = -math.inf  # when the last line was over, by the monotonic clock
        self._hint: list[Part] = []
        self._line = ""
        self._answer: Shared | None = None

    def compose(self) -> ComposeResult:
        """Log, watches, help, input, and the words over the log."""
        yield ConsoleLog()
        yield Watches()
        yield LineWidget(id="console-hint")
        with Horizontal(id="console-line"):
            yield LineWidget(id="console-mark")
            yield ConsoleInput()
        yield WordList()

    @property
    def _ascii(self) -> bool:
        return ink_of(self).ascii_only

    @property
    def log_view(self) -> ConsoleLog:
        """The log."""
        return self.query_one(ConsoleLog)

    @property
    def input(self) -> ConsoleInput:
        """The input."""
        return self.query_one(ConsoleInput)

    @property
    def busy(self) -> bool:
        """Whether a line runs."""
        return self._thread is not None and self._thread.busy > 0

    def on_mount(self) -> None:
        """Take the session at once: a line may be typed before anything was painted."""
        self._session = getattr(self.app, "session", None)
        if self._session is not None:
            self._open(self._session, getattr(self.app, "options", ScreenOptions()))
        self._say()

    def _open(self, session: Session, options: ScreenOptions) -> None:
        history = History(None if options.state is None else options.state / history_path().name)
        python = runs_python(options, os.environ) and not self.app.is_web
        self._moe = Console(session, python=python, history=history, ascii_only=self._ascii)
        self._thread = ConsoleThread(self._moe, echo=self._echo, show=self._show, changed=self._changed)
        if session.state is not RunState.LOADING:
            self._thread.begin()
        self.input.attach(self._moe)
        dim = styles_of(self, "say")("dim")
        self.log_view.put(Text("help lists the commands; tab completes, ctrl+r searches earlier lines", dim))
        if history.problem:
            self.log_view.put(Text(drawable(history.problem), dim))

    def refresh_from(self, view: TimelineView, session: Session) -> None:
        """Show what is watched; the log shows what was typed, not the timeline."""
        rows = [] if self._moe is None else self._moe.watched(view).data or []
        stands = session.state is not RunState.RUNNING
        self.query_one(Watches).show(rows, stands=stands, most=max(1, self.size.height // 4))

    def select(self, selection: Selection) -> None:
        """The console has no selection of its own."""

    def type_in(self, line: str, at: int | None = None) -> None:
        """Put a line into the input, not yet run, with the cursor behind so many characters or at its end."""
        self.input.value = line
        if at is not None:
            self.input.move_cursor(self.input.location_of(at))
        self.input.focus()

    def begin(self) -> None:
        """There is a model: run the lines that waited for it."""
        if self._thread is not None:
            self._thread.begin()
            self._say()

    def run_line(self, line: str) -> None:
        """Run a line as if it had been typed, once there is a model."""
        if self._thread is not None:
            self._thread.run(line)

    def run_script(self, name: str, lines: Sequence[str], done: Callable[[bool], None]) -> None:
        """Run the lines of a script one after the other, up to the first that fails.

        Args:
            name: of its file, for the error.
            done: told whether all went well.
        """
        if self._thread is not None:
            self._thread.run_script(name, lines, done)

    def interrupt(self) -> bool:
        """Give up what runs; False if nothing does."""
        if self._thread is None or not self._thread.busy:
            return False
        self._thread.interrupt()
        return True

    def on_unmount(self) -> None:
        """Let the thread end."""
        if self._thread is not None:
            self._thread.end()

    # ------------------------------------------------------------------ lines and what comes of them

    @on(ConsoleInput.Sent)
    def _sent(self, event: ConsoleInput.Sent) -> None:
        event.stop()
        self.run_line(event.text)

    def shared(self) -> Shared | None:
        """The tables of the newest answer in the log that has any."""
        return self._answer

    def _keep_tables(self, result: Result) -> None:
        tables = tables_of(result.renderables)
        if tables:
            self._answer = (f"moetui-{_command(self._line)}", lambda: _rows(tables))

    def _echo(self, line: str) -> None:
        if not self.is_mounted:
            return
        self._line = line
        prompt = styles_of(self, "say")("prompt")
        first, more = ("moe> ", "  .. ") if self._ascii else ("moe› ", "  ·· ")
        text = Text()
        for number, row in enumerate(line.rstrip().split("\n")):
            text.append("\n" if number else "").append(more if number else first, prompt).append(drawable(row))
        self.log_view.put(text)

    def _show(self, result: Result) -> None:
        if self.is_mounted:
            self.write(result)
            if self._session is not None:
                self.refresh_from(self._session.timeline.snapshot(), self._session)

    def write(self, result: Result) -> None:
        """Append a result to the log."""
        if result.clear:
            self._cleared()
        self._keep_tables(result)
        style = styles_of(self, "say")
        shown: list[RenderableType] = list(result.renderables)
        if result.error:
            shown.append(Text(f"error: {result.error}", style("bad")))
        if result.hint:
            shown.append(Text(f"hint: {result.hint}", style("dim")))
        for renderable in shown:
            self.log_view.put(Padding(renderable, _INDENT))

    def note(self, line: str) -> None:
        """Append what nobody typed anything for; who reads further up is left there."""
        self.log_view.put(Padding(Text(drawable(line), styles_of(self, "say")("dim")), _INDENT), follow=False)

    @on(ConsoleInput.LogScrolled)
    def _scrolled(self, event: ConsoleInput.LogScrolled) -> None:
        self.log_view.scroll_pages(event.pages)

    @on(ConsoleInput.LogCleared)
    def _cleared(self) -> None:
        self.log_view.empty()
        self._answer = None

    # ------------------------------------------------------------------ what helps while typing

    @on(ConsoleInput.Edited)
    def _edited(self, event: ConsoleInput.Edited) -> None:
        event.stop()
        self._say()
        line = self.input
        x = _MARK_WIDTH + line.location_of(line.words_start)[1]
        below = (line.styles.height.value if line.styles.height is not None else 1) + bool(self._hint)
        self.query_one(WordList).show(event.words, event.chosen, x, int(below))

    @on(WordList.Picked)
    def _picked(self, event: WordList.Picked) -> None:
        event.stop()
        self.input.take(event.number)

    def _changed(self) -> None:
        if self.is_mounted:
            self.set_timer(_SOON, self._say)
            if not self.busy:
                self.ended = time.monotonic()
                self._say()
                self.post_message(self.Idle())

    def _say(self) -> None:
        """Say in the line over the input what there is to say, or nothing."""
        line = self.input
        mark = "find" if line.search is not None else "moe"
        self.query_one("#console-mark", LineWidget).show(
            [Part(f"{mark:>4}{'>' if self._ascii else '›'} ", "accent")],
        )
        self._hint = self._help_with(line)
        hint = self.query_one("#console-hint", LineWidget)
        hint.display = bool(self._hint)
        hint.show([Part(" " * _MARK_WIDTH), *self._hint])

    def _help_with(self, line: ConsoleInput) -> list[Part]:
        if line.search is not None:
            found = "no line with " if line.search.failed else "" if line.search.needle else "type what to look for"
            return [
                Part(f"{found}{drawable(line.search.needle)}", "bad" if line.search.failed else "strong"),
                Part("   ctrl+r older  enter run  right edit  esc back", "dim", 1),
            ]
        if self._thread is not None and self._thread.held and not line.text:
            count = self._thread.busy
            what = f"{count} waiting: they run" if count > 1 else "1 waiting: it runs" if count else "a line runs"
            give_up = [Part("   ctrl+c gives up", "dim", 1)] if count else []
            return [Part(f"the model is loading, {what} when it is ready", "warn"), *give_up]
        if self.busy and not line.text:
            waiting = f", {self._thread.busy - 1} waiting" if self._thread and self._thread.busy > 1 else ""
            return [Part(f"running{waiting}", "warn"), Part("   ctrl+c gives it up", "dim", 1)]
        chosen = line.chosen_word
        text, cursor = (chosen + " ", len(chosen) + 1) if chosen else (line.text, line.cursor_position)
        hint = self._moe.hint(text, cursor) if self._moe is not None else ""
        return [Part(hint, "dim")] if hint else []


def _command(line: str) -> str:
    """The name of what a line calls, for a file's name."""
    found = re.match(r"\s*(?:moe\.)?([A-Za-z_]\w*)", line, re.ASCII)
    return found[1].lower().replace("_", "-")[:32] if found else "answer"


def _rows(tables: Sequence[Tabular]) -> Rows:
    """The tables one below the other, an empty row between them."""
    for number, table in enumerate(tables):
        if number:
            yield ()
        yield from table.plain_rows()
