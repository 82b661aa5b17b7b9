"""Small random models of every Mixture-of-Experts architecture of the installed transformers.

``architectures()`` reads the library's source and imports neither torch nor transformers; the rest loads both on
first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moetui.engine.zoo.scan import Architecture, architectures, buildable

if TYPE_CHECKING:
    from moetui.engine.zoo.autos import auto_class
    from moetui.engine.zoo.small_model import BuiltModel, build, unaccounted
    from moetui.engine.zoo.store import save
    from moetui.engine.zoo.words import tokenizer

__all__ = [
    "Architecture",
    "BuiltModel",
    "architectures",
    "auto_class",
    "build",
    "buildable",
    "save",
    "tokenizer",
    "unaccounted",
]

_HOMES = {
    "BuiltModel": "moetui.engine.zoo.small_model",
    "auto_class": "moetui.engine.zoo.autos",
    "build": "moetui.engine.zoo.small_model",
    "save": "moetui.engine.zoo.store",
    "tokenizer": "moetui.engine.zoo.words",
    "unaccounted": "moetui.engine.zoo.small_model",
}


def __getattr__(name: str) -> Any:
    """Load a public name that needs torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
