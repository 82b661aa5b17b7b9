"""moetui: a debugger for the routers of Mixture-of-Experts language models, in the terminal.

The names below are loaded when first used, so that importing ``moetui`` never imports torch.
"""

from __future__ import annotations

from moetui._version import __version__

TYPE_CHECKING = False  # type checkers take it for typing's: what is imported here comes before Ctrl-C is looked after
if TYPE_CHECKING:
    from typing import Any

    from moetui.debugger import MoEAnalyzer, MoEDebugger
    from moetui.trace import TraceWriter, open_trace

__all__ = ["MoEAnalyzer", "MoEDebugger", "TraceWriter", "__version__", "open_trace"]

_HOMES = {
    "MoEAnalyzer": "moetui.debugger",
    "MoEDebugger": "moetui.debugger",
    "TraceWriter": "moetui.trace",
    "open_trace": "moetui.trace",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its room (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
