"""Run a shell command in a real terminal, have moetui's screen there run a prompt, quit it, and pass on its status."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable

ROWS, COLUMNS = 40, 120
PATIENCE = 900.0  # s: an installation from nothing is part of the command
SIGNS = (b"Network", b"Profiler", b"Console", b"Elements")
ENTER_ALTERNATE_SCREEN = b"\x1b[?1049h"
PROMPT = "Once there was"
LENGTH = re.compile(rb"token (\d+)/\d+")  # in the status line: tokens that came out, of how many at most
REDRAW = b"\x0c"  # ctrl+l: what is drawn by and by comes in pieces
TO_QUIT = 10.0  # s


def main() -> int:
    """Drive the command; exit 0 only if the screen came up, a prompt grew by some tokens, and `q` ended it so."""
    command = sys.argv[1]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
        os.execvp("bash", ["bash", "-c", command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    seen = bytearray()
    if not _read_until(terminal, seen, lambda data: ENTER_ALTERNATE_SCREEN in data):
        return _fail(pid, seen, "the screen never came up")
    if not _read_until(terminal, seen, lambda data: all(sign in data for sign in SIGNS)):
        return _fail(pid, seen, "the four tabs did not show")
    if not _read_until(terminal, seen, lambda data: b"ready" in data):
        return _fail(pid, seen, "the model did not get ready")
    if LENGTH.search(seen):
        return _fail(pid, seen, "there were tokens before there was a prompt")
    mark = len(seen)
    os.write(terminal, PROMPT.encode() + b"\r")
    if not _read_until(terminal, seen, lambda data: b"finished" in data[mark:]):
        return _fail(pid, seen, "the run did not finish")
    mark = len(seen)
    os.write(terminal, REDRAW)
    if not _read_until(terminal, seen, lambda data: LENGTH.search(data, mark)):
        return _fail(pid, seen, "the screen does not say how many tokens came out")
    tokens = max(int(found[1]) for found in LENGTH.finditer(seen, mark))
    if not tokens:
        return _fail(pid, seen, "no token came out")
    os.write(terminal, b"q")
    started = time.monotonic()
    _read_until(terminal, seen, lambda _: False, patience=TO_QUIT)
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended and time.monotonic() - started < TO_QUIT:
        time.sleep(0.02)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return _fail(pid, seen, "q did not end it")
    code = os.waitstatus_to_exitcode(status)
    print(f"{tokens} tokens; quit {time.monotonic() - started:.2f} s after q, status {code}, {len(seen):,} bytes sent")
    return code


def _read_until(terminal: int, seen: bytearray, done: Callable[[bytes], object], patience: float = PATIENCE) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 0.5)
        if not ready:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            return False
        if not data:
            return False
        if ENTER_ALTERNATE_SCREEN not in seen:
            sys.stdout.write(data.decode("utf-8", "replace").split("\x1b[?1049h")[0])
        seen += data
        if done(bytes(seen)):
            return True
    return False


def _fail(pid: int, seen: bytearray, message: str) -> int:
    os.kill(pid, signal.SIGKILL)
    sys.stderr.write(f"{message}; the last bytes:\n{bytes(seen[-3000:])!r}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
