"""Steps become chunks: rows are gathered until a chunk is full or due, then packed column by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

from moetui.routing.step import Step, TokenScores
from moetui.trace.arrays import Array, pack_array, pack_table, widen
from moetui.trace.frames import Piece
from moetui.trace.layout import CHUNK_BYTES, CHUNK_KINDS, CHUNK_TOKENS, Column, Widths
from moetui.trace.layouts import Layout, against_logits, differences

_Rows = dict[str, dict[str, Array]]
Record: TypeAlias = tuple[str, int, int, list[Piece]]  # kind, first token, number of tokens, body


class ChunkBuilder:
    """Gathers the rows of steps; holds one chunk at most.

    Args:
        widths: sizes of the model's axes; they grow when a step is wider.
        has_weights, has_logits: what is kept of the steps.
    """

    def __init__(self, widths: Widths, *, has_weights: bool, has_logits: bool) -> None:
        self.widths = widths
        self.tokens = 0
        self.steps = 0
        self._has_weights = has_weights
        self._has_logits = has_logits
        self._pieces: list[_Rows] = []
        self._held = 0

    @property
    def held(self) -> int:
        """Rows gathered and not yet packed."""
        return self._held

    def add(self, step: Step, stack: int, scores: TokenScores) -> Iterator[list[Record]]:
        """Add a step; yields the packed chunks that became full on the way."""
        rows = self._rows(step, stack, scores)
        done, count = 0, step.num_tokens
        while True:
            take = min(count - done, self._capacity() - self._held)
            piece = {kind: {name: a[done : done + take] for name, a in table.items()} for kind, table in rows.items()}
            piece["steps"] = rows["steps"] if done == 0 else {name: a[:0] for name, a in rows["steps"].items()}
            self._pieces.append(piece)
            self._held += take
            done += take
            if done >= count:
                break
            yield self.pack()
        self.steps += 1
        if self._held >= self._capacity():
            yield self.pack()

    def pack(self) -> list[Record]:
        """The rows gathered as records; none are left then.

        The tokens come last: a chunk torn before them does not count, whatever else of it was written.
        """
        pieces, first, count = self._pieces, self.tokens, self._held
        self._pieces, self._held = [], 0
        self.tokens += count
        records: list[Record] = []
        logits: Array | None = None
        for kind in ("logits", "routing", "steps", "tokens"):
            if kind not in pieces[0]:
                continue
            table = _joined(kind, pieces)
            logits = table["logits"] if kind == "logits" else logits
            stored = _stored(kind, table, logits)
            body = {name: pack_array(array, layout) for name, (array, layout) in stored.items()}
            records.append((kind, first, count, pack_table(body)))
        return records

    def _capacity(self) -> int:
        row = 2 * max(1, self.widths.sites) * max(1, self.widths.classes if self._has_logits else self.widths.slots)
        return max(1, min(CHUNK_TOKENS, CHUNK_BYTES // row))

    def _rows(self, step: Step, stack: int, scores: TokenScores) -> _Rows:
        count, widths = step.num_tokens, self.widths
        real = max(1, count - int(step.pad.sum()))
        tokens: dict[str, Array] = {
            "step": np.full(count, step.index, np.int32),
            "branch": np.full(count, step.branch, np.int16),
            "phase": np.full(count, int(step.phase), np.uint8),
            "stack": np.full(count, stack, np.uint8),
            "sequence": step.sequence,
            "position": step.position,
            "token_id": step.token_id,
            "pad": step.pad,
            "started": np.full(count, step.started, np.float64),
            "ms": np.full(count, step.duration / real, np.float32),
            "logprob": step.logprob,
            "flags": np.bitwise_or.reduce(step.flags, axis=1) if widths.sites else np.zeros(count, np.uint8),
            "candidate_ids": step.candidate_ids,
            "candidate_logprobs": step.candidate_logprobs,
            **{field.name: getattr(scores, field.name) for field in fields(TokenScores)},
        }
        routing: dict[str, Array] = {"indices": step.indices, "flags": step.flags}
        if self._has_weights:
            routing["weights"] = _or_unknown(step.weights, step.indices.shape)
        out: _Rows = {"tokens": tokens, "routing": routing, "steps": self._step_row(step)}
        if self._has_logits:
            out["logits"] = {"logits": _or_unknown(step.logits, (count, widths.sites, widths.classes))}
        return out

    def _step_row(self, step: Step) -> dict[str, Array]:
        values: dict[str, Any] = {
            "index": step.index,
            "branch": step.branch,
            "phase": int(step.phase),
            "started": step.started,
            "duration": step.duration,
            "first_token": self.tokens + self._held,
            "num_tokens": step.num_tokens,
        }
        row = {c.name: np.array([values[c.name]], c.dtype) for c in CHUNK_KINDS["steps"] if c.name in values}
        return {**row, "site_ms": step.site_ms[None, :]}


def _joined(kind: str, pieces: list[_Rows]) -> dict[str, Array]:
    """The columns of some pieces one after the other, as wide as the widest, in the dtypes of the file."""
    table: dict[str, Array] = {}
    for column in CHUNK_KINDS[kind]:
        parts = [piece[kind][column.name] for piece in pieces if column.name in piece[kind]]
        if not parts:
            continue
        width = max(part.shape[-1] for part in parts)
        if column.axis:
            parts = [widen(part, width, column.fill) for part in parts]
        with np.errstate(over="ignore", invalid="ignore"):  # wider floats may overflow half floats
            table[column.name] = np.concatenate(parts).astype(column.dtype, copy=False)
    return table


def _stored(kind: str, table: Mapping[str, Array], logits: Array | None) -> dict[str, tuple[Array, Layout]]:
    """The columns as they stand in the file; a light one of which nothing is known does not."""
    if kind == "logits":
        return {name: (array, "") for name, array in table.items()}
    if kind == "routing":
        return {name: (array, "") for name, array in table.items()} if logits is None else against_logits(table, logits)
    out: dict[str, tuple[Array, Layout]] = {}
    for column in CHUNK_KINDS[kind]:
        if column.name in table and not _unknown(column, table[column.name]):
            array = table[column.name]
            out[column.name] = (differences(array) if column.layout else array), column.layout
    return out


def _unknown(column: Column, array: Array) -> bool:
    if column.axis == "candidates" and not array.size:
        return True
    # Bit for bit, as what is left out is read as the column's own NaN.
    return column.fill != column.fill and array.tobytes() == np.full_like(array, column.fill).tobytes()


def fitting_widths(step: Step, widths: Widths) -> Widths:
    """``widths``, or wider ones where the step has more slots, classes or candidates.

    Raises:
        ValueError: the step's arrays do not fit each other or the number of sites.
    """
    count = step.num_tokens
    _check("indices", step.indices, (count, widths.sites, None))
    _check("flags", step.flags, (count, widths.sites))
    _check("site_ms", step.site_ms, (widths.sites,))
    _check("candidate_ids", step.candidate_ids, (count, None))
    _check("candidate_logprobs", step.candidate_logprobs, step.candidate_ids.shape)
    for name in ("sequence", "position", "pad", "logprob"):
        _check(name, getattr(step, name), (count,))
    classes = 0
    if step.weights is not None:
        _check("weights", step.weights, step.indices.shape)
    if step.logits is not None:
        _check("logits", step.logits, (count, widths.sites, None))
        classes = step.logits.shape[2]
    wider = Widths(
        widths.sites,
        max(widths.slots, step.indices.shape[2]),
        max(widths.classes, classes),
        max(widths.candidates, step.candidate_ids.shape[1]),
    )
    if not wider.plausible:
        raise ValueError(f"a step of {wider} is wider than the format allows")
    return wider


def _check(name: str, array: Array, shape: tuple[int | None, ...]) -> None:
    if array.ndim != len(shape) or any(want is not None and have != want for have, want in zip(array.shape, shape)):
        wanted = "×".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} is {'×'.join(map(str, array.shape))}, but {wanted} fits the others")


def _or_unknown(array: Array | None, shape: tuple[int, ...]) -> Array:
    return np.full(shape, np.nan, np.float16) if array is None else array
