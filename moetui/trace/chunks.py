"""Steps become chunks: rows are gathered until a chunk is full or due, then packed column by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from moetui.routing.counts import Counts, count_tokens
from moetui.routing.model import Site
from moetui.routing.step import TokenScores
from moetui.routing.steps import Steps, token_ms
from moetui.trace.arrays import Array, pack_array, pack_table, widen
from moetui.trace.frames import Piece
from moetui.trace.layout import CHUNK_BYTES, CHUNK_KINDS, CHUNK_TOKENS, Column, Widths
from moetui.trace.layouts import Layout, against_logits, counted, differences, told_by_steps

Record: TypeAlias = tuple[str, list[Piece]]  # kind, body

_COLUMNS = {(kind, column.name): column for kind, columns in CHUNK_KINDS.items() for column in columns}
_SCORES = frozenset(field.name for field in fields(TokenScores))


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Tokens ``first .. first + count - 1`` as records, and sums over them; None where a reader may see other numbers.

    The ``tokens`` record comes last: a chunk torn before it does not count, whatever else of it was written.
    """

    first: int
    count: int
    records: list[Record]
    counts: Counts | None


class ChunkBuilder:
    """Gathers the rows of steps; holds one chunk at most.

    Args:
        widths: sizes of the model's axes; they grow when a step is wider.
        sites: by whose rules tokens are counted; they may be changed at any time.
        has_weights, has_logits: what is kept of the steps.
    """

    def __init__(self, widths: Widths, sites: tuple[Site, ...], *, has_weights: bool, has_logits: bool) -> None:
        self.widths = widths
        self.sites = sites
        self.tokens = 0
        self.steps = 0
        self._has_weights = has_weights
        self._has_logits = has_logits
        self._pieces: list[_Piece] = []
        self._held = 0
        self._fitting: tuple[object, ...] = ()

    @property
    def held(self) -> int:
        """Rows gathered and not yet packed."""
        return self._held

    def wide_enough(self, steps: Steps) -> Widths:
        """The widths, or wider ones where the steps have more slots, classes or candidates.

        Raises:
            ValueError: the steps' arrays do not fit each other or the number of sites.
        """
        shapes = _shapes(steps)
        if shapes == self._fitting:
            return self.widths
        widths = _fitting_widths(steps, self.widths)
        if widths == self.widths:
            self._fitting = shapes
        return widths

    def add(self, steps: Steps, stack: int, scores: TokenScores) -> Iterator[Packed]:
        """Add steps; yields the packed chunks that became full on the way."""
        done, count, first = 0, steps.num_tokens, self.tokens + self._held
        while True:
            take = min(count - done, self._capacity() - self._held)
            self._pieces.append(_Piece(steps, stack, scores, first, done, done + take))
            self._held += take
            done += take
            if done >= count:
                break
            yield self.pack()
        self.steps += len(steps)
        if self._held >= self._capacity():
            yield self.pack()

    def pack(self) -> Packed:
        """The rows gathered, one at least; none are left then."""
        pieces, first, count = self._pieces, self.tokens, self._held
        self._pieces, self._held = [], 0
        self.tokens += count
        records: list[Record] = []
        routing = self._routing(pieces)
        tables = {
            "logits": {"logits": self._logits(pieces)} if self._has_logits else {},
            "routing": routing,
            "steps": _steps(pieces),
            "tokens": _tokens(pieces, routing["flags"]),
        }
        logits = tables["logits"].get("logits")
        for kind, table in tables.items():
            if not table:
                continue
            if kind == "tokens":
                table = _untold(table, tables["steps"], first)
            stored = _stored(kind, table, logits)
            body = {name: pack_array(array, layout) for name, (array, layout) in stored.items()}
            records.append((kind, pack_table(body)))
        return Packed(first, count, records, self._counts(tables["tokens"], routing, logits))

    def _counts(self, tokens: Mapping[str, Array], routing: Mapping[str, Array], logits: Array | None) -> Counts | None:
        if logits is not None and logits.shape[-1] < max((site.num_classes for site in self.sites), default=0):
            return None  # a reader fills up what is missing
        indices, weights, flags = routing["indices"], routing.get("weights"), routing["flags"]
        keep = ~tokens["pad"]
        return count_tokens(tokens["phase"], tokens["stack"], keep, indices, weights, logits, flags, self.sites)

    def _capacity(self) -> int:
        row = 2 * max(1, self.widths.sites) * max(1, self.widths.classes if self._has_logits else self.widths.slots)
        return max(1, min(CHUNK_TOKENS, CHUNK_BYTES // row))

    def _routing(self, pieces: list[_Piece]) -> dict[str, Array]:
        parts = {"indices": [piece.cut(piece.steps.indices) for piece in pieces]}
        if self._has_weights:
            parts["weights"] = [_or_unknown(piece, piece.steps.weights, piece.steps.indices.shape) for piece in pieces]
        parts["flags"] = [piece.cut(piece.steps.flags) for piece in pieces]
        return {name: _joined("routing", name, arrays) for name, arrays in parts.items()}

    def _logits(self, pieces: list[_Piece]) -> Array:
        shape = self.widths.sites, self.widths.classes
        parts = [_or_unknown(piece, piece.steps.logits, (piece.steps.num_tokens, *shape)) for piece in pieces]
        return _joined("logits", "logits", parts)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens ``start .. stop - 1`` of some steps, whose own first is token ``first`` of the file."""

    steps: Steps
    stack: int
    scores: TokenScores
    first: int
    start: int
    stop: int

    def cut(self, array: Array) -> Array:
        """Those of its rows."""
        return array if self.stop - self.start == len(array) else array[self.start : self.stop]

    @property
    def each(self) -> int:
        """Tokens of a step."""
        return self.steps.num_tokens // len(self.steps)

    @property
    def touched(self) -> slice:
        """The steps that have tokens here."""
        return slice(self.start // self.each, -(-self.stop // self.each))

    @property
    def begun(self) -> slice:
        """The steps whose first token is here."""
        return slice(-(-self.start // self.each), -(-self.stop // self.each))

    @property
    def counts(self) -> Array:
        """How many tokens of each touched step are here."""
        at = self.touched
        counts = np.full(at.stop - at.start, self.each, np.int64)
        counts[0] -= self.start - at.start * self.each
        counts[-1] -= at.stop * self.each - self.stop
        return counts


def _tokens(pieces: list[_Piece], flags: Array) -> dict[str, Array]:
    """The light columns of tokens, from all pieces at once: piece by piece they would cost more than all else."""
    parts = [(piece.steps, piece.touched) for piece in pieces]
    counts = np.concatenate([piece.counts for piece in pieces])
    of_steps: dict[str, list[Array]] = {
        "step": [steps.index[at] for steps, at in parts],
        "branch": [steps.branch[at] for steps, at in parts],
        "started": [steps.started[at] for steps, at in parts],
        "ms": [_milliseconds(steps)[at] for steps, at in parts],
    }
    of_pieces = {
        "phase": [int(piece.steps.phase) for piece in pieces],
        "stack": [piece.stack for piece in pieces],
    }
    table: dict[str, Array] = {}
    for column in CHUNK_KINDS["tokens"]:
        name = column.name
        if name in of_steps:
            table[name] = np.repeat(np.concatenate(of_steps[name]).astype(column.dtype), counts)
        elif name in of_pieces:
            rows = [piece.stop - piece.start for piece in pieces]
            table[name] = np.repeat(np.array(of_pieces[name], column.dtype), rows)
        elif name == "flags":
            table[name] = np.bitwise_or.reduce(flags, axis=1, dtype=np.uint8)
        else:
            holders = [piece.scores if name in _SCORES else piece.steps for piece in pieces]
            table[name] = _joined("tokens", name, [piece.cut(getattr(h, name)) for piece, h in zip(pieces, holders)])
    return table


def _milliseconds(steps: Steps) -> Array:
    """``[N]`` milliseconds of each step's tokens."""
    return token_ms(steps.duration, np.count_nonzero(~steps.pad.reshape(len(steps), -1), axis=1))


def _untold(tokens: dict[str, Array], steps: Mapping[str, Array], first: int) -> dict[str, Array]:
    """The columns of tokens without those that say what the steps say."""
    told = told_by_steps(steps, first, tokens["pad"]) or {}
    same = {name for name, array in told.items() if array.tobytes() == tokens[name].tobytes()}
    return {name: array for name, array in tokens.items() if name not in same}


def _steps(pieces: list[_Piece]) -> dict[str, Array]:
    """A row for each step."""
    parts = [(piece, piece.begun) for piece in pieces]
    values: dict[str, list[Any]] = {
        "index": [piece.steps.index[at] for piece, at in parts],
        "branch": [piece.steps.branch[at] for piece, at in parts],
        "started": [piece.steps.started[at] for piece, at in parts],
        "duration": [piece.steps.duration[at] for piece, at in parts],
        "first_token": [piece.first + piece.each * np.arange(at.start, at.stop) for piece, at in parts],
        "site_ms": [piece.steps.site_ms[at] for piece, at in parts],
    }
    of_pieces: dict[str, list[Any]] = {
        "phase": [int(piece.steps.phase) for piece in pieces],
        "num_tokens": [piece.each for piece in pieces],
        "memory": [piece.steps.memory for piece in pieces],
    }
    counts = [at.stop - at.start for _, at in parts]
    return {
        column.name: np.concatenate(values[column.name]).astype(column.dtype)
        if column.name in values
        else np.repeat(np.array(of_pieces[column.name], column.dtype), counts)
        for column in CHUNK_KINDS["steps"]
    }


def _joined(kind: str, name: str, parts: list[Array]) -> Array:
    """Arrays one after the other, as wide as the widest, in the dtype of their column."""
    column = _COLUMNS[kind, name]
    if column.axis:
        width = max(part.shape[-1] for part in parts)
        parts = [widen(part, width, column.fill) for part in parts]
    with np.errstate(over="ignore", invalid="ignore"):  # wider floats may overflow half floats
        return np.concatenate(parts).astype(column.dtype, copy=False)


def _stored(kind: str, table: Mapping[str, Array], logits: Array | None) -> dict[str, tuple[Array, Layout]]:
    """The columns as they stand in the file; a light one of which nothing is known does not."""
    if kind == "logits":
        return {name: (array, "") for name, array in table.items()}
    if kind == "routing":
        return {name: (array, "") for name, array in table.items()} if logits is None else against_logits(table, logits)
    out: dict[str, tuple[Array, Layout]] = {}
    for column in CHUNK_KINDS[kind]:
        if column.name in table and not _unknown(column, table[column.name]):
            out[column.name] = _laid_out(table[column.name], column.layout)
    return out


def _laid_out(array: Array, layout: Layout) -> tuple[Array, Layout]:
    if layout == "differences":
        return differences(array), layout
    stored = counted(array, layout) if layout else None
    return (array, "") if stored is None else (stored, layout)


def _unknown(column: Column, array: Array) -> bool:
    if column.axis == "candidates" and not array.size:
        return True
    # Bit for bit, as what is left out is read as the column's own NaN.
    return column.fill != column.fill and array.tobytes() == np.full_like(array, column.fill).tobytes()


def _shapes(steps: Steps) -> tuple[object, ...]:
    return (
        steps.indices.shape,
        steps.weights is None or steps.weights.shape,
        steps.logits is None or steps.logits.shape,
        steps.flags.shape,
        steps.site_ms.shape,
        steps.candidate_ids.shape,
        steps.candidate_logprobs.shape,
        steps.sequence.shape,
        steps.position.shape,
        steps.pad.shape,
        steps.logprob.shape,
        len(steps),
    )


def _fitting_widths(steps: Steps, widths: Widths) -> Widths:
    """``widths``, or wider ones where the steps have more slots, classes or candidates.

    Raises:
        ValueError: the steps' arrays do not fit each other or the number of sites.
    """
    count, number = steps.num_tokens, len(steps)
    if count % number:
        raise ValueError(f"{count} tokens are not those of {number} steps alike")
    _check("indices", steps.indices, (count, widths.sites, None))
    _check("flags", steps.flags, (count, widths.sites))
    _check("site_ms", steps.site_ms, (number, widths.sites))
    _check("candidate_ids", steps.candidate_ids, (count, None))
    _check("candidate_logprobs", steps.candidate_logprobs, steps.candidate_ids.shape)
    for name in ("sequence", "position", "pad", "logprob"):
        _check(name, getattr(steps, name), (count,))
    classes = 0
    if steps.weights is not None:
        _check("weights", steps.weights, steps.indices.shape)
    if steps.logits is not None:
        _check("logits", steps.logits, (count, widths.sites, None))
        classes = steps.logits.shape[2]
    wider = Widths(
        widths.sites,
        max(widths.slots, steps.indices.shape[2]),
        max(widths.classes, classes),
        max(widths.candidates, steps.candidate_ids.shape[1]),
    )
    if not wider.plausible:
        raise ValueError(f"a step of {wider} is wider than the format allows")
    return wider


def _check(name: str, array: Array, shape: tuple[int | None, ...]) -> None:
    if array.ndim != len(shape) or any(want is not None and have != want for have, want in zip(array.shape, shape)):
        wanted = "×".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} is {'×'.join(map(str, array.shape))}, but {wanted} fits the others")


def _or_unknown(piece: _Piece, array: Array | None, shape: tuple[int, ...]) -> Array:
    return piece.cut(np.full(shape, np.nan, np.float16) if array is None else array)
