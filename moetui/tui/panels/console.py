"""The Console tab, and the drawer under the others: a log of what was typed and came of it, and an input."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Key
from textual.widgets import Input, RichLog

from moetui.console import Console, Result
from moetui.routing import MoetuiError, TimelineView, drawable
from moetui.session import Session
from moetui.tui.ink import ink_of
from moetui.tui.lines import LineWidget, Part, styles_of
from moetui.tui.messages import Selection

_SCROLLBACK = 5000  # lines

_Later = Callable[[Callable[[], None]], None]
_Job = Callable[[_Later], None]
"""Something to do in the console's thread; it hands what is to be shown to the loop."""


class ConsoleInput(Input):
    """An input with history and completion."""

    HELP_TITLE = "console"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "earlier", "earlier line", show=False),
        Binding("down", "later", "later line", show=False),
        Binding("tab", "complete", "complete", priority=True),
        Binding("pageup", "scroll(-1)", "scroll the log up", show=False),
        Binding("pagedown", "scroll(1)", "scroll the log down", show=False),
        Binding("ctrl+l", "clear_log", "clear", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(placeholder="type help", compact=True, id="console-input", select_on_focus=False)
        self.cursor_blink = False
        self.history: list[str] = []
        self._at = 0
        self._draft = ""

    def remember(self, line: str) -> None:
        """Add a line to the history."""
        if not self.history or self.history[-1] != line:
            self.history.append(line)
        self._at = len(self.history)

    def action_earlier(self) -> None:
        """The line before."""
        self._go(-1)

    def action_later(self) -> None:
        """The line after; past the last one what was being typed."""
        self._go(1)

    def _go(self, by: int) -> None:
        if self._at == len(self.history):
            self._draft = self.value
        self._at = min(max(self._at + by, 0), len(self.history))
        self.value = self.history[self._at] if self._at < len(self.history) else self._draft
        self.cursor_position = len(self.value)

    async def _on_key(self, event: Key) -> None:
        # As a binding, Enter would make its way up to the app first: what was typed quickly after it came before it.
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            await self.action_submit()
            self.value = ""

    def action_complete(self) -> None:
        """Complete the word before the cursor."""
        panel = self.query_ancestor(ConsolePanel)
        panel.complete()

    def action_scroll(self, pages: int) -> None:
        """Scroll the log."""
        log = self.query_ancestor(ConsolePanel).log_view
        log.scroll_relative(y=pages * max(1, log.size.height - 1), animate=False)

    def action_clear_log(self) -> None:
        """Empty the log."""
        self.query_ancestor(ConsolePanel).log_view.clear()


class ConsolePanel(Vertical):
    """Log and input. Lines run one after the other in a thread of their own: one may wait for the model."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"say--prompt", "say--bad", "say--dim"}
    DEFAULT_CSS = """
    ConsolePanel {
        & > RichLog { height: 1fr; padding: 0 1; background: $background; }
        & > #console-line { height: 1; }
        & #console-mark { width: 6; }
        & #console-input { width: 1fr; background: transparent; }
        & > #console-words { display: none; }
        & .say--prompt { color: $accent; }
        & .say--bad { color: $text-error; }
        & .say--dim { color: $foreground-muted; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._moe: Console | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = 0

    def compose(self) -> ComposeResult:
        """Log, words to complete with, input."""
        log = RichLog(id="console-log", max_lines=_SCROLLBACK, wrap=True, markup=False, highlight=False, min_width=20)
        log.can_focus = False  # the input has the keys; page up and down scroll
        yield log
        yield LineWidget(id="console-words")
        with Horizontal(id="console-line"):
            mark = LineWidget(id="console-mark")
            mark.show([Part(" moe> " if self._ascii else " moe› ", "accent")])
            yield mark
            yield ConsoleInput()

    @property
    def _ascii(self) -> bool:
        return ink_of(self).ascii_only

    @property
    def log_view(self) -> RichLog:
        """The log."""
        return self.query_one(RichLog)

    @property
    def input(self) -> ConsoleInput:
        """The input."""
        return self.query_one(ConsoleInput)

    def on_mount(self) -> None:
        """Take the session at once: a line may be typed before anything was painted."""
        session = getattr(self.app, "session", None)
        if session is not None:
            self._moe = Console(session)

    def refresh_from(self, view: TimelineView, session: Session) -> None:
        """The log shows what was typed, not the timeline."""

    def select(self, selection: Selection) -> None:
        """The console has no selection of its own."""

    def type_in(self, line: str) -> None:
        """Put a line into the input, not yet run."""
        self.input.value = line
        self.input.cursor_position = len(line)
        self.input.focus()

    def on_unmount(self) -> None:
        """Let the thread end; it is a daemon, should a line never return."""
        self._jobs.put(None)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        line = event.value.strip()
        if not line or self._moe is None:
            return
        self.input.remember(line)
        self._show_words(())
        self._echo(line)
        self._put(partial(self._run_line, line))

    def run_script(self, name: str, lines: Sequence[str], done: Callable[[bool], None]) -> None:
        """Run the lines of a script one after the other, up to the first that fails.

        Args:
            name: of its file, for the error.
            done: told whether all went well.
        """
        self._put(partial(self._run_lines, name, tuple(lines), done))

    def _echo(self, line: str) -> None:
        mark = "moe> " if self._ascii else "moe› "
        self.log_view.write(Text.assemble((mark, styles_of(self, "say")("prompt")), drawable(line)))

    def _put(self, job: _Job) -> None:
        self._busy += 1
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, args=(loop,), daemon=True, name="moetui-console")
            self._thread.start()
        self._jobs.put(job)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        def later(call: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(call)

        try:
            while (job := self._jobs.get()) is not None:
                job(later)
        except RuntimeError:  # the loop was closed meanwhile: nobody is there to read it
            return

    def _run_line(self, line: str, later: _Later) -> None:
        assert self._moe is not None
        result = self._moe.run(line)
        later(lambda: self._done(result))

    def _run_lines(self, name: str, lines: Sequence[str], done: Callable[[bool], None], later: _Later) -> None:
        assert self._moe is not None

        def show(line: str, result: Result) -> None:
            later(partial(self._echo, line))
            if not result.error:  # the failing one is told of with its place
                later(partial(self._shown, result))

        try:
            self._moe.run_script(lines, show)
        except MoetuiError as error:
            failed = Result(error=f"{drawable(name)}, {drawable(error.message)}", hint=drawable(error.hint))
            later(partial(self._done, failed))
            later(partial(done, False))
        else:
            later(partial(self._done, Result()))
            later(partial(done, True))

    def _done(self, result: Result) -> None:
        self._busy -= 1
        self._shown(result)

    def _shown(self, result: Result) -> None:
        if self.is_mounted:
            self.write(result)

    def write(self, result: Result) -> None:
        """Append a result to the log."""
        style = styles_of(self, "say")
        shown: list[RenderableType] = list(result.renderables)
        if result.error:
            shown.append(Text(f"error: {result.error}", style("bad")))
        if result.hint:
            shown.append(Text(f"hint: {result.hint}", style("dim")))
        for renderable in shown:
            self.log_view.write(Padding(renderable, (0, 0, 0, 2)))

    def complete(self) -> None:
        """Complete the word before the cursor as far as it is certain, and show what it could be."""
        if self._moe is None:
            return
        text, cursor = self.input.value, self.input.cursor_position
        found = self._moe.complete(text, cursor)
        if found.words:
            common = os.path.commonprefix(list(found.words))  # noqa: RUF071 - characters, not paths
            tail = " " if len(found.words) == 1 and not text[cursor:].startswith(" ") else ""
            self.input.value = text[: found.start] + common + tail + text[cursor:]
            self.input.cursor_position = found.start + len(common + tail)
        self._show_words(found.words if len(found.words) > 1 else ())

    def _show_words(self, words: Sequence[str]) -> None:
        line = self.query_one("#console-words", LineWidget)
        line.display = bool(words)
        line.show([Part(" " * 6)] + [Part(f"{drawable(word)}  ", "dim", rank) for rank, word in enumerate(words, 1)])
