"""The thread that turns what the hooks saw into steps, and hands them on in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from time import perf_counter_ns

from moetui.engine.adapters.base import SiteHandle
from moetui.engine.assemble import Assembler
from moetui.engine.options import CaptureOptions
from moetui.engine.raw import RawStep
from moetui.engine.texts import TokenTexts
from moetui.engine.transfer import Parcel, pack
from moetui.routing import ModelInfo, Step
from moetui.routing.events import Event, Finding, FindingRaised


class Recorder:
    """Owns a daemon thread; ``put`` is called in the generating thread, ``on_step`` and ``on_event`` in its own.

    A bounded queue lies between the two: when the recorder is that many steps behind, ``put`` waits.
    """

    def __init__(
        self,
        handles: tuple[SiteHandle, ...],
        info: ModelInfo,
        options: CaptureOptions,
        texts: TokenTexts,
        on_step: Callable[[Step], None],
        on_event: Callable[[Event], None],
    ) -> None:
        self._assembler = Assembler(handles, info, options, texts, on_event, perf_counter_ns())
        self._options = options
        self._on_step, self._on_event = on_step, on_event
        self._room = threading.Semaphore(options.queue)
        self._queue: queue.SimpleQueue[Parcel | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="moetui-recorder", daemon=True)
        self._thread.start()

    def put(self, raw: RawStep) -> None:
        """Take a finished forward pass: start its way off the device and queue it."""
        parcel = pack(raw, self._assembler)
        self._room.acquire()
        self._queue.put(parcel)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was put before is handed on; False if it took longer than ``timeout`` seconds."""
        if not self._thread.is_alive() or threading.current_thread() is self._thread:
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Hand on all that was put and end the thread; False if it took longer than ``timeout`` seconds."""
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                for step in self._assembler.steps(item):
                    self._on_step(step)
            except Exception as error:  # noqa: BLE001 - one bad step must not silence those after it
                self._report(item, error)
            finally:
                self._room.release()

    def _report(self, item: Parcel, error: Exception) -> None:
        message = f"step {item.raw.index} was not recorded: {type(error).__name__}: {error}"
        self._on_event(
            FindingRaised(Finding("step_lost", "error", message, "please report this with the model's name"))
        )
