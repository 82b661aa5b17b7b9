"""Any answer as plain JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

_DEPTH = 12


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """``value`` made of dicts, lists, strings, numbers, booleans and None; what is not known (NaN) becomes None."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Enum):
        return plain(value.value, depth)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth <= 0:
        return str(type(value).__name__)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), depth - 1) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth - 1) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist(), depth - 1)
    return type(value).__name__


def as_json(value: Any) -> str:
    """One JSON document; the strings in it hold ASCII alone, so that no terminal is misled by it."""
    document = json.dumps(plain(value), allow_nan=False, ensure_ascii=True, indent=2)
    return document.replace("\x7f", "\\u007f")  # the one control character that JSON leaves as it is
