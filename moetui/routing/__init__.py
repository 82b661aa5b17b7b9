"""The vocabulary: sites, steps, the timeline, metrics and findings. NumPy only."""

from __future__ import annotations

from moetui.routing.errors import (
    ModelError,
    MoetuiError,
    QueryError,
    TraceError,
    UnsupportedError,
    UsageError,
)
from moetui.routing.model import ModelInfo, ModuleNode, ParameterInfo, Site
from moetui.routing.step import NO_EXPERT, Phase, SiteFlag, Step, join_texts
from moetui.routing.text import drawable
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
