"""Recordings from the logs of other tools, one module a format; the format is told by the content."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from moetui.routing.errors import TraceError
from moetui.routing.folders import beside
from moetui.trace.frames import PREFIX
from moetui.trace.importers.base import Imported, Opening

__all__ = ["Imported", "import_file"]

# In the order in which they are asked; each looks at the beginning of the file only.
_MODULES = ("router_json", "megatron_jsonl", "layer_expert_csv", "routed_experts")

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
    if opening.data.startswith(PREFIX):
        raise TraceError(f"{path.name} is a trace already", "open it with 'moetui replay'")
    for name in _MODULES:
        module = importlib.import_module(f"moetui.trace.importers.{name}")
        if module.fits(opening):
            return _read_whole(module, path, out, overwrite)
    raise TraceError(f"{path.name} is no log that can be imported", _KNOWN)


def _read_whole(module: Any, path: Path, out: Path, overwrite: bool) -> Imported:
    """Import into a hidden file that takes its place when the log turned out to make sense to its end."""
    if out.exists() and not overwrite:
        raise TraceError(f"{out.name} exists already", "--force or overwrite=True replaces it")
    partial = beside(out)
    try:
        imported: Imported = module.read(path, partial, True)
        partial.replace(out)
    except TraceError as error:
        raise TraceError(error.message.replace(partial.name, out.name), error.hint) from None
    except OSError as error:
        raise TraceError(
            f"cannot write {out.name}: {(error.strerror or str(error)).lower()}", "choose another place"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return replace(imported, path=out)
