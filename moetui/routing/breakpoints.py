"""A breakpoint as everybody sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Where a run pauses, or what is logged while it passes.

    Attributes:
        id: number within the session, from 1; never used twice.
        expression: in the query language, ``entropy < 0.3 and layer == 5``.
        log_only: write a line and go on.
        temporary: gone after its first hit.
        ignore: hits that still pass before it acts.
        enabled: whether it is looked at.
        hits: how often its condition held so far.
    """

    id: int
    expression: str
    log_only: bool = False
    temporary: bool = False
    ignore: int = 0
    enabled: bool = True
    hits: int = 0
