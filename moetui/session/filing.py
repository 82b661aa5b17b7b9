"""Files that a session writes and reads for its user: never over an existing one unasked, never half of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moetui.routing import TraceError, UsageError
from moetui.routing.branches import BranchTree
from moetui.routing.folders import beside
from moetui.routing.kept import KeptTimeline
from moetui.session.offers import Recording
from moetui.trace import Recorded, Trace, export, kept, open_trace


def copy_trace(trace: Trace, path: str, *, overwrite: bool) -> int:
    """Copy a recording as far as it is written; the bytes.

    Raises:
        UsageError: the file exists (without ``overwrite``), or its folder does not.
        TraceError: it cannot be written.
    """
    return _write(path, trace.copy_to, overwrite=overwrite)


def export_trace(recorded: Recorded, path: str, format_: str, *, overwrite: bool) -> int:
    """Write a recording, or what a live session holds, in one of the formats of ``moetui export``; the bytes.

    Raises:
        UsageError: an unknown format, or a path as for ``copy_trace``.
        TraceError: it cannot be written.
    """
    return _write(path, lambda stream: export(kept(recorded), format_, stream), overwrite=overwrite)


def load_recording(path: str) -> Recording:
    """Open a recording to compare with.

    Raises:
        TraceError: no trace, or damaged beyond use.
    """
    trace = open_trace(path)
    tree = BranchTree.of(item.event for item in trace.events)
    return Recording(path, trace.info, KeptTimeline(trace.snapshot, lambda: tree), tree)


class TraceFiles:
    """``Filing`` for a session on a trace."""

    _trace: Trace

    def save(self, path: str, *, overwrite: bool = False) -> int:
        """Copy the recording as far as it is written; the bytes.

        Raises:
            UsageError: the file exists (without ``overwrite``), or its folder does not.
            TraceError: it cannot be written.
        """
        return copy_trace(self._trace, path, overwrite=overwrite)

    def export(self, path: str, format: str, *, overwrite: bool = False) -> int:  # noqa: A002
        """Write the recording in another format; the bytes.

        Raises:
            UsageError: an unknown format, or a path as for ``save``.
            TraceError: it cannot be written.
        """
        return export_trace(self._trace, path, format, overwrite=overwrite)

    def load(self, path: str) -> Recording:
        """Open a recording beside this one.

        Raises:
            TraceError: no trace, or damaged beyond use.
        """
        return load_recording(path)


def _write(path: str, write: Callable[[BinaryIO], None], *, overwrite: bool) -> int:
    target = Path(path).expanduser()
    try:
        with _partial(target, overwrite=overwrite) as stream:
            write(stream)
            nbytes = stream.tell()
    except OSError as error:
        raise TraceError(f"cannot write {target.name}: {(error.strerror or str(error)).lower()}") from None
    return nbytes


@contextmanager
def _partial(target: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A stream into a hidden file beside ``target``, which takes its place when all was written."""
    if target.is_dir():
        raise UsageError(f"{target} is a folder", "name a file")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists already", "--force replaces it")
    if not target.parent.is_dir():
        raise UsageError(f"no such folder: {target.parent}", "make it first, or write somewhere else")
    if target.exists() and not target.is_file():  # it would be replaced by a file
        raise UsageError(f"{target} is no file", "name a file")
    partial = beside(target)
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
