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
    Tap,
)
from moetui.engine.adapters.dense import DenseAdapter
from moetui.engine.adapters.indexed import IndexedAdapter
from moetui.engine.adapters.mask import MaskAdapter
from moetui.engine.adapters.parallel import ParallelAdapter
from moetui.engine.adapters.product_key import ProductKeyAdapter

ADAPTERS: tuple[Adapter, ...] = (
    IndexedAdapter(),
    MaskAdapter(),
    ParallelAdapter(),
    ProductKeyAdapter(),
    DenseAdapter(),
)

__all__ = [
    "ADAPTERS",
    "Adapter",
    "FoundSite",
    "Gate",
    "RouterCall",
    "RoutingFunction",
    "SiteContext",
    "SiteHandle",
    "StepFrame",
    "Tap",
]
