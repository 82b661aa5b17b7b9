"""Events from the threads to the one reader on the event loop: bounded, merging, never blocking the sender."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator

import janus

from moetui.routing.events import (
    BreakpointHit,
    Event,
    LoadProgress,
    Notice,
    RecordingChanged,
    RunState,
    RunStateChanged,
    StepCaptured,
)

_NEWEST_COUNTS = (StepCaptured, LoadProgress, RecordingChanged)
_PASSING = (RunState.RUNNING, RunState.PAUSED)
_REST = 0.1  # s between two events of which the newest counts: waking the event loop for each step costs the model time


class Mailbox:
    """What a session puts its events into, and what ``Session.events`` reads from.

    While the reader is slow, events merge: of ``StepCaptured``, ``LoadProgress`` and ``RecordingChanged`` the newest
    replaces those waiting (it moves to the end, so that what it tells of was told before), and a ``RunStateChanged``
    replaces a waiting one right before it if that said only running or paused. After one whose newest counts, the
    reader is left alone for a moment, unless an event of another kind comes. If still more than ``capacity`` events
    wait, log lines leave first, then the oldest others, and a ``Notice`` says how many.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = max(2, capacity)
        self._lock = threading.Lock()
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._closed = False
        self._resting = False
        self._bell: janus.Queue[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called: nothing is taken any more."""
        return self._closed

    def put(self, event: Event) -> None:
        """Add an event, from any thread; returns at once, whatever the reader does. No effect after ``close``."""
        with self._lock:
            if self._closed:
                return
            self._merge(event)
            self._waiting.append(event)
            if len(self._waiting) > self._capacity:
                self._drop_one()
            bell = None if self._resting and isinstance(event, _NEWEST_COUNTS) else self._bell
        if bell is not None:
            _ring(bell)

    async def events(self) -> AsyncIterator[Event]:
        """What was put, in order; ends when all that was put before ``close`` was read.

        One reader at a time. A later one, on the same event loop or another, gets what the earlier one left.
        """
        bell: janus.Queue[None] = janus.Queue(1)  # holds one ring at most, however many events come
        with self._lock:
            self._bell = bell
            if self._closed:
                bell.shutdown()
        while True:
            event = self._take()
            if event is not None:
                yield event
                if isinstance(event, _NEWEST_COUNTS):
                    await self._rest(bell)
                continue
            try:
                await bell.async_q.get()
            except janus.AsyncQueueShutDown:
                if not self._waiting:
                    return

    async def _rest(self, bell: janus.Queue[None]) -> None:
        """Wait until something else than a newer count comes, or a moment has passed."""
        with self._lock:
            if self._closed or not all(isinstance(event, _NEWEST_COUNTS) for event in self._waiting):
                return
            while not bell.async_q.empty():  # rung for what waits already
                bell.async_q.get_nowait()
            self._resting = True
        try:
            await asyncio.wait_for(bell.async_q.get(), _REST)
        except (asyncio.TimeoutError, janus.AsyncQueueShutDown):
            return
        finally:
            self._resting = False

    def close(self) -> None:
        """Take nothing more; the reader gets what is waiting and then ends."""
        with self._lock:
            self._closed = True
            bell = self._bell
        if bell is not None:
            try:
                bell.shutdown()
            except RuntimeError:  # its event loop was closed meanwhile: nobody waits
                return

    def _take(self) -> Event | None:
        with self._lock:
            if self._lost:
                lost, self._lost = self._lost, 0
                return Notice(f"{lost} events came faster than they could be shown and are missing here", "warning")
            return self._waiting.popleft() if self._waiting else None

    def _merge(self, event: Event) -> None:
        waiting = self._waiting
        if isinstance(event, _NEWEST_COUNTS):
            for index in range(len(waiting) - 1, -1, -1):
                if type(waiting[index]) is type(event):
                    del waiting[index]
                    return
        elif isinstance(event, RunStateChanged) and waiting:
            last = waiting[-1]
            if isinstance(last, RunStateChanged) and last.state in _PASSING:
                waiting.pop()

    def _drop_one(self) -> None:
        self._lost += 1
        for index, event in enumerate(self._waiting):
            if isinstance(event, Notice) or (isinstance(event, BreakpointHit) and event.log_only):
                del self._waiting[index]
                return
        self._waiting.popleft()


def _ring(bell: janus.Queue[None]) -> None:
    try:
        bell.sync_q.put_nowait(None)
    except (janus.SyncQueueFull, janus.SyncQueueShutDown):
        return  # the reader wakes up anyway
    except RuntimeError:  # its event loop was closed meanwhile: nobody waits
        return
