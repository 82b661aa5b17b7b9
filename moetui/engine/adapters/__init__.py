"""How routing reaches the experts: one adapter a kind."""

from __future__ import annotations

from moetui.engine.adapters.base import (
    Adapter,
    FoundSite,
    Gate,
    RouterCall,
    RoutingFunction,
    SiteContext,
    SiteHandle,
    StepFrame,
)
from moetui.engine.adapters.indexed import IndexedAdapter

ADAPTERS: tuple[Adapter, ...] = (IndexedAdapter(),)

__all__ = [
    "ADAPTERS",
    "Adapter",
    "FoundSite",
    "Gate",
    "IndexedAdapter",
    "RouterCall",
    "RoutingFunction",
    "SiteContext",
    "SiteHandle",
    "StepFrame",
]
