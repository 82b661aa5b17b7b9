"""Columns that are stored as what differs from what one expects, because that is nearly nothing.

``differences``: from one row to the next. ``thousandths`` and ``millionths``: times that are whole microseconds, as
numbers of these from one time to the next. ``top_k`` and ``softmax``: a router with a plain rule sends a token to its
``K`` largest logits, with the softmax over those as weights; where that holds for most of a chunk, ``indices`` and
``weights`` are stored as differences from it. Differences are modulo 2^16 or 2^32, so that they are as exact as the
numbers themselves, whatever chose the experts; times of which one would not come back bit for bit are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from moetui.routing.steps import token_ms
from moetui.trace.arrays import Array
from moetui.trace.frames import DamagedError

Layout: TypeAlias = Literal["", "differences", "thousandths", "millionths", "top_k", "softmax"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_PARTS: Mapping[str, tuple[int, type[np.signedinteger[Any]], type[np.floating[Any]]]] = {
    "thousandths": (10**3, np.int32, np.float32),
    "millionths": (10**6, np.int64, np.float64),
}
_WHOLE = 2.0**53  # beyond it, not every whole number is a double
_MAX_CLASSES = (1 << 16) - 1  # ids of experts are 16-bit numbers
_BLOCK = 1 << 18  # numbers worked on at once: they stay in the processor's cache
_ONE, _INFINITY = 0x3C00, 0x7C00  # the bits of half floats; above the latter's are those of NaN
_DOUBT = 2.0**-40  # by much less do exponentials and sums of doubles differ from one machine to another


def differences(array: Array) -> Array:
    """Each row of whole numbers less the one before it; the first as it is."""
    return np.diff(array, axis=0, prepend=np.zeros_like(array[:1]))


def counted(array: Array, layout: Layout) -> Array | None:
    """Times as whole parts of their unit, each less the one before it along the last axis; None where they are not.

    Args:
        array: 32-bit floats for ``thousandths``, 64-bit ones for ``millionths``.
    """
    parts, whole, _ = _PARTS[layout]
    with np.errstate(all="ignore"):
        counts = np.rint(array.astype(np.float64) * parts)
    if not (np.abs(counts) < _WHOLE).all():  # not with NaN
        return None
    steps = np.diff(counts.astype(np.int64), axis=-1, prepend=0)
    if not (np.abs(steps) <= np.iinfo(whole).max).all():
        return None
    stored = steps.astype(whole)
    return stored if restored(stored, layout).tobytes() == array.tobytes() else None


def told_by_steps(steps: Mapping[str, Array], first: int, pad: Array) -> dict[str, Array] | None:
    """``started`` and ``ms`` of a chunk's tokens as its steps tell them; None where they do not tell those of all.

    Args:
        steps: columns of the steps that begin in the chunk.
        first: number of the chunk's first token.
        pad: ``[n]`` which of its tokens are padding.
    """
    begins = steps["first_token"].astype(np.int64) - first
    if not len(begins) or begins[0] != 0 or begins[-1] >= len(pad) or not (np.diff(begins) > 0).all():
        return None
    counts = np.diff(begins, append=len(pad))
    if counts[-1] != steps["num_tokens"][-1]:  # it goes on in the next chunk, with tokens of which this one cannot know
        return None
    real = np.add.reduceat(~pad, begins, dtype=np.int64)
    return {"started": steps["started"].repeat(counts), "ms": token_ms(steps["duration"], real).repeat(counts)}


def against_logits(routing: Mapping[str, Array], logits: Array) -> dict[str, tuple[Array, Layout]]:
    """The columns of a chunk's routing as they are stored beside its logits.

    Args:
        routing: columns in the dtypes of the format.
        logits: ``[n, S, E]`` half floats.
    """
    out: dict[str, tuple[Array, Layout]] = {name: (array, "") for name, array in routing.items()}
    indices, weights = routing["indices"], routing.get("weights")
    if not 0 < indices.shape[-1] <= logits.shape[-1] <= _MAX_CLASSES:
        return out
    rest = indices - top_k(logits, indices.shape[-1])
    if _mostly_zero(rest):
        out["indices"] = rest, "top_k"
    if weights is not None and int(indices.max(initial=0)) < logits.shape[-1]:
        rest = weights.reshape(-1, weights.shape[-1]).view(np.uint16).copy()
        sure = True
        for rows, shares in _shares(logits, indices):
            sure = sure and _certain(shares)
            rest[rows] -= _rounded(shares)
        if sure and _mostly_zero(rest):
            out["weights"] = rest.view(np.float16).reshape(weights.shape), "softmax"
    return out


def restored(stored: Array, layout: Layout, logits: Array | None = None, indices: Array | None = None) -> Array:
    """A column as it was.

    Args:
        stored: what stands in the file.
        layout: how.
        logits: for ``top_k`` and ``softmax``, of the same chunk, as wide as they were when it was written.
        indices: for ``softmax``.

    Raises:
        DamagedError: the arrays do not fit each other.
    """
    if layout == "":
        return stored
    if layout == "differences" and stored.ndim and stored.dtype.kind in "iu":
        return np.cumsum(stored, axis=0, dtype=stored.dtype)
    if layout in _PARTS and stored.ndim:
        parts, whole, kind = _PARTS[layout]
        if stored.dtype == whole:
            return np.asarray((np.cumsum(stored, axis=-1, dtype=np.int64) / parts).astype(kind))
    if logits is None or logits.dtype != np.float16 or stored.ndim != 3 or stored.shape[:2] != logits.shape[:2]:
        raise DamagedError("a column that does not fit the logits")
    if not 0 < stored.shape[2] <= logits.shape[2] <= _MAX_CLASSES:
        raise DamagedError("a column that does not fit the logits")
    if layout == "top_k" and stored.dtype == np.uint16:
        return np.asarray(stored + top_k(logits, stored.shape[2]))
    fits = indices is not None and indices.shape == stored.shape and int(indices.max(initial=0)) < logits.shape[2]
    if layout == "softmax" and stored.dtype == np.float16 and indices is not None and fits:
        bits = stored.reshape(-1, stored.shape[2]).view(np.uint16).copy()
        for rows, shares in _shares(logits, indices):
            bits[rows] += _rounded(shares)
        halves: Array = bits.view(np.float16).reshape(stored.shape)
        return halves
    raise DamagedError("a column that does not fit its layout")


def top_k(logits: Array, k: int) -> Array:
    """The ids of the ``k`` largest of the last axis, ``[..., E]`` to ``[..., k]`` uint16, largest first.

    Of equal ones (−0 equals 0) the lower id comes first; NaN is less than everything and equal to itself.
    """
    classes = logits.shape[-1]
    halves = np.ascontiguousarray(logits).reshape(-1, classes)
    out = np.empty((len(halves), k), np.uint16)
    rows = max(1, _BLOCK // classes)
    last = classes - 1
    places = np.arange(last, -1, -1, dtype=np.int32)
    for start in range(0, len(halves), rows):
        # One number a class, the order of its logit above its place: whole numbers sort several times faster than
        # anything that sorts places by logits.
        ranked = _ordered(halves[start : start + rows]).astype(np.int32)
        ranked <<= 16
        ranked |= places
        ranked.sort(axis=-1)
        out[start : start + rows] = last - (ranked[:, : -k - 1 : -1] & 0xFFFF)
    return out.reshape(*logits.shape[:-1], k)


def _ordered(halves: Array) -> Array:
    """Half floats as 16-bit whole numbers in the same order."""
    bits = halves.view(np.int16)
    order = bits >> 15
    order &= 0x7FFF
    order ^= bits
    if (order == -1).any():  # −0
        order[order == -1] = 0
    if int(order.max()) > _INFINITY or int(order.min()) < -1 - _INFINITY:
        order[np.isnan(halves)] = -(1 << 15)
    return order


def _shares(logits: Array, indices: Array) -> Iterator[tuple[slice, Array]]:
    """Softmax over the logits of ``indices`` in double precision, some rows ``[rows, K]`` at a time."""
    classes, k = logits.shape[-1], indices.shape[-1]
    bits = np.ascontiguousarray(logits).view(np.uint16).reshape(-1)
    chosen = indices.reshape(-1, k)
    step = max(1, _BLOCK // k)
    for start in range(0, len(chosen), step):
        rows = slice(start, start + step)
        first = np.arange(start, start + len(chosen[rows]), dtype=np.int64)[:, None] * classes
        exponentials = _half_exponentials().take(bits.take(first + chosen[rows]))
        with np.errstate(all="ignore"):
            exponentials /= np.einsum("rk->r", exponentials)[:, None]
        yield rows, exponentials


def _rounded(shares: Array, factor: float = 1.0) -> Array:
    """The bits of half floats."""
    with np.errstate(all="ignore"):
        return (shares * factor if factor != 1 else shares).astype(np.float16).view(np.uint16)


def _certain(shares: Array) -> bool:
    """Whether every machine rounds to the same half floats, however it works out the softmax."""
    low, high = _rounded(shares, 1 - _DOUBT), _rounded(shares, 1 + _DOUBT)
    return bool((low == high).all()) and int(high.max(initial=0)) <= _ONE


def _mostly_zero(rest: Array) -> bool:
    return 2 * int(np.count_nonzero(rest)) <= rest.size


@lru_cache(maxsize=1)
def _half_exponentials() -> Array:
    with np.errstate(all="ignore"):
        return np.exp(np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64))
