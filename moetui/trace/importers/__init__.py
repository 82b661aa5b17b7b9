"""Recordings from the logs of other tools, one module a format; the format is told by the content."""

from __future__ import annotations

import importlib
from pathlib import Path

from moetui.routing.errors import TraceError
from moetui.trace.importers.base import Imported, Opening

__all__ = ["Imported", "import_file"]

# In the order in which they are asked; each looks at the beginning of the file only.
_MODULES = ("moetui_trace", "router_json", "megatron_jsonl", "layer_expert_csv", "routed_experts")

_KNOWN = "known are router-log json, Megatron router_trace jsonl, layer,expert csv, routed experts of vLLM and SGLang"


def import_file(path: str | Path, out: str | Path, *, overwrite: bool = False) -> Imported:
    """Make a trace of another tool's log.

    What a log does not say stays unknown: weights, entropies, times, texts.

    Args:
        path: the log; for Megatron one rank's file, whose siblings in the same folder are read as well.
        out: the trace to write.
        overwrite: replace an existing file.

    Raises:
        TraceError: the log cannot be read, is of no format known or makes no sense; or the trace cannot be written.
    """
    path, out = Path(path), Path(out)
    opening = Opening.of(path)
    for name in _MODULES:
        module = importlib.import_module(f"moetui.trace.importers.{name}")
        if module.fits(opening):
            imported: Imported = module.read(path, out, overwrite)
            return imported
    raise TraceError(f"{path.name} is no log that can be imported", _KNOWN)
