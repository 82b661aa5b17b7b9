"""Breakpoints from one session to the next, by model: a small file of data, read by the query parser alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from moetui.debugger import BreakpointSet
from moetui.routing import MoetuiError
from moetui.routing.breakpoints import Breakpoint
from moetui.routing.folders import make_folder

_MOST = 200
_MOST_BYTES = 1_000_000


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

    def restore(self, points: BreakpointSet) -> list[str]:
        """Add what was kept; what does not do any more is left out, one line each."""
        try:
            if not self.path.exists():
                return []
            if self.path.stat().st_size > _MOST_BYTES:
                raise ValueError("too large")
            kept = json.loads(self.path.read_text("utf-8"))
            if not isinstance(kept, list):
                raise ValueError("no list")
        except (OSError, ValueError, RecursionError) as error:
            return [f"the breakpoints kept in {self.path.name} cannot be read: {error}"]
        problems = []
        for item in kept[:_MOST]:
            try:
                _add(points, item)
            except (MoetuiError, TypeError, ValueError) as error:
                problems.append(f"a breakpoint that was kept is left out: {error}")
        return problems

    def save(self, points: BreakpointSet) -> str:
        """Write them down; what went wrong, in words, or nothing."""
        kept = [_data(point) for point in points.lasting]
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            make_folder(self.path.parent)
            partial.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
            partial.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            return f"the breakpoints are not kept: {(error.strerror or str(error)).lower()}"
        return ""


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
