"""From router logits to probabilities, entropies and margins, by each site's scoring rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.model import Site
from moetui.routing.selection import expert_scores, selection_key, selections
from moetui.routing.step import F16, F32, NO_EXPERT, U8, U16, Bool, SiteFlag, Step, TokenScores
from moetui.routing.steps import Steps

NEAR_TIE = 0.05
"""A margin below this, in router score units, is called a near tie: another expert could as well have been chosen."""

_BLOCK = 400_000  # numbers worked on at once: they stay in the processor's cache, which halves the time
_SOFTMAX = ("softmax", "softmax_top_k")
_SMALL = 16.0  # up to it, an entropy from exponentials of the logits themselves is exact to 1e-5
_SPARE_BITS = 11  # of a float32's 24: logits are half floats and have 11, so that these of a score say nothing


def probabilities(logits: NDArray[Any], site: Site) -> F32:
    """The full router distribution of one site.

    Args:
        logits: ``[..., E]`` as captured (``site.logits_form``); extra columns past ``site.num_classes`` are ignored.
        site: whose rule to follow. Softmax rules give a softmax; sigmoid and softplus scores are normalised to sum 1;
            captured probabilities are renormalised. A softmax of scaled or soft-capped logits is of the captured ones.

    Returns:
        ``[..., num_classes]`` float32. A logit of minus infinity is a masked class with probability 0; rows with NaN
        or plus infinity, rows without any mass, and all rows of an unknown rule are NaN.
    """
    values = widen(logits[..., : site.num_classes])
    with np.errstate(all="ignore"):
        if site.logits_form == "probabilities":
            scores: F32 = np.clip(values, 0.0, None)
        elif site.scoring in _SOFTMAX:
            scores = np.asarray(np.exp(values - values.max(-1, keepdims=True)), np.float32)
        elif site.scoring in ("sigmoid", "sqrt_softplus"):
            scores = expert_scores(values, site.scoring)
        else:
            return np.full_like(values, np.nan)
        total = sum_last(scores)[..., None]
        known = np.isfinite(total) & (total > 0)  # not with NaN, and a sigmoid's alone are finite at infinity
        if site.scoring == "sigmoid":
            known &= ~np.isposinf(values).any(-1, keepdims=True)
        return np.asarray(np.where(known, scores / total, np.nan), np.float32)


def entropy(distribution: NDArray[Any]) -> F32:
    """Shannon entropy −Σ p log p over the last axis, in nats; NaN where the distribution is."""
    with np.errstate(all="ignore"):
        out = -sum_last(np.where(distribution > 0, distribution * np.log(distribution), 0.0))
    return np.asarray(np.where(np.isnan(sum_last(distribution)), np.nan, out), np.float32)


def margins(logits: NDArray[Any], k: int) -> F32:
    """The k-th minus the (k+1)-th largest score over the last axis; NaN where there is no (k+1)-th or a NaN.

    Over a masked class (minus infinity) the margin is infinite. ``router_margin`` takes the scores that choose.
    """
    values = widen(logits)
    if k < 1 or k >= values.shape[-1]:
        return np.full(values.shape[:-1], np.nan, np.float32)
    kept = np.sort(values, axis=-1)  # NaN sorts last, so a row's last value tells whether it has one
    with np.errstate(invalid="ignore"):
        out = kept[..., -k] - kept[..., -k - 1]
    return np.asarray(np.where(np.isnan(kept[..., -1]), np.nan, out), np.float32)


def widen(values: NDArray[Any]) -> F32:
    """``values`` as float32; finite half floats by their bits, in a fraction of the time of NumPy's own conversion."""
    if values.dtype == np.float16:
        bits = values.view(np.int16)
        if ((bits & _EXPONENT) != _EXPONENT).all():  # all finite
            # The sign stays on top, exponent and fraction move to their places; what a half's exponent means is
            # 2^112 times what the same number means in a float. Numbers below 2^-14 come out right, too.
            wide = bits.astype(np.int32)
            wide <<= 13
            wide &= _HALF_IN_FLOAT
            out: F32 = wide.view(np.float32)
            out *= _EXPONENTS_APART
            return out
    return np.asarray(values, np.float32)


_EXPONENT = np.int16(0x7C00)  # of a half float; all ones at infinity and NaN
_HALF_IN_FLOAT = np.int32(-0x70002000)  # bits of a float that a half float fills
_EXPONENTS_APART = np.float32(2.0**112)


def passed(indices: NDArray[Any], flags: NDArray[Any]) -> Bool:
    """Which tokens each site routed, ``[n, S]``: those that got an expert there, or were dropped there.

    Args:
        indices: ``[n, S, K]``.
        flags: ``[n, S]`` ``SiteFlag`` bits.
    """
    # Slot by slot: a reduction over a last axis of two or eight is several times slower.
    seen = (flags & SiteFlag.DROPPED) != 0
    for slot in range(indices.shape[2]):
        seen |= indices[:, :, slot] != NO_EXPERT
    return np.asarray(seen, np.bool_)


def site_entropy(logits: NDArray[Any] | None, sites: Sequence[Site], count: int = 0, *, roughly: bool = False) -> F32:
    """Entropy of each token's full router distribution at each site.

    Args:
        logits: ``[n, S, E]``, or None when not captured.
        sites: the sites, in the order of the site axis.
        count: n, for when there are no logits.
        roughly: see ``router_entropy``.

    Returns:
        ``[n, S]`` nats, NaN where unknown.
    """
    return _by_site(logits, sites, count, lambda block, alike: router_entropy(block, alike[0], roughly=roughly))


def site_confidence(logits: NDArray[Any] | None, sites: Sequence[Site], count: int = 0) -> F32:
    """The largest probability of each token's full router distribution, ``[n, S]``, NaN where unknown."""
    return _by_site(logits, sites, count, lambda block, alike: router_confidence(block, alike[0]))


def site_margin(logits: NDArray[Any] | None, sites: Sequence[Site], count: int = 0) -> F32:
    """The k-th minus the (k+1)-th score at each site, ``[n, S]``, NaN where unknown; see ``router_margin``."""
    return _by_site(logits, sites, count, _margins)


def router_margin(logits: NDArray[Any], site: Site) -> F32:
    """By how much the router preferred its k-th expert to the one that would have come next, ``[..., E]`` to ``[...]``.

    The k-th minus the (k+1)-th of the scores that choose: of the logits, or where a bias or a group limit takes part,
    of the selection scores (``Site.selection``) among the eligible experts, in their units. Where logits are held as
    half floats, scores so close that these round them alike are told apart no better.

    Returns:
        NaN where a logit is, where what chooses is not known, and where no eligible expert is left to come next.
    """
    return _margins(widen(logits[..., : site.num_classes]), (site,))


def _margins(logits: NDArray[Any], alike: Sequence[Site]) -> F32:
    """``router_margin`` of sites that one formula fits: one, or ``[n, s, C]`` of s of them."""
    site, selection = alike[0], alike[0].selection
    if site.plain_choice:
        return margins(logits, site.top_k)
    scores, left_out = selections(widen(logits), alike)
    margin = margins(np.where(left_out, -np.inf, scores), site.top_k)
    if selection is not None and selection.groups > 1:  # over an expert that is left out it would be infinite
        margin[np.sum(~left_out, -1) <= site.top_k] = np.nan
    return margin


def router_entropy(
    logits: NDArray[Any], site: Site, known: tuple[F32, F32, F32] | None = None, *, roughly: bool = False
) -> F32:
    """Entropy of ``probabilities(logits, site)`` in nats, ``[..., E]`` to ``[...]``, without forming them where it can.

    For a softmax, H = log Z − Σ e^z z / Z with z shifted by the maximum and Z = Σ e^z; ``known`` are z, e^z and Z.
    ``roughly``: where no logit is large, take z as they are, which saves a third of the time; to 1e-5, and other tokens
    of the same call have a say in the last digits, so that it is for means over many.
    """
    values = widen(logits[..., : site.num_classes])
    if site.logits_form == "probabilities" or site.scoring not in _SOFTMAX:
        return entropy(probabilities(values, site))
    small = roughly and values.max(initial=0.0) <= _SMALL and values.min(initial=0.0) >= -_SMALL
    shifted, exponentials, total = known or _exponentials(values, shift=not small)
    with np.errstate(all="ignore"):
        out = np.asarray(np.log(total) - np.einsum("...e,...e->...", exponentials, shifted) / total, np.float32)
    masked = np.isnan(out) & np.isfinite(total)  # 0 · −inf: a masked class, no unknown
    if masked.any():
        out[masked] = entropy(probabilities(values[masked], site))
    return np.maximum(out, 0.0)


def router_confidence(logits: NDArray[Any], site: Site, known: tuple[F32, F32, F32] | None = None) -> F32:
    """The largest of ``probabilities(logits, site)``, ``[..., E]`` to ``[...]``, without forming them where it can.

    For a softmax it is 1 / Z, with Z = Σ e^z and z shifted by the maximum; ``known`` are z, e^z and Z.
    """
    if site.logits_form == "probabilities" or site.scoring not in _SOFTMAX:
        return np.asarray(probabilities(logits, site).max(-1), np.float32)
    *_, total = known or _exponentials(widen(logits[..., : site.num_classes]))
    with np.errstate(all="ignore"):
        return np.asarray(1.0 / total, np.float32)


def token_scores(step: Step | Steps, sites: Sequence[Site]) -> TokenScores:
    """Entropy, confidence and margin of the tokens of one step or several, averaged over the sites that each passed.

    Rounded to 13 significant bits: a recording of digits that say nothing would take twice the room.
    """
    return step.scores or routing_scores(step.indices, step.weights, step.logits, step.flags, sites)


def routing_scores(
    indices: U16, weights: F16 | None, logits: F16 | None, flags: U8, sites: Sequence[Site]
) -> TokenScores:
    """The same from the arrays of any tokens, as ``Step`` has them; of no sites everything is unknown."""
    count = indices.shape[0]
    if not sites:
        unknown = np.full(count, np.nan, np.float32)
        return TokenScores(unknown, unknown, unknown)
    per_site = np.full((3, count, len(sites)), np.nan, np.float32)
    if logits is not None:
        for alike, columns in _groups(sites):
            rows = max(1, _BLOCK // max(1, logits[0:1, columns].size))
            for start in range(0, count, rows):
                part = slice(start, start + rows)
                per_site[:, part, columns] = _three(logits[part, columns, : alike[0].num_classes], alike)
    certainty = per_site[1]
    unsure = np.isnan(certainty)
    if unsure.any():
        certainty[unsure] = _first_share(indices, weights)[unsure]
    return TokenScores(*_rounded(_mean_over_sites(per_site, passed(indices, flags))))


def _three(logits: NDArray[Any], alike: Sequence[Site]) -> tuple[F32, F32, F32]:
    """Router entropy, confidence and margin, ``[n, S, E]`` to ``[n, S]``; what two of them share is worked out once."""
    values, site = widen(logits), alike[0]
    exponentials = (
        None if site.logits_form == "probabilities" or site.scoring not in _SOFTMAX else _exponentials(values)
    )
    return (
        router_entropy(values, site, exponentials),
        router_confidence(values, site, exponentials),
        _margins(values, alike),
    )


def _exponentials(values: F32, *, shift: bool = True) -> tuple[F32, F32, F32]:
    """Values less their largest, the exponentials of that, and their sum; over the last axis."""
    with np.errstate(all="ignore"):
        shifted = values - values.max(-1, keepdims=True) if shift else values
        exponentials = np.exp(shifted)
        return shifted, exponentials, sum_last(exponentials)


def sum_last(values: NDArray[Any]) -> F32:
    """Sum over the last axis, several times faster than ``values.sum(-1)`` where that is short."""
    return np.asarray(np.einsum("...e->...", values), np.float32)


def _rounded(values: F32) -> F32:
    bits = values.view(np.uint32) + np.uint32(1 << (_SPARE_BITS - 1))  # a number that overflows becomes infinite
    bits &= np.uint32(0xFFFFFFFF << _SPARE_BITS & 0xFFFFFFFF)
    rounded: F32 = bits.view(np.float32)
    return rounded


def _by_site(
    logits: NDArray[Any] | None,
    sites: Sequence[Site],
    count: int,
    measure: Callable[[NDArray[Any], Sequence[Site]], F32],
) -> F32:
    if logits is None:
        return np.full((count, len(sites)), np.nan, np.float32)
    out = np.full((logits.shape[0], len(sites)), np.nan, np.float32)
    for alike, columns in _groups(sites):
        block = logits[:, columns, : alike[0].num_classes]
        rows = max(1, _BLOCK // max(1, block.shape[1] * block.shape[2]))
        for start in range(0, block.shape[0], rows):
            out[start : start + rows, columns] = measure(block[start : start + rows], alike)
    return out


def _groups(sites: Sequence[Site]) -> Iterator[tuple[list[Site], slice | list[int]]]:
    """Sites that one formula fits, with their columns; a slice where they stand in a row, as that copies nothing."""
    found: dict[tuple[object, ...], list[Site]] = {}
    for site in sites:
        key = site.scoring, site.logits_form, site.num_classes, site.top_k, selection_key(site)
        found.setdefault(key, []).append(site)
    for group in found.values():
        columns = [site.index for site in group]
        first, last = columns[0], columns[-1]
        yield group, slice(first, last + 1) if last - first + 1 == len(columns) else columns


def _first_share(indices: U16, weights: F16 | None) -> F32:
    """Share of the largest gate weight in a token's gate mass, ``[T, S]``; NaN where weights are unknown."""
    if weights is None or not indices.shape[2]:
        return np.full(indices.shape[:2], np.nan, np.float32)
    masses = np.where(indices == NO_EXPERT, 0.0, np.abs(np.asarray(weights, np.float32)))
    with np.errstate(all="ignore"):
        return np.asarray(masses.max(-1) / masses.sum(-1), np.float32)


def _mean_over_sites(values: F32, seen: Bool) -> F32:
    known = seen & ~np.isnan(values)
    count = known.sum(-1)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(-1) / np.where(count, count, np.nan), np.float32)
