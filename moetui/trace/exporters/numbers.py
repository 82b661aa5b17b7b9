"""Numbers as JSON text, fast: a half float has 65,536 values, and each is spelled once."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from moetui.routing.step import NO_EXPERT
from moetui.trace.arrays import Array


def half_rows(values: Array) -> list[str]:
    """``[n, m]`` half floats as n JSON lists; what JSON cannot say (NaN, infinity) is null."""
    return _rows(_half_words(), np.ascontiguousarray(values, np.float16).view(np.uint16))


def expert_rows(indices: Array) -> list[str]:
    """``[n, m]`` expert ids as n JSON lists; -1 for a slot without an expert."""
    return _rows(_expert_words(), np.ascontiguousarray(indices, np.uint16))


def number(value: float) -> float | None:
    """A number as JSON can say it."""
    return value if math.isfinite(value) else None


def _rows(words: Array, codes: Array) -> list[str]:
    return [f"[{', '.join(row)}]" for row in words[codes].tolist()]


@lru_cache(maxsize=1)
def _half_words() -> Array:
    values: list[Any] = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64).tolist()
    return np.array([repr(value) if math.isfinite(value) else "null" for value in values], dtype=object)


@lru_cache(maxsize=1)
def _expert_words() -> Array:
    return np.array([str(value) if value != NO_EXPERT else "-1" for value in range(1 << 16)], dtype=object)
