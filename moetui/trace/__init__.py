"""The trace: a recording in one file, written while a model runs and read without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moetui.trace.exporters import FORMATS, export
    from moetui.trace.from_arrays import step_from_arrays
    from moetui.trace.importers import Imported, import_file
    from moetui.trace.reader import Trace, open_trace, trace_stats
    from moetui.trace.recorded import Held, Recorded, kept, recorded_stats
    from moetui.trace.saving import save_recorded, steps_of
    from moetui.trace.values import RecordedEvent
    from moetui.trace.writer import TraceWriter

__all__ = [
    "FORMATS",
    "Held",
    "Imported",
    "Recorded",
    "RecordedEvent",
    "Trace",
    "TraceWriter",
    "export",
    "import_file",
    "kept",
    "open_trace",
    "recorded_stats",
    "save_recorded",
    "step_from_arrays",
    "steps_of",
    "trace_stats",
]

_HOMES = {
    "FORMATS": "exporters",
    "Held": "recorded",
    "Imported": "importers",
    "Recorded": "recorded",
    "RecordedEvent": "values",
    "Trace": "reader",
    "TraceWriter": "writer",
    "export": "exporters",
    "import_file": "importers",
    "kept": "recorded",
    "open_trace": "reader",
    "recorded_stats": "recorded",
    "save_recorded": "saving",
    "step_from_arrays": "from_arrays",
    "steps_of": "saving",
    "trace_stats": "reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"moetui.trace.{_HOMES[name]}"), name)
