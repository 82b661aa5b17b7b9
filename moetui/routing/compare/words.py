"""The tokens of two runs side by side, with the probabilities that each run's model gave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moetui.routing.compare.align import Alignment
from moetui.routing.step import F64, I64, Bool
from moetui.routing.timeline import TimelineView, TokenColumns

_CHUNK = 8192
_BEFORE = 2


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Two tokens at one place.

    Attributes:
        a: the token's number in the first timeline; ``b`` in the second.
        position: in its sequence.
        text_a: its text, not yet made drawable; ``text_b`` likewise.
        prob_a: probability that the first run's model gave its token; ``prob_b`` the second's its own. None if unknown.
        same_token: whether both are the same token.
        sites: number of sites at which they went to other experts.
        moved: what ``probability_moved`` says of the pair; None if unknown.
    """

    a: int
    b: int
    position: int
    text_a: str
    text_b: str
    prob_a: float | None
    prob_b: float | None
    same_token: bool
    sites: int
    moved: float | None


def probability_moved(a: TimelineView, b: TimelineView, pairing: Alignment) -> F64:
    """``[p]`` how much probability the second run's prediction behind each pair puts elsewhere than the first's.

    The larger of Σ max(0, p_a − p_b) over the first's candidates and Σ max(0, p_b − p_a) over the second's, where one
    that the other does not list is as likely there as the least that it lists: in [0, 1], and no more than the total
    variation distance of the whole distributions. NaN where a run has no candidates, and behind the common prefix,
    where the two answer different texts.
    """
    out = np.full(len(pairing.a), np.nan)
    for start in range(0, len(pairing.a), _CHUNK):
        rows = slice(start, start + _CHUNK)
        one, other = _gathered(a, pairing.a[rows]), _gathered(b, pairing.b[rows])
        out[rows] = _moved(*one, *other)
    return np.where(pairing.prefix, out, np.nan)


def pairs_around(
    a: TimelineView, b: TimelineView, pairing: Alignment, differ: I64, moved: F64, most: int
) -> tuple[TokenPair, ...]:
    """Some pairs from just before the first other token on, or, where there is none, the first other experts.

    Args:
        differ: ``[p]`` at how many sites each pair went to other experts.
        moved: ``[p]`` what ``probability_moved`` says.
        most: how many pairs.
    """
    parted = np.flatnonzero(~pairing.same) if not pairing.same.all() else np.flatnonzero(differ)
    start = max(0, int(parted[0]) - _BEFORE) if parted.size else 0
    return tuple(
        _pair(a, b, pairing, row, int(differ[row]), float(moved[row]))
        for row in range(start, min(start + most, len(pairing.a)))
    )


def _pair(a: TimelineView, b: TimelineView, pairing: Alignment, row: int, sites: int, moved: float) -> TokenPair:
    number_a, number_b = int(pairing.a[row]), int(pairing.b[row])
    one, other = a.tokens(number_a, number_a + 1), b.tokens(number_b, number_b + 1)
    return TokenPair(
        a=number_a,
        b=number_b,
        position=int(one.position[0]),
        text_a=a.text(int(one.token_id[0])),
        text_b=b.text(int(other.token_id[0])),
        prob_a=_probability(one),
        prob_b=_probability(other),
        same_token=bool(pairing.same[row]),
        sites=sites,
        moved=None if np.isnan(moved) else moved,
    )


def _probability(columns: TokenColumns) -> float | None:
    value = float(columns.logprob[0])
    return None if np.isnan(value) else float(np.exp(value))


def _gathered(view: TimelineView, numbers: I64) -> tuple[I64, F64]:
    """The candidates of these tokens, ``[n, C]``: ids, -1 for none, and probabilities, 0 there."""
    low = int(numbers.min())
    columns = view.tokens(low, int(numbers.max()) + 1)
    ids = columns.candidate_ids[numbers - low].astype(np.int64)
    given = np.exp(columns.candidate_logprobs[numbers - low].astype(np.float64))
    known = (ids >= 0) & ~np.isnan(given)
    return np.where(known, ids, -1), np.where(known, given, 0.0)


def _moved(ids_a: I64, given_a: F64, ids_b: I64, given_b: F64) -> F64:
    if not ids_a.shape[1] or not ids_b.shape[1]:
        return np.full(len(ids_a), np.nan)
    met = (ids_a[:, :, None] == ids_b[:, None, :]) & (ids_a >= 0)[:, :, None]
    lost = _over(given_a, np.where(met, given_b[:, None, :], 0.0).sum(2), met.any(2), ids_b, given_b)
    gained = _over(given_b, np.where(met, given_a[:, :, None], 0.0).sum(1), met.any(1), ids_a, given_a)
    known = (ids_a >= 0).any(1) & (ids_b >= 0).any(1)
    return np.where(known, np.clip(np.maximum(lost, gained), 0.0, 1.0), np.nan)


def _over(given: F64, there: F64, met: Bool, other_ids: I64, other: F64) -> F64:
    """``[n]`` by how much candidates are likelier than in the other run: ``there``, or at most its least where not."""
    least = np.where(other_ids >= 0, other, 1.0).min(1)
    return np.asarray(np.maximum(0.0, given - np.where(met, there, least[:, None])).sum(1), np.float64)
