"""The standard streams as a command finds them: closed, full, or with nobody at the other end any more."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

STDOUT = "standard output"


def open_streams() -> None:
    """Put something where a standard stream was closed (``>&-``), lest a file opened later gets its number.

    What is written to standard output then fails when it is, as it does in other programs.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest number, which is this one.
            os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR)
        setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def guard_streams() -> None:
    """Let errors of standard output name it, and nothing fail because nobody hears standard error any more.

    A recording outlives the line that its progress went to.
    """
    sys.stdout = _as_text(_Named(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _as_text(_Unheard(2, "wb", closefd=False), sys.stderr)


class _Named(io.FileIO):
    """Standard output; its errors say that it is what they are of."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise OSError(error.errno, reason, STDOUT) from None


class _Unheard(io.FileIO):
    """Standard error; what cannot be written is let go."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError:
            return len(data)


def _as_text(raw: io.FileIO, like: Any) -> io.TextIOWrapper:
    by_line = like.line_buffering or like.write_through  # the latter as PYTHONUNBUFFERED has it
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=like.encoding, errors=like.errors, line_buffering=by_line)


def leave_stdout() -> None:
    """Let what is still to be written there vanish: its reader has left, and the interpreter flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
