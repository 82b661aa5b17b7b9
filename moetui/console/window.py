"""A part of a timeline's tokens, itself a view."""

from __future__ import annotations

import dataclasses

import numpy as np

from moetui.routing import RoutingBlock, Site, StepColumns, TimelineView, TokenColumns
from moetui.routing.events import Branch
from moetui.routing.step import Bool


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


def branch_rows(view: TimelineView, branch: Branch | None) -> Bool:
    """``[n]`` tokens of a view that are no padding, and of the branch's own if one is given."""
    columns = view.tokens(view.first, view.end)
    keep = ~columns.pad
    if branch is not None:
        keep &= columns.branch == branch.id
    return np.asarray(keep, np.bool_)
