"""Values that a script gives: an array's numbers become Python's own, and what is none is refused in words."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moetui.routing.errors import UsageError


def whole(value: Any, name: str) -> int:
    """A whole number.

    Args:
        name: what it is, for the error.

    Raises:
        UsageError: it is none.
    """
    own = _own(value)
    if isinstance(own, int) and not isinstance(own, bool):
        return own
    raise UsageError(f"{name} must be a whole number, not {shown(value)}")


def real(value: Any, name: str) -> float:
    """A number; arguments and errors as of ``whole``."""
    own = _own(value)
    if isinstance(own, int | float) and not isinstance(own, bool):
        return own
    raise UsageError(f"{name} must be a number, not {shown(value)}")


def flag(value: Any, name: str) -> bool:
    """True or False; arguments and errors as of ``whole``."""
    own = _own(value)
    if isinstance(own, bool):
        return own
    raise UsageError(f"{name} must be True or False, not {shown(value)}")


def wholes(values: Any, name: str) -> tuple[int, ...]:
    """Whole numbers in their order; arguments and errors as of ``whole``."""
    if isinstance(values, Iterable) and not isinstance(values, str | bytes):
        try:
            return tuple(whole(value, name) for value in values)
        except (UsageError, TypeError):  # a tensor of no dimension says only when asked that it has no items
            pass
    raise UsageError(f"{name} must be whole numbers, not {shown(values)}", "a list or a tuple: [0, 3]")


def file_path(value: Any) -> Path:
    """A file's path; errors as of ``whole``."""
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{shown(value)} is no file's name")
    return Path(os.fsdecode(value))


def shown(value: Any) -> str:
    """A value in a line."""
    return " ".join(reprlib.repr(value).split())


def _own(value: Any) -> Any:
    """Python's own of a number that NumPy or torch holds."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
