"""A part of a timeline's tokens, itself a view."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing import NO_EXPERT, RoutingBlock, Site, StepColumns, TimelineView, TokenColumns
from moetui.routing.branches import Line, line_rows
from moetui.routing.counts import Counts, Summed
from moetui.routing.events import Branch
from moetui.routing.step import Bool
from moetui.routing.totals import chunk_tokens


class Window:
    """Tokens ``start .. stop - 1`` of a view, clipped to what it holds: a ``TimelineView``."""

    def __init__(self, view: TimelineView, start: int | None = None, stop: int | None = None) -> None:
        self._view = view
        self.first = view.first if start is None else min(max(start, view.first), view.end)
        self.end = view.end if stop is None else max(self.first, min(stop, view.end))

    @property
    def sites(self) -> tuple[Site, ...]:
        """The view's."""
        return self._view.sites

    @property
    def stacks(self) -> tuple[str, ...]:
        """The view's."""
        return self._view.stacks

    def tokens(self, start: int, stop: int) -> TokenColumns:
        """Light columns, clipped to the window."""
        return self._view.tokens(*self._clip(start, stop))

    def routing(self, start: int, stop: int) -> RoutingBlock:
        """Routing, clipped to the window."""
        return self._view.routing(*self._clip(start, stop))

    def summed(self, start: int, stop: int) -> tuple[int, int]:
        """The view's (see ``Summed``); none where it knows none."""
        stop = min(stop, self.end)
        return self._view.summed(max(start, self.first), stop) if isinstance(self._view, Summed) else (stop, stop)

    def counts(self, start: int, stop: int) -> Counts | None:
        """The view's."""
        return self._view.counts(start, stop) if isinstance(self._view, Summed) else None

    def steps(self) -> StepColumns:
        """The steps that have a token in the window."""
        steps = self._view.steps()
        here = (steps.first_token < self.end) & (steps.first_token + steps.num_tokens > self.first)
        return StepColumns(
            **{field.name: getattr(steps, field.name)[here] for field in dataclasses.fields(StepColumns)}
        )

    def text(self, token_id: int) -> str:
        """The view's."""
        return self._view.text(token_id)

    def _clip(self, start: int, stop: int) -> tuple[int, int]:
        low = min(max(start, self.first), self.end)
        return low, max(low, min(stop, self.end))


def gather(view: TimelineView, keep: Bool, take: Callable[[RoutingBlock], NDArray[Any] | None]) -> Any:
    """What ``take`` picks of the routing of the tokens kept, read in pieces: a long recording is never in memory whole.

    Args:
        view: where the tokens are.
        keep: ``[n]`` which of them.
        take: from a block's arrays to an array with the same first axis, or None where there is nothing to pick.

    Returns:
        One array over all tokens kept; None if ``take`` gave None.
    """
    parts = []
    size = chunk_tokens(view.sites)
    for start in range(view.first, max(view.end, view.first + 1), size):
        stop = min(start + size, view.end)
        part = take(view.routing(start, stop))
        if part is None:
            return None
        parts.append(part[keep[start - view.first : stop - view.first]])
    return np.concatenate(_padded(parts))


def _padded(parts: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Parts of one width: a piece in which an intervention gave more slots is wider than the others."""
    width = max((part.shape[-1] for part in parts if part.ndim > 1), default=0)
    return [
        part
        if part.ndim < 2 or part.shape[-1] == width
        else np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])], constant_values=NO_EXPERT)
        for part in parts
    ]


EVERY = Branch(-1, -1, "all")
"""Stands for all branches where one is named: ``--branch all``."""


def kept_rows(view: TimelineView, line: Line | None) -> Bool:
    """``[n]`` tokens of a view that are no padding, and part of the line if one is given."""
    columns = view.tokens(view.first, view.end)
    return np.asarray(~columns.pad if line is None else line_rows(columns, line, view.stacks), np.bool_)
