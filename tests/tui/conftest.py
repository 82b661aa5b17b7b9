"""A pilot that waits for what it set going, however little of the processor it gets."""

from __future__ import annotations

import asyncio
import time

import pytest
import textual.app
import textual.pilot

_GLANCE = 0.02  # s; Textual's own timers that follow a key or another size are shorter
_IDLE = 0.001  # s of processor time within a glance
_PATIENCE = 30.0  # s


async def wait_for_idle(min_sleep: float = _GLANCE, max_sleep: float = 1.0) -> None:
    """Wait as Textual's function of this name does, but not on processor time alone.

    A process that gets no processor for a while has used none of it, and looks idle with all its work before it: what
    the event loop has to do is done first, and then looked at.
    """
    began = time.monotonic()
    for _ in range(round(max_sleep / _GLANCE)):
        spent = time.process_time()
        await asyncio.sleep(_GLANCE)
        await _nothing_to_do()
        if time.monotonic() - began > min_sleep and time.process_time() - spent < _IDLE:
            return


async def _nothing_to_do() -> None:
    """Wait until the event loop has nothing ready, in several rounds: what files and threads bring comes in a round."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    end, quiet = time.monotonic() + _PATIENCE, 0
    while quiet < 3 and time.monotonic() < end:
        await asyncio.sleep(0)
        quiet = 0 if ready else quiet + 1


@pytest.fixture(autouse=True)
def patient_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and pauses of a pilot wait with the function above."""
    for module in (textual.app, textual.pilot):
        monkeypatch.setattr(module, "wait_for_idle", wait_for_idle)
