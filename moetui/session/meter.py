"""What capturing a run costs, measured beside the run."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from moetui.debugger import MoEDebugger


class Meter:
    """Wall time of a run, and the part of it that capturing took.

    Args:
        waited: seconds that the generating thread has stood before sites so far: no part of a run's time.
    """

    def __init__(self, waited: Callable[[], float]) -> None:
        self._waited = waited
        self._debugger: MoEDebugger | None = None
        self._began = 0.0
        self._seconds = 0.0
        self._before: tuple[float, ...] = (0.0,) * 4

    def start(self, debugger: MoEDebugger) -> None:
        """A run begins."""
        self._debugger = debugger
        self._before = self._spent()
        self._began, self._seconds = perf_counter(), 0.0

    def stop(self) -> None:
        """The run is over."""
        self._seconds = perf_counter() - self._began

    def shares(self) -> dict[str, float]:
        """Part → share of the run's wall time so far: hooks, the way to the recorder, and the recorder."""
        if self._debugger is None:
            return {}
        seconds = self._seconds or perf_counter() - self._began
        hooks, copy, recorder, waited = (now - before for now, before in zip(self._spent(), self._before))
        seconds = max(seconds - waited, 1e-6)
        return {
            "hooks": hooks / seconds,
            "copy": copy / seconds,
            "recorder": recorder / seconds,
        }

    def _spent(self) -> tuple[float, ...]:
        assert self._debugger is not None
        capture = self._debugger.capture
        return capture.hook_ns / 1e9, capture.put_ns / 1e9, capture.recorder_ns / 1e9, self._waited()
