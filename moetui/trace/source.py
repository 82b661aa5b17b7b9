"""The bytes of a trace by position: small pieces out of a map of the file, the bodies of chunks read."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from moetui.routing.errors import TraceError
from moetui.trace.frames import DamagedError

_MAPPED = 1 << 18  # bytes of the largest piece that is copied out of the map
_AROUND = 1 << 21  # bytes that the system maps at most around a byte that is looked at: a huge page
_RESIDENT = 32 << 20  # bytes in the map that may be resident before the system gets its pages back


class FileSource:
    """Bytes of a file by position.

    Heads, events, light columns and the index, a few bytes here and there, come out of a map. A mapped page that is
    gone because another program cut the file short, or that the disk fails to give, kills the process that looks at
    it, where a read ends early or raises. Hence the size is asked before each copy, and the bodies of chunks, nearly
    all of a file, are read, which also lets other threads run meanwhile. What is left is a cut between the question
    and the end of a copy of at most 256 KiB: microseconds, or what the disk takes where the piece is not in memory.

    A file that cannot be mapped is read.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._size = os.fstat(self._fd).st_size
        self._map = self._mapped()
        self._looked = 0

    @property
    def size(self) -> int:
        """Bytes of the file when it was last looked at."""
        return self._size

    @property
    def mapped(self) -> int:
        """Bytes of the file that are mapped: all, or none."""
        return 0 if self._map is None else len(self._map)

    @property
    def standing(self) -> tuple[bool, int]:
        """Whether the file still has a name, and its bytes now; nothing of it is taken in."""
        state = os.fstat(self._fd)
        return state.st_nlink > 0, state.st_size

    def look(self) -> int:
        """Take notice that the file has grown or shrunk; its size."""
        if self._fd >= 0:
            size, self._size = self._size, os.fstat(self._fd).st_size
            if size != self._size:
                self._map = self._mapped()
        return self._size

    def read(self, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start``; fewer at the end.

        Raises:
            DamagedError: the disk gives an error.
            TraceError: the file was closed.
        """
        if self._fd < 0:
            raise TraceError("the recording was closed")
        # What was appended since stays out: one look at a growing file sees one file.
        length = max(0, min(length, self._size - start))
        whole = self._map
        try:
            if whole is None or length > _MAPPED:
                return os.pread(self._fd, length, start)
            stop = min(start + length, os.fstat(self._fd).st_size)
            piece = whole[start : max(start, stop)]
        except OSError as error:
            raise DamagedError(f"it cannot be read: {error.strerror}") from error
        self._looked += length + _AROUND
        if self._looked > _RESIDENT:
            self._looked = 0
            _advise(whole, "MADV_DONTNEED")
        return piece

    def close(self) -> None:
        """Close the file."""
        fd, self._fd, self._map = self._fd, -1, None
        if fd >= 0:
            os.close(fd)

    def _mapped(self) -> mmap.mmap | None:
        """The whole file; the map before it goes when the last thread that copies out of it is done."""
        try:
            whole = mmap.mmap(self._fd, self._size, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # not a file that can be mapped, no room for it, or nothing in it
            return None
        _advise(whole, "MADV_RANDOM")  # from head to head: what lies between is read otherwise, if at all
        return whole


def cannot_open(path: Path, error: OSError) -> TraceError:
    """What is said of a file that cannot be opened."""
    hint = "you may not read it, or a folder above it" if isinstance(error, PermissionError) else "check the name"
    return TraceError(f"cannot open {path}: {(error.strerror or str(error)).lower()}", hint)


def _advise(whole: mmap.mmap, advice: str) -> None:
    if hasattr(mmap, advice):  # not every system takes advice
        whole.madvise(getattr(mmap, advice))
