"""Lines typed before, in this session and earlier ones: one bounded file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moetui.routing.folders import make_folder

if sys.platform != "win32":
    import fcntl

_MOST_CHARS = 10_000


def history_path() -> Path:
    """Where the history is kept: ``console_history`` in the user's state folder."""
    from platformdirs import user_state_path

    return user_state_path("moetui") / "console_history"


class History:
    """Lines, oldest first; a JSON string a line in the file, so that a line of several lines stays one.

    Each line is appended by one write, so that consoles side by side do not tear each other's. A file that cannot be
    read or written is no reason to stop: lines are then remembered for this session only, and ``problem`` says why.

    Args:
        path: the file; None to remember for this session only.
        limit: lines kept; the file may hold twice as many before it is cut.
    """

    def __init__(self, path: Path | None = None, limit: int = 2000) -> None:
        self._path, self._limit = path, max(1, limit)
        self.problem = ""
        self.lines: list[str] = []
        if path is not None:
            self._load(path)

    def add(self, line: str) -> None:
        """Remember a line, unless it begins with a space or repeats the last one."""
        line = line.rstrip()
        if not line or line[0].isspace() or len(line) > _MOST_CHARS or (self.lines and self.lines[-1] == line):
            return
        self.lines.append(line)
        del self.lines[: -self._limit]
        if self._path is not None and not self.problem:
            try:
                with _locked(self._path):
                    self._append(self._path, line)
            except OSError as error:
                self.problem = f"the history is not kept: {error.strerror or error}"

    def search(self, needle: str, before: int | None = None) -> int | None:
        """Number of the newest line that contains ``needle``, in any case, before line number ``before``."""
        stop = len(self.lines) if before is None else max(0, min(before, len(self.lines)))
        low = needle.lower()
        return next((number for number in range(stop - 1, -1, -1) if low in self.lines[number].lower()), None)

    def _load(self, path: Path) -> None:
        try:
            if not path.exists():
                return
            with _locked(path):
                stored = list(_read(path))
                if len(stored) > 2 * self._limit:
                    _replace(path, stored[-self._limit :])
            self.lines = stored[-self._limit :]
        except OSError as error:
            self.problem = f"the history is not kept: {error.strerror or error}"

    @staticmethod
    def _append(path: Path, line: str) -> None:
        # One write to a file opened for appending: whole lines, whoever else writes.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)


def _read(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for row in file:
            try:
                line = json.loads(row)
            except ValueError:  # a torn line, or not ours
                continue
            if isinstance(line, str) and len(line) <= _MOST_CHARS:
                yield line


def _replace(path: Path, lines: list[str]) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines((json.dumps(line) + "\n").encode() for line in lines)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other consoles from cutting the file meanwhile."""
    make_folder(path.parent)
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
