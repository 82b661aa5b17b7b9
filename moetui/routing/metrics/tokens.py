"""What tokens do together and one after the other: co-activation, repetition, saturation, vocabulary."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.step import F64, I64, NO_EXPERT, U16, Bool
from moetui.routing.timeline import TokenColumns

_ROWS = 8192
_UNKNOWN_WEIGHT = -3.0e38


def ranked(indices: NDArray[Any], weights: NDArray[Any] | None) -> U16:
    """A token's experts with the largest gate weight first.

    Args:
        indices: ``[n, S, K]``.
        weights: ``[n, S, K]``; unknown weights keep the model's slot order, behind the known ones.

    Returns:
        ``[n, S, K]`` expert ids, ``NO_EXPERT`` last.
    """
    chosen = np.asarray(indices, np.uint16)
    known = np.zeros(chosen.shape, np.float32) if weights is None else np.asarray(weights, np.float32)
    known = np.where(np.isnan(known), _UNKNOWN_WEIGHT, known)
    order = np.argsort(np.where(chosen == NO_EXPERT, np.inf, -known), axis=-1, kind="stable")
    return np.asarray(np.take_along_axis(chosen, order, -1), np.uint16)


def first_choices(indices: NDArray[Any], weights: NDArray[Any] | None) -> U16:
    """The expert with a token's largest gate weight, ``[n, S]``; ``NO_EXPERT`` where it got none; see ``ranked``."""
    return np.asarray(ranked(indices, weights)[:, :, 0], np.uint16)


def previous_tokens(columns: TokenColumns) -> I64:
    """For each token the row of the token before it in the same sequence, ``[n]``; -1 where there is none here.

    A position that is not one more than the last one of its branch, stack and batch row starts a new sequence.
    """
    count = columns.position.shape[0]
    out = np.full(count, -1, np.int64)
    rows = np.flatnonzero(~columns.pad)
    if rows.size < 2:
        return out
    keys = (columns.sequence[rows], columns.stack[rows], columns.branch[rows])
    rows = rows[np.lexsort(keys)]  # stable: within a sequence, the order in which they went through the model
    before, after = rows[:-1], rows[1:]
    follows = columns.position[after] == columns.position[before] + 1
    for column in (columns.sequence, columns.stack, columns.branch):
        follows &= column[after] == column[before]
    out[after[follows]] = before[follows]
    return out


def repetition(indices: NDArray[Any], previous: I64, depth: int = 1) -> F64:
    """How often a token's first choices meet those of the token before it (Mixtral, arXiv 2401.04088, table 5).

    Args:
        indices: ``[n, S, K]`` in rank order (``ranked``).
        previous: ``[n]`` from ``previous_tokens``.
        depth: 1 compares first choices; 2 asks whether the first two of both share one.

    Returns:
        ``[S]`` shares of the neighbouring pairs that the site routed both of; NaN without such pairs.
    """
    after = np.flatnonzero(previous >= 0)
    here, there = indices[after][:, :, :depth], indices[previous[after]][:, :, :depth]
    both = (here[:, :, 0] != NO_EXPERT) & (there[:, :, 0] != NO_EXPERT)
    meet = np.asarray(overlap(here, there) > 0, np.bool_)
    return _share((meet & both).sum(0), both.sum(0))


def repetition_chance(num_experts: int, depth: int = 1) -> float:
    """``repetition`` of even, independent choices: 1 − C(E−d, d) / C(E, d), which is 1/E at depth 1."""
    depth = min(depth, num_experts)
    return 1.0 - comb(num_experts - depth, depth) / comb(num_experts, depth) if num_experts else float("nan")


def overlap(a: NDArray[Any], b: NDArray[Any]) -> I64:
    """How many experts two choices share: ``[..., K]`` and ``[..., L]`` to ``[...]``, ``NO_EXPERT`` left out."""
    out = np.zeros(a.shape[:-1], np.int64)
    for slot in range(a.shape[-1]):
        chosen = a[..., slot, None]
        fresh = ~(a[..., :slot] == chosen).any(-1)
        out += (b == chosen).any(-1) & (chosen[..., 0] != NO_EXPERT) & fresh
    return out


def set_sizes(indices: NDArray[Any]) -> I64:
    """Different experts in each choice, ``[..., K]`` to ``[...]``."""
    return overlap(indices, indices)


def saturation(indices: NDArray[Any], final: NDArray[Any], keep: Bool | None = None) -> F64:
    """How much of the final choice was there already: mean of |top-k ∩ final top-k| / k (OLMoE, arXiv 2409.02060).

    Args:
        indices: ``[n, S, K]`` at an early checkpoint.
        final: ``[n, S, K]`` of the same tokens at the last checkpoint.
        keep: ``[n]`` tokens to count; None for all.

    Returns:
        ``[S]`` in [0, 1]; k is each token's number of experts in the final choice; NaN without tokens.
    """
    chosen, last = (indices, final) if keep is None else (indices[keep], final[keep])
    size = set_sizes(last)
    with np.errstate(all="ignore"):
        part = np.where(size > 0, overlap(chosen, last) / np.where(size > 0, size, 1), 0.0)
    return _share(part.sum(0), (size > 0).sum(0))


def coactivation(indices: NDArray[Any], num_experts: int, keep: Bool | None = None, *, adjacent: bool = False) -> F64:
    """How often expert j is chosen where i is: N(i, j) / N(i) at one site (OLMoE, arXiv 2409.02060).

    Args:
        indices: ``[n, K]`` of one site; in rank order where ``adjacent`` is set.
        num_experts: E; ids past it are left out.
        keep: ``[n]`` tokens to count; None for all.
        adjacent: count pairs in neighbouring ranks only, not all pairs of a token's choice.

    Returns:
        ``[E, E]``, row i, column j; the diagonal is 1; rows of experts never chosen are NaN.
    """
    chosen = np.minimum(indices if keep is None else indices[keep], num_experts).astype(np.intp)
    together = np.zeros((num_experts, num_experts), np.float64)
    for start in range(0, chosen.shape[0], _ROWS):
        rows = chosen[start : start + _ROWS]
        if not adjacent:
            hot = np.zeros((rows.shape[0], num_experts + 1), np.float32)
            np.put_along_axis(hot, rows, 1.0, axis=1)
            hot = hot[:, :num_experts]
            together += hot.T @ hot  # exact: counts below 2**24 a chunk
            continue
        for slot in range(rows.shape[1] - 1):
            left, right = rows[:, slot], rows[:, slot + 1]
            pair = (left < num_experts) & (right < num_experts) & (left != right)
            np.add.at(together, (left[pair], right[pair]), 1.0)
            np.add.at(together, (right[pair], left[pair]), 1.0)
    if adjacent:
        np.fill_diagonal(together, _holders(chosen, num_experts))
    number = np.diag(together)[:, None]
    with np.errstate(all="ignore"):
        return np.asarray(together / np.where(number > 0, number, np.nan), np.float64)


def vocabulary_specialization(
    first: NDArray[Any], token_ids: NDArray[Any], num_experts: int, *, occurrences: int = 10
) -> float:
    """How far token ids keep to one expert: the largest expert share of an id's first choices, averaged over ids.

    Args:
        first: ``[n]`` first choices at one site (``first_choices``).
        token_ids: ``[n]``; -1 (unknown) is left out.
        num_experts: E; chance lies a little above 1/E.
        occurrences: ids met less often than this are left out.

    Returns:
        A share in [1/E, 1]; NaN when no id was met often enough. After OLMoE, arXiv 2409.02060.
    """
    table, ids = first_choice_table(first, token_ids, num_experts)
    if not ids.size:
        return float("nan")
    often = table.sum(1)
    enough = often >= max(1, occurrences)
    if not enough.any():
        return float("nan")
    return float((table[enough].max(1) / often[enough]).mean(dtype=np.float64))


def first_choice_table(first: NDArray[Any], token_ids: NDArray[Any], num_experts: int) -> tuple[I64, I64]:
    """How often each token id went to each expert first: ``[V, E]`` counts and the ``[V]`` ids met, ascending."""
    keep = (token_ids >= 0) & (first < num_experts)
    ids, rows = np.unique(np.asarray(token_ids[keep], np.int64), return_inverse=True)
    keys = rows.astype(np.int64).ravel() * num_experts + first[keep]
    return np.bincount(keys, minlength=ids.size * num_experts).reshape(ids.size, num_experts).astype(np.int64), ids


def _holders(chosen: NDArray[Any], num_experts: int) -> F64:
    """Tokens whose choice holds each expert; one that holds it twice counts once."""
    out = np.zeros(num_experts + 1, np.float64)
    for slot in range(chosen.shape[1]):
        fresh = ~(chosen[:, :slot] == chosen[:, slot, None]).any(1)
        out += np.bincount(chosen[fresh, slot], minlength=num_experts + 1)
    return out[:num_experts]


def _share(part: NDArray[Any], whole: NDArray[Any]) -> F64:
    number = np.asarray(whole, np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(part / np.where(number > 0, number, np.nan), np.float64)
