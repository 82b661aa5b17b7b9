"""A thread that calls a function some time after it was wound up."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Ticker:
    """Calls ``function`` from its own thread, ``seconds`` after the first ``wind`` since the last call.

    ``seconds`` may be changed at any time: it holds from the next such ``wind`` on. The thread starts with the first
    ``wind`` and never keeps a process alive.
    """

    def __init__(self, function: Callable[[], None], seconds: float) -> None:
        self._function = function
        self.seconds = seconds
        self._wound = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def wind(self) -> None:
        """Ask for a call; cheap if one is pending already. Any thread may."""
        if self._wound.is_set() or self._stopped.is_set():
            return
        self._wound.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._stopped.is_set():
                    self._thread = threading.Thread(target=self._run, name="moetui-trace-flush", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """End the thread; a pending call does not happen any more."""
        with self._starting:
            self._stopped.set()
        self._wound.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._wound.wait()
            if self._stopped.wait(self.seconds):
                return
            self._wound.clear()  # before the call: what comes during it is due after it
            if self._stopped.is_set():  # just now: its winding may be what was cleared
                return
            self._function()
