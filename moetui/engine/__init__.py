"""Everything with torch: loading, capture, interventions, generation and run control.

Importing this package imports neither torch nor transformers; its names do when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moetui.engine.options import CaptureOptions

if TYPE_CHECKING:
    from moetui.engine.adapters import RoutingFunction, SiteContext, SiteHandle
    from moetui.engine.capture import Capture
    from moetui.engine.modules import describe
    from moetui.engine.sites import find_sites
    from moetui.engine.texts import TokenTexts

__all__ = [
    "Capture",
    "CaptureOptions",
    "RoutingFunction",
    "SiteContext",
    "SiteHandle",
    "TokenTexts",
    "describe",
    "find_sites",
]

_HOMES = {
    "Capture": "moetui.engine.capture",
    "RoutingFunction": "moetui.engine.adapters",
    "SiteContext": "moetui.engine.adapters",
    "SiteHandle": "moetui.engine.adapters",
    "TokenTexts": "moetui.engine.texts",
    "describe": "moetui.engine.modules",
    "find_sites": "moetui.engine.sites",
}


def __getattr__(name: str) -> Any:
    """Load a public name that needs torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
