"""The way to the terminal: counts what is sent, survives one that is gone or stuck, and keeps nobody waiting."""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from textual.drivers._writer_thread import WriterThread
from textual.drivers.linux_driver import LinuxDriver

from moetui.tui.options import terminals

if TYPE_CHECKING:
    from textual.app import App

_PATIENCE = 0.4  # s to wait for the last bytes when leaving: a stuck line must not keep the person
_SPAN = 2.0  # s over which the rate is taken


class Meter:
    """Bytes over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()  # the writer's thread counts, the screen's asks
        self.total = 0

    def count(self, nbytes: int) -> None:
        """Note bytes sent now."""
        with self._lock:
            self.total += nbytes
            self._sent.append((self._clock(), nbytes))
            self._forget()

    def kilobytes(self) -> float:
        """Kilobytes a second."""
        with self._lock:
            self._forget()
            return sum(nbytes for _, nbytes in self._sent) / _SPAN / 1e3

    def _forget(self) -> None:
        limit = self._clock() - _SPAN
        while self._sent and self._sent[0][0] < limit:
            self._sent.popleft()


class Writer(WriterThread):
    """Writes in a thread of its own. Unlike Textual's it never blocks whoever writes, and outlives a dead terminal."""

    def __init__(self, file: IO[str], meter: Meter, on_lost: Callable[[], None]) -> None:
        super().__init__(file)
        self._meter = meter
        self._on_lost = on_lost
        self._wake = threading.Condition()
        self._texts: list[str] = []
        self._ended = False
        self.lost = False

    def write(self, text: str) -> None:
        """Send text soon."""
        with self._wake:
            self._texts.append(text)
            self._wake.notify()

    def run(self) -> None:
        """Send until stopped; what has come meanwhile goes in one write."""
        while True:
            with self._wake:
                while not self._texts and not self._ended:
                    self._wake.wait()
                texts, self._texts = self._texts, []
                if not texts:
                    return
            self._send("".join(texts))

    def _send(self, text: str) -> None:
        if self.lost:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except (OSError, ValueError):  # the terminal is gone, or its file closed
            self.lost = True
            self._on_lost()
            return
        self._meter.count(len(text.encode("utf-8", "replace")))

    def stop(self) -> None:
        """Send what is left, and end; a stuck terminal is left behind after a moment."""
        with self._wake:
            self._ended = True
            self._wake.notify()
        self.join(_PATIENCE)


class TerminalDriver(LinuxDriver):
    """Textual's driver with a writer of our own, on whichever of standard error and output is the terminal."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        files = terminals()
        if files:
            self._file = files[0]
        self.meter = Meter()

    def start_application_mode(self) -> None:
        """Enter the alternate screen."""
        super().start_application_mode()  # type: ignore[no-untyped-call]
        stock = self._writer_thread
        if stock is None or self._file is None:  # started in the background: the shell will bring it to the front
            return
        writer = Writer(self._file, self.meter, self._lost)
        self._writer_thread = writer
        stock.stop()
        writer.start()

    def _enable_mouse_support(self) -> None:
        look = getattr(self._app, "look", None)
        if not self._mouse or look is None or not look.slow:
            super()._enable_mouse_support()
            return
        self.write("\x1b[?1000h\x1b[?1006h")  # clicks and the wheel; every motion would be sent upstream

    def hung_up(self) -> bool:
        """Whether the terminal is gone: nobody can type or see anything any more."""
        poll = select.poll()
        poll.register(self.fileno, select.POLLIN)
        return any(found & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, found in poll.poll(0))

    def _lost(self) -> None:
        self._loop.call_soon_threadsafe(self._app.exit, 129)
