"""Where the hooks of a model's modules find the pass that is going on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Own(threading.local):
    """What a thread's hooks write to.

    Attributes:
        frame: of the pass (``RawStep``); None outside of one.
        applied: the site whose function was applied to the call that is about to reach its experts; -1 for none.
    """

    frame: Any = None
    applied = -1


class Current:
    """The passes that are going on: one, or one in each of several threads.

    To read a thread's own storage costs a hook about as much as to be called at all. So the only pass that is going on
    has its sites' places lie open besides, for hooks that do not ask for their thread.

    Args:
        on_crowd: called in a thread that begins a pass while another thread's is going on, the first time. From then on
            hooks of that thread must not go by ``seen``, which is still the other's.

    Attributes:
        seen: ``RawStep.seen`` of the only pass; None where there is none, and where its hooks take their time.
        own: the calling thread's.
        crowded: whether ``on_crowd`` was called.
    """

    __slots__ = ("_alone", "_crowding", "_leave", "_on_crowd", "_take", "crowded", "own", "seen")

    def __init__(self, on_crowd: Callable[[], None] = lambda: None) -> None:
        self.own, self.crowded = Own(), False
        self.seen: list[Any] | None = None
        self._on_crowd, self._crowding = on_crowd, threading.Lock()
        lock = threading.Lock()
        self._take, self._leave = lock.acquire, lock.release
        self._alone: Any = None  # the frame of the pass that holds it

    @property
    def frame(self) -> Any:
        """The frame of this thread's pass; None outside of one."""
        return self.own.frame

    @frame.setter
    def frame(self, frame: Any) -> None:
        """Let this thread's hooks write there, by its own storage alone."""
        self.own.frame, self.own.applied = frame, -1

    def enter(self, frame: Any) -> None:
        """A pass begins in this thread; one that was left without an end is over."""
        own = self.own
        if self._take(False) or (own.frame is not None and own.frame is self._alone):
            self._alone = frame
            self.seen = None if frame.timed else frame.seen
        else:
            self._crowd()
        own.frame, own.applied = frame, -1

    def leave(self, frame: Any) -> None:
        """This thread's pass is over."""
        self.own.frame = None
        if self._alone is frame:
            self.seen = self._alone = None
            self._leave()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within it this thread's hooks find no pass, or those whose ``frame`` is set; afterwards the one before."""
        own = self.own
        frame, own.frame = own.frame, None
        alone = frame is not None and frame is self._alone
        taken = not alone and self._take(False)
        if not alone and not taken:
            self._crowd()
        seen = self.seen
        if alone or taken:
            self.seen = None
        try:
            yield
        finally:
            own.frame = frame
            if alone:
                self.seen = seen
            if taken:
                self._leave()

    def _crowd(self) -> None:
        with self._crowding:  # a third thread waits until that is done
            if not self.crowded:
                self.crowded = True
                self._on_crowd()
