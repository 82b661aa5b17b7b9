"""Run a shell command in a real terminal, wait until moetui shows a running model, quit it, and pass on its status."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

ROWS, COLUMNS = 40, 120
PATIENCE = 900.0  # s: an installation from nothing is part of the command
SIGNS = (b"Network", b"Profiler", b"Console", b"Elements")
ENTER_ALTERNATE_SCREEN = b"\x1b[?1049h"
PROMPT = "Once there was"


def main() -> int:
    """Drive the command; exit 0 only if the screen came up, text grew, and `q` ended it with status 0."""
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
    mark = len(seen)
    os.write(terminal, PROMPT.encode() + b"\r")
    if not _read_until(terminal, seen, lambda data: b"finished" in data[mark:]):
        return _fail(pid, seen, "the run did not finish")
    os.write(terminal, b"\x11")  # ctrl+q
    started = time.monotonic()
    _read_until(terminal, seen, lambda _: False, patience=10.0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    print(f"quit {time.monotonic() - started:.2f} s after the key, status {code}, {len(seen):,} bytes on the wire")
    return code


def _read_until(terminal: int, seen: bytearray, done: object, patience: float = PATIENCE) -> bool:
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
        if done(bytes(seen)):  # type: ignore[operator]
            return True
    return False


def _fail(pid: int, seen: bytearray, message: str) -> int:
    os.kill(pid, signal.SIGKILL)
    sys.stderr.write(f"{message}; the last bytes:\n{bytes(seen[-3000:])!r}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
