"""What some tokens add to sums over a timeline's routing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from moetui.routing.metrics.loads import loads_and_mass
from moetui.routing.model import Site
from moetui.routing.phase import Phase
from moetui.routing.scores import passed, site_entropy
from moetui.routing.step import F64, I64, Bool, SiteFlag


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Sums over tokens; padding is in none of them.

    Attributes:
        phases: token positions by ``Phase``, ``[2]``; ``stacks`` by number of the stack.
        routed: ``[S]`` tokens that each site routed (of its own stack, dropped ones included).
        loads: ``[S, E]`` tokens an expert got, E the experts of the largest site.
        mass: ``[S, E]`` sum of its known gate weights, and ``mass_known`` how many these are.
        dropped: ``[S]`` tokens that got no expert; ``forced`` and ``non_finite`` likewise by ``SiteFlag``.
        entropy: ``[S]`` sum of the known entropies in nats, and ``entropy_known`` how many these are.
        has_logits: whether the tokens' logits were there to tell them.
    """

    phases: I64
    stacks: I64
    routed: I64
    loads: I64
    mass: F64
    mass_known: I64
    dropped: I64
    forced: I64
    non_finite: I64
    entropy: F64
    entropy_known: I64
    has_logits: bool


ARRAYS = tuple(field.name for field in fields(Counts) if field.name != "has_logits")


@runtime_checkable
class Summed(Protocol):
    """A view that knows sums over some of its tokens without looking at each; ``sites`` are those it knows them by."""

    def summed(self, start: int, stop: int) -> tuple[int, int]:
        """The first tokens from ``start`` on, up to ``stop``, whose sums are known; ``(stop, stop)`` without any."""

    def counts(self, start: int, stop: int) -> Counts | None:
        """The sums over tokens ``start .. stop - 1``, which ``summed`` gave; None where they cannot be trusted."""


def count_tokens(
    phase: NDArray[Any],
    stack: NDArray[Any],
    keep: Bool,
    indices: NDArray[Any],
    weights: NDArray[Any] | None,
    logits: NDArray[Any] | None,
    flags: NDArray[Any],
    sites: Sequence[Site],
) -> Counts:
    """The sums over n tokens.

    Args:
        phase: ``[n]`` of each token, and ``stack`` the number of its stack.
        keep: ``[n]`` which of them to count.
        indices: ``[n, S, K]``.
        weights: ``[n, S, K]``, None where none are known.
        logits: ``[n, S, E]``, None where none are known or entropies are not wanted.
        flags: ``[n, S]``.
        sites: the sites, in the order of the site axis.
    """
    load, mass, known = loads_and_mass(indices, weights, sites, keep)
    seen = passed(indices, flags) & keep[:, None]
    dropped, forced, non_finite = (
        np.asarray(((flags & flag) != 0)[keep].sum(0), np.int64)
        for flag in (SiteFlag.DROPPED, SiteFlag.FORCED, SiteFlag.NON_FINITE)
    )
    entropy: F64 = np.zeros(len(sites))
    entropy_known: I64 = np.zeros(len(sites), np.int64)
    if logits is not None:
        values = site_entropy(logits, sites, roughly=True)
        there = seen & ~np.isnan(values)
        entropy = np.where(there, values, 0.0).sum(0, dtype=np.float64)
        entropy_known = np.asarray(there.sum(0), np.int64)
    return Counts(
        phases=np.bincount(phase[keep], minlength=len(Phase))[: len(Phase)],
        stacks=np.bincount(stack[keep]),
        routed=np.asarray(seen.sum(0), np.int64),
        loads=load,
        mass=mass,
        mass_known=known,
        dropped=dropped,
        forced=forced,
        non_finite=non_finite,
        entropy=entropy,
        entropy_known=entropy_known,
        has_logits=logits is not None,
    )


def added(parts: Sequence[Counts]) -> Counts:
    """The sums over the tokens of all parts, one at least."""
    stacks = np.zeros(max(len(part.stacks) for part in parts), np.int64)
    for part in parts:
        stacks[: len(part.stacks)] += part.stacks
    sums = {name: sum(getattr(part, name) for part in parts) for name in ARRAYS if name != "stacks"}
    return Counts(stacks=stacks, has_logits=any(part.has_logits for part in parts), **sums)
