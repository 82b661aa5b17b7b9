"""The thread in which a console's lines run, one after the other: each may wait for the model."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from functools import partial

from moetui.console import Console, Result
from moetui.routing import MoetuiError, drawable

Later = Callable[[Callable[[], None]], None]
Job = Callable[[Later], None]
"""Something to do in the console's thread; it hands what is to be shown to the loop."""


class ConsoleThread:
    """Runs lines and scripts on a console, from ``begin`` on: what comes before it is held.

    All callbacks are called on the event loop that ``begin`` was called on.

    Args:
        console: what they run on.
        echo: told of each line as it begins, of a script's when it is over.
        show: told of what a line came to.
        changed: told when the number of jobs waiting or running is another.
    """

    def __init__(
        self,
        console: Console,
        *,
        echo: Callable[[str], None],
        show: Callable[[Result], None],
        changed: Callable[[], None],
    ) -> None:
        self._console = console
        self._echo, self._show, self._changed = echo, show, changed
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._early: deque[Job] | None = deque()  # until the thread may begin
        self._thread: threading.Thread | None = None
        self.busy = 0

    @property
    def held(self) -> bool:
        """Whether lines are held until ``begin``."""
        return self._early is not None

    def begin(self) -> None:
        """Run what was held, and from now on whatever comes; no effect the second time."""
        early, self._early = self._early, None
        for job in early or ():
            self._hand_on(job)

    def run(self, line: str) -> None:
        """Run one line."""
        self._put(partial(self._run_line, line))

    def run_script(self, name: str, lines: Sequence[str], done: Callable[[bool], None]) -> None:
        """Run the lines of a script one after the other, up to the first that fails, before all lines that are held.

        Args:
            name: of its file, for the error.
            done: told whether all went well.
        """
        self._put(partial(self._run_lines, name, tuple(lines), done), first=True)

    def interrupt(self) -> None:
        """Give up the line that runs, and those that wait."""
        if self._early is not None:
            self.busy -= len(self._early)
            self._early.clear()
        while True:
            try:
                self._jobs.get_nowait()
            except queue.Empty:
                break
            self.busy -= 1
        self._console.interrupt()
        self._changed()

    def end(self) -> None:
        """Let the thread end; it is a daemon, should a line never return."""
        self._jobs.put(None)

    def _put(self, job: Job, *, first: bool = False) -> None:
        self.busy += 1
        self._changed()
        if self._early is None:
            self._hand_on(job)
        elif first:
            self._early.appendleft(job)
        else:
            self._early.append(job)

    def _hand_on(self, job: Job) -> None:
        if self._thread is None:
            loop = asyncio.get_running_loop()
            arguments = (loop, copy_context())
            self._thread = threading.Thread(target=self._work, args=arguments, daemon=True, name="moetui-console")
            self._thread.start()
        self._jobs.put(job)

    def _work(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        def later(call: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(call, context=context)  # the app's own: widgets find their app by it

        try:
            while (job := self._jobs.get()) is not None:
                job(later)
        except RuntimeError:  # the loop was closed meanwhile: nobody is there to read it
            return

    def _run_line(self, line: str, later: Later) -> None:
        later(partial(self._echo, line))
        result = self._console.run(line)
        later(partial(self._done, result))

    def _run_lines(self, name: str, lines: Sequence[str], done: Callable[[bool], None], later: Later) -> None:
        def begin(line: str) -> None:
            later(partial(self._echo, line))

        def show(line: str, result: Result) -> None:
            del line
            if not result.error:  # the failing one is told of with its place
                later(partial(self._show, result))

        try:
            self._console.run_script(lines, show, begin=begin)
        except MoetuiError as error:
            failed = Result(error=f"{drawable(name)}, {drawable(error.message)}", hint=drawable(error.hint))
            later(partial(self._done, failed))
            later(partial(done, False))
        else:
            later(partial(self._done, Result()))
            later(partial(done, True))

    def _done(self, result: Result) -> None:
        self.busy -= 1
        self._show(result)
        self._changed()
