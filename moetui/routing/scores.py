"""From router logits to probabilities, entropies and margins, by each site's scoring rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.model import Site
from moetui.routing.step import F32, NO_EXPERT, Step


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """Means over the sites a token passed, ``[T]`` each, NaN where unknown (see ``TokenColumns``)."""

    entropy: F32
    confidence: F32
    margin: F32


def probabilities(logits: NDArray[Any], site: Site) -> F32:
    """The full router distribution of one site.

    Args:
        logits: ``[..., E]`` as captured (``site.logits_form``); extra columns past ``site.num_classes`` are ignored.
        site: whose rule to follow. Softmax rules give a softmax; sigmoid and softplus scores are normalised to sum 1;
            captured probabilities are renormalised. A softmax of scaled or soft-capped logits is of the captured ones.

    Returns:
        ``[..., num_classes]`` float32; rows with NaN or infinity, and all rows of an unknown rule, are NaN.
    """
    values = np.asarray(logits[..., : site.num_classes], np.float32)
    with np.errstate(all="ignore"):
        if site.logits_form == "probabilities":
            scores: F32 = np.clip(values, 0.0, None)
        elif site.scoring in ("softmax", "softmax_top_k"):
            scores = np.asarray(np.exp(values - values.max(-1, keepdims=True)), np.float32)
        elif site.scoring == "sigmoid":
            scores = np.asarray(1.0 / (1.0 + np.exp(-values)), np.float32)
        elif site.scoring == "sqrt_softplus":
            scores = np.asarray(np.sqrt(np.logaddexp(0.0, values)), np.float32)
        else:
            return np.full_like(values, np.nan)
        return np.asarray(scores / scores.sum(-1, keepdims=True), np.float32)


def entropy(distribution: NDArray[Any]) -> F32:
    """Shannon entropy −Σ p log p over the last axis, in nats; NaN where the distribution is."""
    with np.errstate(all="ignore"):
        terms = np.where(distribution > 0, distribution * np.log(distribution), 0.0)
        out = -terms.sum(-1)
    return np.asarray(np.where(np.isnan(distribution).any(-1), np.nan, out), np.float32)


def margins(logits: NDArray[Any], k: int) -> F32:
    """The k-th minus the (k+1)-th largest score over the last axis; NaN where there is no (k+1)-th or a NaN.

    Scores are the router's own output, without a selection bias: at sites with one this is the router's margin, not
    the choice's.
    """
    values = np.asarray(logits, np.float32)
    if k < 1 or k >= values.shape[-1]:
        return np.full(values.shape[:-1], np.nan, np.float32)
    kept = np.sort(values, axis=-1)[..., ::-1]
    with np.errstate(invalid="ignore"):
        out = kept[..., k - 1] - kept[..., k]
    return np.asarray(np.where(np.isnan(values).any(-1), np.nan, out), np.float32)


def token_scores(step: Step, sites: Sequence[Site]) -> TokenScores:
    """Entropy, confidence and margin of a step's tokens, averaged over the sites that each passed."""
    count, width = step.num_tokens, len(sites)
    per_site = np.full((3, count, width), np.nan, np.float32)
    for site in sites:
        passed = (step.indices[:, site.index] != NO_EXPERT).any(-1)
        if not passed.any():
            continue
        share = _first_share(step, site)
        if step.logits is not None:
            raw = np.asarray(step.logits[:, site.index, : site.num_classes], np.float32)
            spread = probabilities(raw, site)
            known = ~np.isnan(spread).any(-1)
            per_site[0, :, site.index] = entropy(spread)
            per_site[1, :, site.index] = np.where(known, spread.max(-1), share)
            per_site[2, :, site.index] = margins(raw, site.top_k)
        else:
            per_site[1, :, site.index] = share
        per_site[:, ~passed, site.index] = np.nan
    return TokenScores(*(_nanmean(values) for values in per_site))


def _first_share(step: Step, site: Site) -> F32:
    """Share of the largest gate weight in a token's gate mass, ``[T]``."""
    if step.weights is None:
        return np.full(step.num_tokens, np.nan, np.float32)
    weights = np.abs(np.asarray(step.weights[:, site.index], np.float32))
    weights = np.where(step.indices[:, site.index] == NO_EXPERT, 0.0, weights)
    with np.errstate(all="ignore"):
        return np.asarray(weights.max(-1) / weights.sum(-1), np.float32)


def _nanmean(values: F32) -> F32:
    known = ~np.isnan(values)
    count = known.sum(-1)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(-1) / np.where(count, count, np.nan), np.float32)
