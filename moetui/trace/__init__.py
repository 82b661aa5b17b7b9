"""The trace: a recording in one file, written while a model runs and read without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moetui.trace.reader import Trace, open_trace
    from moetui.trace.values import RecordedEvent
    from moetui.trace.writer import TraceWriter

__all__ = ["RecordedEvent", "Trace", "TraceWriter", "open_trace"]

_HOMES = {
    "RecordedEvent": "moetui.trace.values",
    "Trace": "moetui.trace.reader",
    "TraceWriter": "moetui.trace.writer",
    "open_trace": "moetui.trace.reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
