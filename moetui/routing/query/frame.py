"""The values that a query asks for, over some tokens and sites; each is computed when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.metrics.loads import coefficient_of_variation
from moetui.routing.metrics.tokens import first_choices, overlap, set_sizes
from moetui.routing.model import Site
from moetui.routing.phase import Phase
from moetui.routing.scores import passed, site_entropy, site_margin
from moetui.routing.step import F32, F64, I64, NO_EXPERT, Bool
from moetui.routing.timeline import RoutingBlock, TimelineView, TokenColumns

_FEW = 16  # tokens of which it takes longer to find the different ones than to ask each
LOAD_WINDOW = 64
"""Tokens over which ``load_cv`` is taken, the token itself the last."""

_DIRECT = {"position": "position", "step": "step", "sequence": "sequence", "branch": "branch", "ms": "ms"}
_MEASURED = {"conf": "confidence", "mean_entropy": "entropy", "mean_margin": "margin", "logp": "logprob"}


class Source:
    """A view, and what is looked up in it once for all of its pieces.

    Args:
        view: where the tokens are.
    """

    def __init__(self, view: TimelineView) -> None:
        self.view = view
        self._branches: dict[int, tuple[I64, I64]] = {}

    def other_branch(self, branch: int, columns: TokenColumns) -> I64:
        """For each token the timeline number of the one at its stack, row and position in ``branch``; -1: none."""
        if branch not in self._branches:
            every = self.view.tokens(self.view.first, self.view.end)
            rows = np.flatnonzero((every.branch == branch) & ~every.pad)
            order = np.argsort(_place(every)[rows], kind="stable")
            self._branches[branch] = _place(every)[rows][order], rows[order] + self.view.first
        places, numbers = self._branches[branch]
        wanted = _place(columns)
        if not places.size:
            return np.full(wanted.shape, -1, np.int64)
        at = np.searchsorted(places, wanted, side="right") - 1  # the last of equals: the newest
        return np.where((at >= 0) & (places[at] == wanted), numbers[at], -1)


def _place(columns: TokenColumns) -> I64:
    place = columns.stack.astype(np.int64) << 48
    place += columns.sequence.astype(np.int64) << 32
    return place + columns.position


@dataclass
class Frame:
    """Some tokens, at some of the sites.

    Attributes:
        source: the view they are of.
        numbers: ``[n]`` their timeline numbers, ascending.
        columns: their light columns.
        chosen: the sites looked at; ``[n, m]`` arrays have one column for each.
    """

    source: Source
    numbers: I64
    columns: TokenColumns
    chosen: tuple[Site, ...]

    @classmethod
    def of(cls, source: Source, start: int, stop: int) -> Frame:
        """All tokens held of ``start .. stop - 1``, at all sites."""
        view = source.view
        low = min(max(start, view.first), view.end)
        numbers = np.arange(low, max(low, min(stop, view.end)), dtype=np.int64)
        return cls(source, numbers, view.tokens(low, low + len(numbers)), tuple(view.sites))

    def at(self, rows: Bool) -> Frame:
        """The same with the tokens where ``rows`` is set."""
        if rows.all():
            return self
        columns = {field.name: getattr(self.columns, field.name)[rows] for field in fields(TokenColumns)}
        part = Frame(self.source, self.numbers[rows], TokenColumns(**columns), self.chosen)
        if "block" in self.__dict__:
            part.__dict__["block"] = _cut(self.block, np.flatnonzero(rows), slice(None))
        return part

    def only(self, sites: Bool) -> Frame:
        """The same at the sites where ``sites`` (``[m]``) is set."""
        kept = tuple(site for site, keep in zip(self.chosen, sites) if keep)
        part = Frame(self.source, self.numbers, self.columns, kept)
        if "block" in self.__dict__:
            part.__dict__["block"] = _cut(self.block, slice(None), np.flatnonzero(sites).tolist())
        return part

    @cached_property
    def block(self) -> RoutingBlock:
        """The routing of these tokens at these sites."""
        if not len(self.numbers):
            empty = self.source.view.routing(0, 0)
            return _cut(empty, slice(0, 0), self._sites)
        low, high = int(self.numbers[0]), int(self.numbers[-1]) + 1
        block = self.source.view.routing(low, high)
        rows = slice(None) if high - low == len(self.numbers) else self.numbers - low
        return _cut(block, rows, self._sites)

    @cached_property
    def passed(self) -> Bool:
        """Which of the sites each token passed, ``[n, m]``."""
        return passed(self.block.indices, self.block.flags)

    @cached_property
    def weights(self) -> F32:
        """Gate weights of the chosen experts, ``[n, m, K]``, NaN where unknown or no expert."""
        indices = self.block.indices
        if self.block.weights is None:
            return np.full(indices.shape, np.nan, np.float32)
        return np.where(indices == NO_EXPERT, np.nan, self.block.weights.astype(np.float32))

    def weight_of(self, expert: int) -> F32:
        """The gate weight of one expert, ``[n, m]``; NaN where it is unknown or the expert was not chosen."""
        here = self.block.indices == expert
        found = np.where(here, self.weights, 0.0).sum(-1)
        return np.asarray(np.where(here.any(-1), found, np.nan), np.float32)

    def value(self, name: str) -> NDArray[Any]:
        """A numeric field's values: ``[n, 1]`` of tokens, ``[n, m]`` of sites, ``[n, m, K]`` of slots; NaN unknown."""
        if name in _COMPUTED:
            return _COMPUTED[name](self)
        columns = self.columns
        if name in _MEASURED:
            return np.asarray(getattr(columns, _MEASURED[name]), np.float64)[:, None]
        if name == "prob":
            return np.exp(columns.logprob.astype(np.float64))[:, None]
        values = (
            self.numbers if name == "index" else columns.token_id if name == "id" else getattr(columns, _DIRECT[name])
        )
        known = np.asarray(values, np.float64)
        if name in ("id", "position"):
            known = np.where(known < 0, np.nan, known)
        return known[:, None]

    def texts(self, field: str) -> list[str]:
        """What a word field can be here, in the order that ``words`` counts in."""
        if field == "phase":
            return [phase.label for phase in Phase]
        return list(self.source.view.stacks)

    def text_ids(self, test: Callable[[str], bool]) -> Bool:
        """Whether each token's text passes ``test``, ``[n]``; of many tokens, each id is asked once."""
        if len(self.numbers) <= _FEW:
            return np.array(
                [test(self.source.view.text(number)) for number in self.columns.token_id.tolist()], np.bool_
            )
        ids, rows = np.unique(self.columns.token_id, return_inverse=True)
        held = np.array([test(self.source.view.text(number)) for number in ids.tolist()], np.bool_)
        return held[rows.ravel()] if ids.size else np.zeros(0, np.bool_)

    def other(self, branch: int) -> tuple[NDArray[Any], Bool]:
        """The experts at the same place of another branch, ``[n, m, K]``, and which tokens have one, ``[n]``."""
        numbers = self.source.other_branch(branch, self.columns)
        found = (numbers >= 0) & (self.columns.branch != branch)
        out = np.full(self.block.indices.shape, NO_EXPERT, np.uint16)
        if found.any():
            low = int(numbers[found].min())
            block = self.source.view.routing(low, int(numbers[found].max()) + 1)
            out[found] = _cut(block, numbers[found] - low, self._sites).indices
        return out, found

    def same_experts(self, branch: int) -> tuple[Bool, Bool]:
        """Whether the experts are the same as in another branch, and whether that is known; ``[n, m]`` each."""
        there, found = self.other(branch)
        here = self.block.indices
        shared = overlap(here, there)
        known = found[:, None] & (there != NO_EXPERT).any(-1) & (here != NO_EXPERT).any(-1)
        return (shared == set_sizes(here)) & (shared == set_sizes(there)), known

    @property
    def _sites(self) -> slice | list[int]:
        whole = len(self.chosen) == len(self.source.view.sites)
        return slice(None) if whole else [site.index for site in self.chosen]

    @cached_property
    def _experts(self) -> F64:
        indices = self.block.indices
        return np.where(indices == NO_EXPERT, np.nan, indices.astype(np.float64))

    @cached_property
    def _renumbered(self) -> tuple[Site, ...]:
        if self._sites == slice(None):
            return self.chosen
        return tuple(replace(site, index=number) for number, site in enumerate(self.chosen))

    @cached_property
    def _entropy(self) -> F32:
        return site_entropy(self.block.logits, self._renumbered, len(self.numbers))

    @cached_property
    def _margin(self) -> F32:
        return site_margin(self.block.logits, self._renumbered, len(self.numbers))

    @cached_property
    def _first(self) -> F64:
        if not self.block.indices.shape[2]:
            return np.full(self.block.indices.shape[:2], np.nan)
        first = first_choices(self.block.indices, self.block.weights)
        return np.where(first == NO_EXPERT, np.nan, first.astype(np.float64))

    @cached_property
    def _load_cv(self) -> F64:
        """Variation of each site's loads over the window that ends with each token; padding does not count."""
        out = np.full((len(self.numbers), len(self.chosen)), np.nan)
        if not len(self.numbers):
            return out
        view = self.source.view
        low = max(view.first, int(self.numbers[0]) - LOAD_WINDOW + 1)
        high = int(self.numbers[-1]) + 1
        indices = _cut(view.routing(low, high), slice(None), self._sites).indices
        indices = np.where(view.tokens(low, high).pad[:, None, None], NO_EXPERT, indices)
        until = self.numbers - low + 1
        since = np.maximum(until - LOAD_WINDOW, 0)
        for column, site in enumerate(self.chosen):
            sums = np.zeros((high - low + 1, site.num_experts + 1), np.int32)
            for slot in range(indices.shape[2]):
                expert = np.minimum(indices[:, column, slot], site.num_experts)
                sums[np.arange(1, high - low + 1), expert] += 1
            loads = sums[:, : site.num_experts].cumsum(0)
            out[:, column] = coefficient_of_variation(loads[until] - loads[since])
        return out


_COMPUTED: dict[str, Callable[[Frame], NDArray[Any]]] = {
    "layer": lambda frame: np.array([[float(site.layer) for site in frame.chosen]]),
    "site": lambda frame: np.array([[float(site.index) for site in frame.chosen]]),
    "entropy": lambda frame: frame._entropy,
    "margin": lambda frame: frame._margin,
    "weight": lambda frame: frame.weights,
    "expert": lambda frame: frame._experts,
    "first": lambda frame: frame._first,
    "load_cv": lambda frame: frame._load_cv,
}


def _cut(block: RoutingBlock, rows: slice | I64, sites: slice | list[int]) -> RoutingBlock:
    def cut(array: NDArray[Any]) -> NDArray[Any]:
        return array[rows][:, sites]

    return RoutingBlock(
        indices=cut(block.indices),
        weights=None if block.weights is None else cut(block.weights),
        logits=None if block.logits is None else cut(block.logits),
        flags=cut(block.flags),
    )
