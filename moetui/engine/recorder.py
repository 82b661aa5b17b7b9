"""The thread that turns what the hooks saw into steps, and hands them on in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moetui.engine.assemble import Assembler
from moetui.engine.gather import Gathered, Gatherer, each_tensor
from moetui.engine.raw import RawStep
from moetui.engine.transfer import Transfer
from moetui.routing import Step

_GONE = torch.empty(0)

Study = Callable[[Gathered], None]
"""Looks at each gathered pass on the host, before its steps are handed on."""


@dataclass(slots=True, eq=False)
class _Parcel:
    """A pass on its way: still raw, or gathered with its tensors under way."""

    raw: RawStep
    gathered: Gathered | None = None
    transfer: Transfer | None = None


class Recorder:
    """Owns a daemon thread; ``put`` is called in the generating thread, every callable given here in its own.

    A bounded queue lies between the two: only when the recorder is that many steps behind does ``put`` wait.

    Args:
        gatherer, assembler: the two halves of the work.
        on_step: called with each step.
        study: called with each pass on the host, before its steps.
        on_error: called with the pass's number and what went wrong with it.
        queue_size: steps that may wait.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        assembler: Assembler,
        on_step: Callable[[Step], None],
        study: Study,
        on_error: Callable[[int, Exception], None],
        queue_size: int = 256,
    ) -> None:
        self._gatherer, self._assembler = gatherer, assembler
        self._on_step, self._study, self._on_error = on_step, study, on_error
        self._room = threading.Semaphore(queue_size)
        self._queue: queue.SimpleQueue[_Parcel | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="moetui-recorder", daemon=True)
        self._thread.start()

    def put(self, raw: RawStep) -> None:
        """Take a finished pass. Off the host, or with a graph attached, it is gathered here and now."""
        parcel = _Parcel(raw)
        if torch.is_grad_enabled() or not _on_host(raw):
            with torch.no_grad():
                parcel.gathered = self._gatherer.gather(raw)
                parcel.transfer = _send(parcel.gathered)
            raw.seen, raw.router_outputs, raw.logits = [], [], None
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
        torch.set_grad_enabled(False)  # of this thread alone
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                self._record(item)
            except Exception as error:  # noqa: BLE001 - one bad step must not silence those after it
                self._on_error(item.raw.index, error)
            finally:
                self._room.release()

    def _record(self, parcel: _Parcel) -> None:
        gathered = parcel.gathered
        if gathered is None:
            gathered = self._gatherer.gather(parcel.raw)
        elif parcel.transfer is not None:
            arrived = iter(parcel.transfer.arrived())
            each_tensor(gathered, lambda _: next(arrived))
        self._study(gathered)
        for step in self._assembler.steps(gathered):
            self._on_step(step)


def _on_host(raw: RawStep) -> bool:
    """Whether nothing that the sites' hooks saw lies on another device."""
    for seen in raw.seen:
        first = seen.routing[0]
        tensor = first if isinstance(first, Tensor) else first[0]
        if not tensor.is_cpu:
            return False
    return True


def _send(gathered: Gathered) -> Transfer:
    tensors: list[Tensor] = []

    def take(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    each_tensor(gathered, take)
    transfer = Transfer(tensors)
    # The device's memory must not wait for the recorder.
    each_tensor(gathered, lambda _: _GONE)
    return transfer
