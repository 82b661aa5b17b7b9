"""A step from the arrays that a program has; what it does not have is unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from moetui.routing.phase import Phase
from moetui.routing.step import NO_EXPERT, Step
from moetui.trace.arrays import Array


def step_from_arrays(
    indices: ArrayLike,
    *,
    index: int,
    weights: ArrayLike | None = None,
    logits: ArrayLike | None = None,
    token_id: ArrayLike | None = None,
    texts: Mapping[int, str] | None = None,
    position: ArrayLike | None = None,
    sequence: ArrayLike = 0,
    logprob: ArrayLike = math.nan,
    phase: Phase | None = None,
    started: float = math.nan,
    duration: float = math.nan,
    branch: int = 0,
) -> Step:
    """One forward pass over T tokens, S sites and K slots, as ``TraceWriter`` takes it.

    Args:
        indices: ``[T, S, K]`` the experts; negative where a slot has none.
        index: number of the step, from 0.
        weights: ``[T, S, K]`` the factors on their outputs.
        logits: ``[T, S, E]`` the routers' first outputs.
        token_id: ``[T]``.
        texts: of token ids, those not given with an earlier step.
        position: ``[T]`` positions in their sequence; None for 0 to T - 1.
        sequence: ``[T]`` rows of the batch, or one for all.
        logprob: ``[T]`` natural log of the probability that the model gave each token.
        phase: None for decode where each sequence has one token, else prefill.
        started: seconds; ``duration`` milliseconds.
        branch: its number.

    Raises:
        ValueError: shapes that do not fit each other, no expert's number, or numbers that a trace has no room for.
    """
    experts = _experts(indices)
    count, sites = experts.shape[:2]
    rows = _column(sequence, np.int16, count, "sequence")
    if phase is None:
        phase = Phase.DECODE if len(np.unique(rows)) == count else Phase.PREFILL
    return Step(
        index=int(_column(index, np.int32, 1, "index")[0]),
        phase=phase,
        started=started,
        duration=duration,
        sequence=rows,
        position=_column(np.arange(count) if position is None else position, np.int32, count, "position"),
        token_id=_column(-1 if token_id is None else token_id, np.int32, count, "token_id"),
        pad=np.zeros(count, np.bool_),
        logprob=_column(logprob, np.float32, count, "logprob"),
        indices=experts,
        weights=_table(weights, experts.shape, "weights"),
        logits=_table(logits, experts.shape[:2], "logits"),
        flags=np.zeros((count, sites), np.uint8),
        candidate_ids=np.empty((count, 0), np.int32),
        candidate_logprobs=np.empty((count, 0), np.float16),
        site_ms=np.full(sites, np.nan, np.float32),
        branch=int(_column(branch, np.int16, 1, "branch")[0]),
        vocabulary=dict(texts or {}),
    )


def _experts(indices: ArrayLike) -> Array:
    given = np.asarray(indices)
    if given.ndim != 3 or given.dtype.kind not in "iu":
        raise ValueError(f"indices are whole numbers [tokens, sites, slots], not {given.dtype} {given.shape}")
    if given.size and int(given.max()) > NO_EXPERT:
        raise ValueError(f"there can be no expert {int(given.max())}")
    return np.where(given < 0, NO_EXPERT, given).astype(np.uint16)


def _column(values: ArrayLike, dtype: Any, count: int, name: str) -> Array:
    given = np.asarray(values)
    if given.shape not in ((), (count,)):
        raise ValueError(f"{name} of {given.shape} for {count} tokens")
    if np.issubdtype(dtype, np.integer) and given.size:
        lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
        if given.dtype.kind not in "iu" or given.min() < lowest or given.max() > highest:
            raise ValueError(f"{name}: whole numbers from {lowest} to {highest} are wanted")
    return np.broadcast_to(given, (count,)).astype(dtype)


def _table(values: ArrayLike | None, shape: tuple[int, ...], name: str) -> Array | None:
    if values is None:
        return None
    given = np.asarray(values)
    if given.ndim != 3 or given.shape[: len(shape)] != shape:
        raise ValueError(f"{name} of {given.shape} for indices of {shape}")
    with np.errstate(over="ignore"):
        return given.astype(np.float16)
