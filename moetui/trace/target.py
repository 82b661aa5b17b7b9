"""The file a trace is written to: whole records or none of them, and never a file harmed that was there before."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from moetui.routing.errors import REMOVED, TraceError
from moetui.routing.folders import beside

if sys.platform != "win32":
    import fcntl


class Target:
    """An output file opened for appending.

    A new file is made in place. An existing one (``overwrite``) is replaced by ``commit``: until then the bytes go
    into a hidden file beside it, so that a recording that never gets going leaves the old file alone. Until ``close``
    it is locked (advisory, ``flock``), and so is the one to be replaced: of two recordings into one file the second is
    refused.

    Raises:
        TraceError: it exists already (without ``overwrite``), is being written, is no regular file, or cannot be
            created.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.nbytes = 0
        self.problem = ""
        self._stranded = False
        if "\0" in str(path):
            raise TraceError("that is no file name", "choose another")
        self._final = Path(os.path.realpath(path)) if overwrite else path
        self._actual = self._final
        self._old = -1
        if os.path.lexists(self._final):
            if not overwrite:
                raise TraceError(f"{path.name} exists already", "--force or overwrite=True replaces it")
            if not stat.S_ISREG(self._final.stat().st_mode):
                raise TraceError(f"{path.name} is no regular file", "name another file")
            self._actual = beside(self._final)
            self._old = _hold(self._final)
        try:
            # Exclusive, so that a file made meanwhile by another program is kept as well.
            self._fd = os.open(self._actual, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
        except FileExistsError:  # since a moment ago
            if overwrite:
                raise _busy(path) from None
            raise TraceError(f"{path.name} exists already", "--force or overwrite=True replaces it") from None
        except OSError as error:
            self._let_go()
            raise TraceError(f"cannot write {path}: {_reason(error)}", "choose another place") from None
        _lock(self._fd)

    def write(self, data: bytes) -> bool:
        """Append ``data`` whole; on failure nothing of it stays, ``problem`` says why, and later calls do nothing."""
        if self.problem:
            return False
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, memoryview(data)[done:])
            if os.fstat(self._fd).st_nlink == 0:
                self.problem = f"{self._final.name} {REMOVED}"
                return False
        except OSError as error:
            self.problem = f"cannot write {self._final.name}: {_reason(error)}"
            self._cut()
            return False
        self.nbytes += len(data)
        return True

    def commit(self) -> None:
        """Put the file where it belongs, if it is not there yet."""
        if self._actual == self._final or self.problem:
            return
        try:
            os.replace(self._actual, self._final)  # noqa: PTH105
        except OSError as error:
            self._stranded = True
            self.problem = f"cannot replace {self._final.name}: {_reason(error)}; the recording is {self._actual.name}"
            return
        self._actual = self._final
        self._let_go()

    def close(self) -> None:
        """Close the file; one that never came to replace the old file is removed."""
        self._close()
        if self._actual != self._final and not self._stranded:
            self.discard()

    def discard(self) -> None:
        """Remove what was written."""
        self._close()
        try:
            self._actual.unlink(missing_ok=True)
        except OSError as error:
            self.problem = self.problem or f"cannot remove {self._actual.name}: {_reason(error)}"

    def _let_go(self) -> None:
        old, self._old = self._old, -1
        if old >= 0:
            _unlock(old)
            os.close(old)

    def _close(self) -> None:
        self._let_go()
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        _unlock(fd)
        try:
            os.close(fd)
        except OSError as error:  # some file systems report a full disk only now
            self.problem = self.problem or f"cannot write {self._final.name}: {_reason(error)}"

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self.nbytes)
        except OSError:
            return  # a reader sees that the last record is torn


def being_written(path: Path) -> bool:
    """Whether a recording is being written there, as far as the file system knows of locks."""
    try:
        fd = _hold(path)
    except TraceError:
        return True
    if fd >= 0:
        _unlock(fd)
        os.close(fd)
    return False


def _hold(path: Path) -> int:
    """Lock a file that is to be replaced: its descriptor, or -1 where it cannot be opened.

    Raises:
        TraceError: who writes it has the lock.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return -1
        free = _lock(fd)
        try:
            same = os.path.samestat(os.fstat(fd), path.stat())
        except OSError:
            same = False
        if free and same:
            return fd
        os.close(fd)
        if same:
            raise _busy(path)
        # It was replaced or removed meanwhile: look at what is there now.


def _busy(path: Path) -> TraceError:
    return TraceError(f"{path.name} is being written by another recording", "close that first, or name another file")


def _lock(fd: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _unlock(fd: int) -> None:
    # By itself: a forked child that has the descriptor too would hold the lock on.
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
