"""Breakpoints from one session to the next, by model: a small file of data, read by the query parser alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from moetui.debugger import BreakpointSet
from moetui.routing import MoetuiError
from moetui.routing.breakpoints import Breakpoint
from moetui.routing.folders import make_folder

if sys.platform != "win32":
    import fcntl

_MOST = 200
_MOST_BYTES = 1_000_000
_PATIENCE = 0.2  # s for another screen to have written

_Points: TypeAlias = dict[tuple[str, bool, int], dict[str, Any]]


class Keeper:
    """Writes a model's breakpoints down, and puts them back.

    Log points and ignore counts are kept; those that go at their first hit, and those that ask about another branch,
    are of one session and are not.

    Args:
        folder: the user's state folder.
        model: as the user called it.
    """

    def __init__(self, folder: Path, model: str) -> None:
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", model)[-60:].strip("._") or "model"
        digest = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        self.path = folder / "breakpoints" / f"{readable}-{digest}.json"
        self._mine: _Points = {}  # as they were here when they were last read or written

    def restore(self, points: BreakpointSet) -> list[str]:
        """Add what was kept; what does not do any more is left out, one line each."""
        try:
            kept = self._read()
        except (OSError, ValueError, RecursionError) as error:
            return [f"the breakpoints kept in {self.path.name} cannot be read: {error}"]
        problems = []
        for item in kept[:_MOST]:
            try:
                _add(points, item)
            except (MoetuiError, TypeError, ValueError) as error:
                problems.append(f"a breakpoint that was kept is left out: {error}")
        self._mine = _numbered(kept)  # those left out included: the next writing takes them away
        return problems

    def save(self, points: BreakpointSet) -> str:
        """Write down what changed since the last time; what went wrong, in words, or nothing."""
        mine = _numbered([_data(point) for point in points.lasting])
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            make_folder(self.path.parent)
            with _alone(self.path.parent):
                kept = list(_merged(self._there(), self._mine, mine).values())
                partial.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
                partial.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            return f"the breakpoints are not kept: {(error.strerror or str(error)).lower()}"
        self._mine = mine
        return ""

    def _read(self) -> list[Any]:
        if not self.path.exists():
            return []
        if self.path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        kept = json.loads(self.path.read_text("utf-8"))
        if not isinstance(kept, list):
            raise ValueError("no list")
        return kept

    def _there(self) -> _Points:
        """What the file holds now; where there is none, or it makes no sense, what was last there."""
        try:
            return _numbered(self._read()) if self.path.exists() else self._mine
        except (OSError, ValueError, RecursionError):
            return self._mine


def _numbered(items: list[Any]) -> _Points:
    """By what tells them apart: condition, kind, and which of several alike. What is no breakpoint is left out."""
    found: _Points = {}
    for item in items[:_MOST]:
        if isinstance(item, dict) and isinstance(item.get("expression"), str):
            expression, logs = item["expression"], item.get("log_only") is True
            before = sum(each[:2] == (expression, logs) for each in found)
            found[expression, logs, before] = item
    return found


def _merged(theirs: _Points, before: _Points, now: _Points) -> _Points:
    """What the file holds, with what was added, changed and removed here since ``before``."""
    changed = {key: item for key, item in now.items() if item != before.get(key)}
    kept = {key: item for key, item in theirs.items() if key in now or key not in before}
    return {**kept, **changed}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other screen write meanwhile, unless it takes too long, or the file system cannot say."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                break
        yield
    finally:
        os.close(handle)


def _data(point: Breakpoint) -> dict[str, Any]:
    return {
        "expression": point.expression,
        "log_only": point.log_only,
        "ignore": point.ignore,
        "enabled": point.enabled,
    }


def _add(points: BreakpointSet, item: Any) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("expression"), str):
        raise ValueError("it has no condition")
    ignore = item.get("ignore", 0)
    if isinstance(ignore, bool) or not isinstance(ignore, int):
        raise ValueError("ignore is no number")
    points.add(
        item["expression"],
        log_only=item.get("log_only") is True,
        ignore=ignore,
        enabled=item.get("enabled") is not False,
    )
