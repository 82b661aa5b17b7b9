"""A trace that is being written while the model runs."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

from moetui.routing import ModelInfo, UsageError, drawable
from moetui.routing.events import Event, GenerationSettings
from moetui.routing.steps import Steps

_OLDEST = 0.95  # seconds: nothing is older when it is safe
_MOST = 256  # steps that may wait, as many as may wait for the recorder


class Recording:
    """A trace writer that can be closed while another thread is held up by the disk.

    Args:
        path: the file.
        info: the model.
        settings: of the first run, for the header.
        prompt: of the first run, for the header.
        overwrite: replace an existing file.

    Raises:
        UsageError: the file exists already, or its folder does not.
        TraceError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        info: ModelInfo,
        *,
        settings: GenerationSettings | None = None,
        prompt: str = "",
        overwrite: bool = False,
        has_logits: bool = True,
    ) -> None:
        check_target(path, overwrite=overwrite)
        self.path = path
        self._lock = threading.Lock()
        self._closed = self._begun = False
        from moetui.trace import TraceWriter
        from moetui.trace.ticker import Ticker

        self._waiting: deque[Steps | Event] = deque()
        self._soon = Ticker(self._write_soon, 0.0)
        self._refused = ""
        self._writer = TraceWriter(
            path,
            info,
            settings=settings,
            prompt=prompt,
            overwrite=overwrite,
            flush_seconds=_OLDEST,
            has_logits=has_logits,
        )

    def __repr__(self) -> str:
        state = self.problem or ("ended" if self._closed else "going on")
        return f"<recording into {drawable(str(self.path))}: {state}, {self.nbytes:,} bytes>"

    @property
    def linger(self) -> float:
        """Seconds that a step may take to come here; may be changed at any time."""
        return _OLDEST - self._writer.flush_seconds

    @linger.setter
    def linger(self, seconds: float) -> None:
        self._writer.flush_seconds = _OLDEST - seconds

    @property
    def nbytes(self) -> int:
        """Bytes written so far."""
        return self._writer.nbytes

    @property
    def closed(self) -> bool:
        """Whether it was ended: what comes now is not kept."""
        return self._closed

    @property
    def problem(self) -> str:
        """What ended the recording early, one line; empty while all is well."""
        return self._writer.problem or self._refused

    def write_steps(self, steps: Steps, *, aside: bool = False) -> None:
        """Append steps; never raises for a full disk (see ``problem``).

        Args:
            aside: let a thread of the recording's own do it, unless hundreds of steps wait for that already.
        """
        self._waiting.append(steps)
        if aside and sum(map(_passes, self._waiting.copy())) < _MOST:
            self._soon.wind()
        else:
            self._write()

    def write_event(self, event: Event) -> None:
        """Append an event, if it is of a lasting kind."""
        self._waiting.append(event)
        self._write()

    def flush(self) -> None:
        """Write all that came so far to the file."""
        with self._lock:
            self._hand_on()
            self._writer.flush()

    def _write(self) -> None:
        """Hand on what waits, in its order; what comes after the end is not kept."""
        with self._lock:
            self._hand_on()

    def _write_soon(self) -> None:
        try:
            self._write()
        except ValueError as error:  # nobody is there to be told at once
            self._refused = f"a step was not recorded: {error}"

    def _hand_on(self) -> None:
        while self._waiting:
            item = self._waiting.popleft()
            if self._closed:
                continue
            if isinstance(item, Steps):
                self._begun = True
                self._writer.write_steps(item)
            else:
                self._writer.write_event(item)

    def close(self, *, complete: bool = True, timeout: float = -1) -> bool:
        """End the file properly; where no step came, there is none, and one that it was to replace stays.

        Returns:
            False if another thread was still writing after ``timeout`` seconds (-1: wait).
        """
        if not self._lock.acquire(timeout=timeout):
            return False
        try:
            self._hand_on()
            if not self._closed:
                self._closed = True
                if self._begun:
                    self._writer.close(complete=complete)
                else:
                    self._writer.discard()
        finally:
            self._lock.release()
        self._soon.stop()
        return True


def _passes(item: Steps | Event) -> int:
    return len(item) if isinstance(item, Steps) else 0


def check_target(path: Path, *, overwrite: bool) -> None:
    """Say that a trace cannot be written there, before a model is loaded for it.

    Raises:
        UsageError: the file exists (without ``overwrite``), is being written or a folder, or its folder does not exist.
    """
    from moetui.trace.target import being_written

    if path.is_dir():
        raise UsageError(f"{path} is a directory", "name a file")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already", "--force or overwrite=True replaces it")
    if path.is_file() and being_written(path):
        raise UsageError(f"{path} is being written by another recording", "close that first, or name another file")
    if not path.parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}", "make it first, or write somewhere else")
