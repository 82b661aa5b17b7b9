"""Waiting for the generation thread, in a way that a person can interrupt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import Any

from moetui.routing import MoetuiError, UnsupportedError

_GLANCE = 0.05  # s between looks at a session that gives no sign


class InterruptedWaitError(MoetuiError):
    """A person gave up waiting."""

    def __init__(self) -> None:
        super().__init__("interrupted", "the model goes on; 'stop' ends its run")


class Waiter:
    """Waits for one thing at a time, in the thread that runs the console's lines."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._interrupted = False
        self._model_thread: int | None = None
        self._whole = self._put_off = False

    def begin(self) -> None:
        """A new line: interruptions of earlier ones are forgotten."""
        with self._changed:
            self._interrupted = False

    def interrupt(self) -> None:
        """End a wait, from any thread."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def enter(self, thread: int | None) -> None:
        """The line's Python runs in this thread from now on; None: no longer."""
        self._model_thread = thread
        self._whole = self._put_off = False

    def inside(self, thread: int) -> bool:
        """Whether ``thread`` is the one that would have to do the work that is waited for."""
        return thread == self._model_thread

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within it an interruption of Python in the model's thread waits for the end, where it is raised.

        What a command does to the model there, it puts back behind it. Elsewhere this has no effect.

        Raises:
            KeyboardInterrupt: one came meanwhile.
        """
        if self._whole or not self.inside(threading.get_ident()):
            yield
            return
        try:
            self._whole = True
            yield
        finally:
            with self._changed:
                came = self._put_off
                self._whole = self._put_off = False
            if came:
                raise KeyboardInterrupt

    def put_off(self) -> bool:
        """Have an interruption come later, if something is done that must be done whole; from any thread."""
        with self._changed:
            self._put_off = self._whole
            return self._whole

    def result(self, future: Future[Any]) -> Any:
        """The future's result, or what it raised.

        Raises:
            InterruptedWaitError: someone called ``interrupt``.
            UnsupportedError: the calling thread would wait for itself.
        """
        if self.inside(threading.get_ident()) and not future.done():
            future.cancel()
            raise UnsupportedError("this would wait for the thread it runs in", "call it on a line of its own")
        future.add_done_callback(self._notify)
        with self._changed:
            self._changed.wait_for(lambda: future.done() or self._interrupted)
        if not future.done():
            future.cancel()
            raise InterruptedWaitError
        try:
            return future.result()
        except CancelledError:
            raise UnsupportedError("the session was closed meanwhile") from None

    def until(self, done: Callable[[float], bool]) -> None:
        """Ask ``done(seconds)``, which may wait so long, until it says yes.

        Raises:
            InterruptedWaitError: someone called ``interrupt``.
        """
        while not done(_GLANCE):
            with self._changed:
                if self._interrupted:
                    raise InterruptedWaitError
                self._changed.wait(0.001)

    def _notify(self, _: Future[Any]) -> None:
        with self._changed:
            self._changed.notify_all()
