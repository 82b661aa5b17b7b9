"""Who got how much: loads, gate mass, and how evenly they spread over a site's experts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.model import Site
from moetui.routing.step import F64, I64, Bool

_TOKENS_A_SLOT = 10  # expected tokens an expert below which "it got none" says nothing


def loads(indices: NDArray[Any], sites: Sequence[Site], keep: Bool | None = None) -> I64:
    """Tokens that each expert got.

    Args:
        indices: ``[n, S, K]`` expert ids; ``NO_EXPERT`` and ids past a site's ``num_experts`` (zero-experts, skip
            classes: they do nothing) are not counted.
        sites: the sites, in the order of the site axis.
        keep: ``[n]`` tokens to count (padding left out); None for all.

    Returns:
        ``[S, E]`` counts, E the experts of the largest site; zero in columns that a site has not.
    """
    width = _width(sites)
    counts = np.bincount(_keys(indices, width, keep), minlength=len(sites) * (width + 1))
    return _trim(counts, sites, width).astype(np.int64)


def gate_mass(
    indices: NDArray[Any], weights: NDArray[Any] | None, sites: Sequence[Site], keep: Bool | None = None
) -> F64:
    """Sum of the gate weights that each expert got, Σ_t w_{t,e}.

    Args:
        indices: ``[n, S, K]``, as for ``loads``.
        weights: ``[n, S, K]``, NaN where unknown; None where no weights are known.
        sites: the sites, in the order of the site axis.
        keep: ``[n]`` tokens to count; None for all.

    Returns:
        ``[S, E]``, summed over the finite weights; NaN at experts that got tokens but no finite weight; 0 at experts
        without tokens.
    """
    counts, mass, known = loads_and_mass(indices, weights, sites, keep)
    return np.where((counts > 0) & (known == 0), np.nan, mass)


def loads_and_mass(
    indices: NDArray[Any], weights: NDArray[Any] | None, sites: Sequence[Site], keep: Bool | None = None
) -> tuple[I64, F64, I64]:
    """``loads``, and what ``gate_mass`` is made of and adds up over chunks: sums, and how many weights are in them."""
    width = _width(sites)
    size = len(sites) * (width + 1)

    def counted(keys: I64) -> I64:
        return _trim(np.bincount(keys, minlength=size), sites, width).astype(np.int64)

    keys = _keys(indices, width, keep)
    load = counted(keys)
    if weights is None:
        return load, np.zeros(load.shape), np.zeros_like(load)
    values = np.asarray(weights if keep is None or keep.all() else weights[keep], np.float64).ravel()
    finite = np.isfinite(values)
    known = load
    if not finite.all():
        keys, values = keys[finite], values[finite]
        known = counted(keys)
    return load, _trim(np.bincount(keys, weights=values, minlength=size), sites, width), known


def by_site(counts: NDArray[Any], sites: Sequence[Site]) -> F64:
    """``[S, E]`` counts as float64, with NaN in the columns of experts that a site has not."""
    out = np.array(counts, np.float64)
    for row, site in enumerate(sites):
        out[row, site.num_experts :] = np.nan
    return out


def shares(counts: NDArray[Any]) -> F64:
    """Each expert's share c_e / Σ c over the last axis; NaN where nothing was counted."""
    values = np.asarray(counts, np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(values / _positive(np.nansum(values, -1, keepdims=True)), np.float64)


def load_imbalance(counts: NDArray[Any]) -> F64:
    """Max over mean, max c / mean c, over the last axis; in [1, E].

    Args:
        counts: ``[..., E]`` loads or gate mass; NaN marks experts that do not exist and is left out.

    Returns:
        ``[...]``; NaN where nothing was counted. The same holds for every measure of evenness here.
    """
    values, experts, total = _sums(counts)
    with np.errstate(all="ignore"):
        return np.asarray(values.max(-1, initial=0.0) * experts / total, np.float64)


def max_violation(counts: NDArray[Any]) -> F64:
    """MaxVio, max c / mean c − 1 (arXiv 2408.15664); shapes as for ``load_imbalance``."""
    return np.asarray(load_imbalance(counts) - 1.0, np.float64)


def jain_fairness(counts: NDArray[Any]) -> F64:
    """Jain's index (Σ c)² / (E Σ c²), in [1/E, 1] (Jain, Chiu, Hawe 1984); shapes as for ``load_imbalance``."""
    values, experts, total = _sums(counts)
    with np.errstate(all="ignore"):
        part = values / total[..., None]  # shares: squares of counts or of tiny masses neither overflow nor vanish
        return np.asarray(1.0 / _positive(experts * (part * part).sum(-1)), np.float64)


def coefficient_of_variation(counts: NDArray[Any]) -> F64:
    """Population standard deviation over mean; shapes as for ``load_imbalance``."""
    known = ~np.isnan(np.asarray(counts, np.float64))
    values, experts, total = _sums(counts)
    with np.errstate(all="ignore"):
        spread = np.where(known, values * (experts / total)[..., None] - 1.0, 0.0)
        return np.asarray(np.sqrt((spread * spread).sum(-1) / experts), np.float64)


def max_share(counts: NDArray[Any]) -> F64:
    """The busiest expert's share, max c / Σ c; shapes as for ``load_imbalance``."""
    values, _, total = _sums(counts)
    with np.errstate(all="ignore"):
        return np.asarray(values.max(-1, initial=0.0) / total, np.float64)


@dataclass(frozen=True, slots=True)
class DeadExperts:
    """Experts of one site that no token was sent to.

    Attributes:
        site: index of the site.
        experts: their ids.
        tokens: tokens that the site routed meanwhile.
        needed: tokens below which this says nothing of the experts.
    """

    site: int
    experts: tuple[int, ...]
    tokens: int
    needed: int

    @property
    def enough(self) -> bool:
        """Whether enough tokens were seen to call the experts dead."""
        return self.tokens >= self.needed


def tokens_needed(site: Site) -> int:
    """Tokens from which an unused expert may be called dead: E / k · 10, ten a head under even routing."""
    return math.ceil(_TOKENS_A_SLOT * site.num_experts / max(1, site.top_k))


def dead_experts(counts: NDArray[Any], tokens: NDArray[Any], sites: Sequence[Site]) -> list[DeadExperts]:
    """Experts with load 0, by site; sites that routed no token tell nothing and are left out.

    Args:
        counts: ``[S, E]`` loads.
        tokens: ``[S]`` tokens that each site routed.
        sites: the sites, in the order of the site axis.
    """
    out = []
    for row, site in enumerate(sites):
        unused = np.flatnonzero(np.asarray(counts[row, : site.num_experts]) == 0)
        if unused.size and tokens[row] > 0:
            out.append(DeadExperts(row, tuple(unused.tolist()), int(tokens[row]), tokens_needed(site)))
    return out


def dead_pairs(found: Iterable[DeadExperts], sites: Sequence[Site]) -> list[tuple[int, int]]:
    """Pairs of layer and expert, in order; a pair that two sites of a layer share is there once."""
    return sorted({(sites[each.site].layer, expert) for each in found for expert in each.experts})


def domain_specialization(counts: NDArray[Any], tokens: NDArray[Any]) -> F64:
    """Share of a domain's tokens that each expert got, N(e, D) / N_D (OLMoE, arXiv 2409.02060); chance is k / E.

    Args:
        counts: ``[S, E]`` loads over the domain's tokens.
        tokens: ``[S]`` tokens of the domain that each site routed.

    Returns:
        ``[S, E]`` in [0, 1]; NaN at sites without tokens.
    """
    number = np.asarray(tokens, np.float64)[..., None]
    with np.errstate(all="ignore"):
        return np.asarray(np.asarray(counts, np.float64) / _positive(number), np.float64)


def _width(sites: Sequence[Site]) -> int:
    return max((site.num_experts for site in sites), default=0)


def _keys(indices: NDArray[Any], width: int, keep: Bool | None) -> I64:
    """One number for a site and an expert; column ``width`` takes what is no expert."""
    chosen = indices if keep is None or keep.all() else indices[keep]
    offsets = np.arange(chosen.shape[1], dtype=np.int64)[:, None] * (width + 1)
    return np.asarray(np.minimum(chosen, width) + offsets, np.int64).ravel()


def _trim(counts: NDArray[Any], sites: Sequence[Site], width: int) -> NDArray[Any]:
    table: NDArray[Any] = counts.reshape(len(sites), width + 1)[:, :width].copy()
    for row, site in enumerate(sites):
        table[row, site.num_experts :] = 0
    return table


def _sums(counts: NDArray[Any]) -> tuple[F64, F64, F64]:
    values = np.asarray(counts, np.float64)
    known = ~np.isnan(values)
    values = np.where(known, values, 0.0)
    return values, known.sum(-1).astype(np.float64), _positive(values.sum(-1))


def _positive(total: F64) -> F64:
    return np.where(total > 0, total, np.nan)
