"""A terminal that nobody reads from: the model and the recording go on without it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from moetui.routing import TraceError
from moetui.trace import open_trace
from tests.tui.pty_terminal import terminal

PATIENCE = 90.0  # s: torch on a busy machine
TOKENS = 480  # of the 512 that the model has: the screen may be late to show that the run has begun


def test_a_reader_that_stops_delays_neither_generation_nor_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.msgpack"
    home = {name: str(tmp_path) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}
    command = [sys.executable, "-m", "moetui", "run", "demo", "-n", str(TOKENS), "--seed", "1", "--temperature", "1"]
    with terminal([*command, "--record", str(path)], columns=120, rows=40, environ=home) as opened:
        opened.sees("ready", PATIENCE)
        opened.send("Once there was\r")
        opened.sees("token", PATIENCE)
        drawn = len(opened.received)
        # From here on nothing is read: what the screen sends fills the terminal's buffer, and no more gets out.
        opened.send("4121412141")
        begun = recorded(path)
        until(lambda: recorded(path) >= begun + 150, PATIENCE)
        assert len(opened.received) == drawn
        opened.sees("finished", PATIENCE)
        opened.send("\x11")
        assert opened.wait(20)[0] == 0


def recorded(path: Path) -> int:
    """Tokens in a recording so far; 0 before there is one."""
    try:
        with open_trace(path) as trace:
            return trace.num_tokens
    except TraceError:
        return 0


def until(true: Callable[[], bool], seconds: float) -> None:
    """Wait for something that only another process can say, by asking it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be while nobody read"
        time.sleep(0.05)
