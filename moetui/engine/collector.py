"""Keeps Python's garbage collector from looking again and again at what has come to stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_SELDOM: Final = 200_000  # objects more than were freed; Python's own number is 700, or 2,000 from 3.13 on


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Within it, in all threads, the collector looks once where it otherwise looks hundreds of times.

    torch and transformers make a million objects that stay. At Python's own pace a sixth of the time it takes to import
    them is spent on looking at those, by up to a quarter of a second at once, in which no screen is painted.
    """
    before = gc.get_threshold()
    if not 0 < before[0] < _SELDOM:  # 0: it is off
        yield
        return
    gc.set_threshold(_SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
