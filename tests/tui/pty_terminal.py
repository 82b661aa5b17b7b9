"""A command in a real pseudo-terminal, with an emulator that looks at what it draws and answers what it asks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyte

# What the emulator does not know, and would print in part: the keyboard protocol, mode queries, soft resets.
_STRANGE = re.compile(rb"\x1b\[[<>=?][0-9;]*\$?[a-z]|\x1b\[[0-9;]*\$p")
_KEPT = re.compile(rb"\x1b\[\?[0-9;]*[hl]\Z")
_CURSOR_QUERY = b"\x1b[6n"


class Terminal:
    """A command's terminal, ``columns`` × ``rows``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        environ: Mapping[str, str] | None = None,
        answers: bool = True,
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._answers = answers
        self.received = bytearray()
        self.status: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(
                {"TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            )
            os.environ.pop("SSH_CONNECTION", None)
            os.environ.pop("NO_COLOR", None)
            for size in ("COLUMNS", "LINES"):  # readline sets them behind Python's back, and they would win
                os.unsetenv(size)
            os.environ.update(environ or {})
            # The child of a fork must wait for its terminal's size, or it would start at 80×24.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvp(command[0], list(command))

    def pump(self, seconds: float = 0.05) -> bool:
        """Take in what comes within ``seconds``; False when the terminal was closed by the other side."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                return True
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.take(data)
        return True

    def take(self, data: bytes) -> None:
        """What the terminal does with bytes that arrive: draw, and answer."""
        self.received += data
        for _ in range(data.count(_CURSOR_QUERY) if self._answers else 0):
            self.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
        self._stream.feed(_STRANGE.sub(lambda m: m[0] if _KEPT.match(m[0]) else b"", data))

    def until(self, true: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait until something holds on the screen.

        Raises:
            AssertionError: it did not come to be, with the screen as it is.
        """
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"it did not come to be:\n{self.text()}"
            if not self.pump():
                assert true(), f"the command ended before:\n{self.text()}\n{bytes(self.received[-2000:])!r}"
                return

    def rest(self, seconds: float = 0.7) -> None:
        """Wait until nothing has come for so long."""

        def silent() -> bool:
            before = len(self.received)
            self.pump(seconds)
            return before == len(self.received)

        self.until(silent)

    def sees(self, text: str, seconds: float = 20.0) -> None:
        """Wait until a text stands on the screen."""
        self.until(lambda: text in self.text(), seconds)

    def text(self) -> str:
        """The screen, line by line."""
        return "\n".join(self.screen.display)

    def send(self, keys: str) -> None:
        """Type."""
        with contextlib.suppress(OSError):
            os.write(self.fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Another size."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: int) -> None:
        """Send a signal to the command."""
        os.kill(self.pid, number)

    def hang_up(self) -> None:
        """Take the terminal away."""
        os.close(self.fd)
        self.fd = -1

    def wait(self, seconds: float = 10.0) -> tuple[int, float]:
        """Wait for the command's end; its exit status (128 + signal if it was killed), and how long that took."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if self.fd >= 0:
                self.pump(0.02)
            else:
                time.sleep(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code
                if self.fd >= 0:
                    self.pump(0.1)
                return self.status, time.monotonic() - started
        raise AssertionError(f"it did not end within {seconds} s:\n{self.text()}")

    def ended(self) -> int | None:
        """The exit status if the command has ended; its output is not read."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            self.status = code if code >= 0 else 128 - code
        return self.status

    def close(self) -> None:
        """End whatever still runs."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        if self.fd >= 0:
            os.close(self.fd)


def leave_prompt(opened: Terminal) -> None:
    """Escape moetui's prompt: an escape key is told from an escape sequence by what does not follow it."""
    opened.sees("esc leave")
    opened.send("\x1b")
    opened.sees("esc console")


@contextlib.contextmanager
def terminal(command: Sequence[str], **options: object) -> Iterator[Terminal]:
    """A terminal that is closed whatever happens."""
    opened = Terminal(command, **options)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()
