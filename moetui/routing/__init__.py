"""The vocabulary: sites, steps, the timeline, metrics and findings. NumPy only.

What holds arrays is loaded when it is first used: a screen's first picture has none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moetui.routing.errors import (
    ModelError,
    MoetuiError,
    QueryError,
    TraceError,
    UnsupportedError,
    UsageError,
)
from moetui.routing.model import ModelInfo, ModuleNode, ParameterInfo, Selection, Site
from moetui.routing.phase import Phase
from moetui.routing.text import drawable

if TYPE_CHECKING:
    from moetui.routing.step import NO_EXPERT, SiteFlag, Step, join_texts
    from moetui.routing.timeline import (
        RoutingBlock,
        StepColumns,
        Timeline,
        TimelineSource,
        TimelineView,
        TokenColumns,
        empty_view,
    )

__all__ = [
    "NO_EXPERT",
    "ModelError",
    "ModelInfo",
    "ModuleNode",
    "MoetuiError",
    "ParameterInfo",
    "Phase",
    "QueryError",
    "RoutingBlock",
    "Selection",
    "Site",
    "SiteFlag",
    "Step",
    "StepColumns",
    "Timeline",
    "TimelineSource",
    "TimelineView",
    "TokenColumns",
    "TraceError",
    "UnsupportedError",
    "UsageError",
    "drawable",
    "empty_view",
    "join_texts",
]

_HOMES = {
    **dict.fromkeys(("NO_EXPERT", "SiteFlag", "Step", "join_texts"), "moetui.routing.step"),
    **dict.fromkeys(("RoutingBlock", "StepColumns", "Timeline", "TimelineSource"), "moetui.routing.timeline"),
    **dict.fromkeys(("TimelineView", "TokenColumns", "empty_view"), "moetui.routing.timeline"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
