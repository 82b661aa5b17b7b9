"""A recording as a ``TimelineView``: slices of chunks, read when looked at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from moetui.routing.counts import Counts
from moetui.routing.model import Site
from moetui.routing.step import F16, U8, U16
from moetui.routing.timeline import RoutingBlock, StepColumns, TokenColumns, unknown_text, view_text
from moetui.trace.arrays import Array, unknown, widen
from moetui.trace.layout import CHUNK_KINDS, Column, Widths
from moetui.trace.store import Store


class LazyBlock(RoutingBlock):
    """A ``RoutingBlock`` that reads an array when it is first asked for: who wants no logits pays for none."""

    __slots__ = ("_load", "_loaded")
    _load: Callable[[str], Array | None]
    _loaded: dict[str, Array | None]

    def __init__(self, load: Callable[[str], Array | None]) -> None:
        object.__setattr__(self, "_load", load)
        object.__setattr__(self, "_loaded", {})

    def _get(self, name: str) -> Array | None:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    @property
    def indices(self) -> U16:
        """``[n, S, K]``."""
        array = self._get("indices")
        assert array is not None
        return array

    @property
    def weights(self) -> F16 | None:
        """``[n, S, K]``, or None where the trace has no weights."""
        return self._get("weights")

    @property
    def logits(self) -> F16 | None:
        """``[n, S, E]``, or None where the trace has no logits."""
        return self._get("logits")

    @property
    def flags(self) -> U8:
        """``[n, S]``."""
        array = self._get("flags")
        assert array is not None
        return array


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TraceView:
    """The first ``end`` tokens of a recording."""

    _store: Store
    sites: tuple[Site, ...]
    stacks: tuple[str, ...]
    end: int
    _vocabulary: Mapping[int, str]
    _steps: StepTable
    _present: frozenset[str]

    def __repr__(self) -> str:
        return f"<{view_text(self)}>"

    @property
    def first(self) -> int:
        """A recording holds all its tokens."""
        return 0

    def clip(self, end: int) -> TraceView:
        """The same with only the first ``end`` tokens."""
        end = min(max(end, 0), self.end)
        parts = (self._store, self.sites, self.stacks, end, self._vocabulary, self._steps, self._present)
        return TraceView(*parts)

    def tokens(self, start: int, stop: int) -> TokenColumns:
        """Light columns of tokens ``start .. stop - 1``, clipped to what there is."""
        start, stop = self._clipped(start, stop)
        widths = self._store.widths  # another thread may find wider ones meanwhile
        columns = {column.name: self._slice("tokens", column, start, stop, widths) for column in CHUNK_KINDS["tokens"]}
        if int(columns["stack"].max(initial=0)) >= len(self.stacks):  # damage took the names, not the numbers
            columns["stack"] = np.minimum(columns["stack"], len(self.stacks) - 1)
        return TokenColumns(**columns)

    def routing(self, start: int, stop: int) -> RoutingBlock:
        """Routing of tokens ``start .. stop - 1``, clipped to what there is."""
        start, stop = self._clipped(start, stop)
        widths = self._store.widths

        def load(name: str) -> Array | None:
            if name in ("weights", "logits") and name not in self._present:
                return None
            kind = "logits" if name == "logits" else "routing"
            column = next(column for column in CHUNK_KINDS[kind] if column.name == name)
            return self._slice(kind, column, start, stop, widths)

        return LazyBlock(load)

    def summed(self, start: int, stop: int) -> tuple[int, int]:
        """See ``moetui.routing.counts.Summed``."""
        return self._store.summed(start, min(stop, self.end))

    def counts(self, start: int, stop: int) -> Counts | None:
        """See ``moetui.routing.counts.Summed``."""
        return self._store.counts(start, stop, self.sites)

    def steps(self) -> StepColumns:
        """The steps whose tokens are there; the last one's tokens are counted as far as they are."""
        return self._steps.until(self.end)

    def text(self, token_id: int) -> str:
        """Text of a token id (not yet made drawable); ``‹id›`` where unknown, ``‹?›`` where the id is, too."""
        return self._vocabulary.get(token_id, unknown_text(token_id))

    def _clipped(self, start: int, stop: int) -> tuple[int, int]:
        start = min(max(start, 0), self.end)
        return start, max(min(stop, self.end), start)

    def _slice(self, kind: str, column: Column, start: int, stop: int, widths: Widths) -> Array:
        store, shape = self._store, widths.shape(column, 0)
        parts = []
        for number in store.chunk_range(start, stop):
            first = store.chunks[number].first
            part = store.table(number, kind)[column.name][max(0, start - first) : stop - first]
            parts.append(widen(part, shape[-1], column.fill) if column.axis else part)
        if not parts:
            return unknown(shape, column.dtype, column.fill)
        out: Array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        out.flags.writeable = False
        return out


class StepTable:
    """All steps of a recording, read once and extended when it grows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._read = 0
        self._columns: dict[str, Array] = {}

    def until(self, end: int) -> StepColumns:
        """The steps that begin before token ``end``, with ``num_tokens`` clipped to it."""
        with self._lock:
            self._extend()
            held = dict(self._columns)
        rows = int(np.searchsorted(held["first_token"], end, "left"))
        columns = {field.name: held[field.name][:rows] for field in fields(StepColumns)}
        columns["num_tokens"] = np.minimum(columns["num_tokens"], end - columns["first_token"])
        for array in columns.values():
            array.flags.writeable = False
        return StepColumns(**columns)

    def _extend(self) -> None:
        store, count = self._store, len(self._store.chunks)
        if self._columns and self._read == count:
            return
        columns = CHUNK_KINDS["steps"]
        parts = {c.name: [np.empty(store.widths.shape(c, 0), c.dtype)] for c in columns}
        for name, array in self._columns.items():
            parts[name].append(array)
        last = max((int(array[-1]) for array in parts["first_token"] if len(array)), default=-1)
        for number in range(self._read, count):
            table, chunk = store.table(number, "steps"), store.chunks[number]
            first = table["first_token"].tolist()
            # Steps whose tokens are not where they say are no steps of this file.
            if any(low >= high for low, high in pairwise([max(last, chunk.first - 1), *first, chunk.stop])):
                continue
            last = first[-1] if first else last
            for name, array in table.items():
                parts[name].append(array)
        self._columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        self._read = count
