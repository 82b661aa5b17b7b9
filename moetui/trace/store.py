"""Chunks by number, unpacked when asked for; the last ones are kept, up to a number of bytes."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from moetui.routing.counts import Counts
from moetui.routing.model import Site
from moetui.trace.arrays import Array, unknown, unpack_array
from moetui.trace.catalog import Catalog, Chunk, read_map
from moetui.trace.frames import DamagedError, read_frame
from moetui.trace.layout import CHUNK_KINDS, Column, Widths
from moetui.trace.layouts import LAYOUTS, restored, told_by_steps
from moetui.trace.source import FileSource
from moetui.trace.sums import read_sums

Table: TypeAlias = dict[str, Array]

_LIGHT_BYTES = 48 << 20
_HEAVY_BYTES = 48 << 20
_STRIPES = 64


class Store:
    """The tables of a file's chunks.

    What damage took stands as unknown; ``damage`` counts the records that it took. Several threads may ask at once:
    chunks are unpacked side by side, each by one thread.

    Args:
        source: the file.
        catalog: where its chunks are; may grow.
    """

    def __init__(self, source: FileSource, catalog: Catalog) -> None:
        self._source = source
        self._catalog = catalog
        # Tables of a chunk ask for others of the same chunk only, so that nobody waits in a circle.
        self._unpacking = tuple(threading.RLock() for _ in range(_STRIPES))
        self._light = _Cache(_LIGHT_BYTES)
        self._heavy = _Cache(_HEAVY_BYTES)
        self._broken: set[tuple[int, str]] = set()
        self._newer: set[tuple[int, str, str]] = set()
        self.widths = Widths(0, 0, 0, 0)
        self.optional: frozenset[str] = frozenset()

    @property
    def damage(self) -> int:
        """Records that turned out to be unreadable when they were looked at."""
        return len(self._broken)

    @property
    def newer(self) -> int:
        """Columns met so far whose layout is not known."""
        return len(self._newer)

    @property
    def chunks(self) -> list[Chunk]:
        """The chunks, in order."""
        return self._catalog.chunks

    def chunk_range(self, start: int, stop: int) -> range:
        """Numbers of the chunks that hold tokens ``start .. stop - 1``."""
        if start >= stop:
            return range(0)
        chunks = self._catalog.chunks
        low = bisect_right(chunks, start, key=lambda chunk: chunk.first) - 1
        high = bisect_right(chunks, stop - 1, key=lambda chunk: chunk.first)
        return range(max(low, 0), high)

    def summed(self, start: int, stop: int) -> tuple[int, int]:
        """See ``moetui.routing.counts.Summed``."""
        sums = self._catalog.sums
        at = bisect_left(sums, start, key=lambda each: each[0])
        return sums[at][:2] if at < len(sums) and sums[at][1] <= stop else (stop, stop)

    def counts(self, start: int, stop: int, sites: Sequence[Site]) -> Counts | None:
        """See ``moetui.routing.counts.Summed``."""
        sums = self._catalog.sums
        at = bisect_left(sums, start, key=lambda each: each[0])
        chunks = [self.chunks[number] for number in self.chunk_range(start, stop)]
        covered = (chunks[0].first, chunks[-1].stop) if chunks else (0, 0)
        if at == len(sums) or sums[at][:2] != (start, stop) or covered != (start, stop):
            return None
        try:
            return read_sums(self._source, sums[at][2], chunks, sites, has_logits="logits" not in self.optional)
        except DamagedError:
            self._broken.add((at, "sums"))
            return None

    def table(self, number: int, kind: str) -> Table:
        """One kind of columns of chunk ``number``, with as many slots, classes and candidates as stand in the file.

        Where damage took a column it has as many as ``widths`` said when it was read; who puts tables together
        brings them to one width.
        """
        cache = self._heavy if kind in ("routing", "logits") else self._light
        with self._unpacking[number % _STRIPES]:
            found = cache.get((number, kind))
            if found is None:
                found = self._load(self._catalog.chunks[number], kind, number)
                cache.put((number, kind), found)
            return found

    def _load(self, chunk: Chunk, kind: str, number: int) -> Table:
        columns = CHUNK_KINDS[kind]
        start = chunk.records.get(kind)
        if start is not None:
            try:
                return self._unpack(chunk, kind, start, number)
            except DamagedError:
                self._broken.add((number, kind))
        elif kind not in self.optional:
            self._broken.add((number, kind))
        rows = 0 if kind == "steps" else chunk.count
        return {c.name: unknown(self.widths.shape(c, rows), c.dtype, c.fill) for c in columns}

    def _unpack(self, chunk: Chunk, kind: str, start: int, number: int) -> Table:
        frame = read_frame(self._source, start)
        if (frame.kind, frame.first, frame.count) != (kind, chunk.first, chunk.count):
            raise DamagedError("another record stands in its place")
        packed = read_map(self._source, frame)
        table: Table = {}
        rows: int | None = None if kind == "steps" else chunk.count
        for column in CHUNK_KINDS[kind]:
            if column.name not in packed:
                continue
            array = self._column(packed[column.name], table, number)
            if array is None:
                self._newer.add((number, kind, column.name))
                continue
            rows = len(array) if rows is None and array.ndim else rows
            self._check(column, array, rows or 0)
            array.flags.writeable = False
            table[column.name] = array
        rows = rows or 0
        if rows > chunk.count:
            raise DamagedError("more steps than tokens")
        if kind == "tokens" and not {"started", "ms"} <= table.keys() and "pad" in table:
            told = told_by_steps(self.table(number, "steps"), chunk.first, table["pad"]) or {}
            table = told | table
        for column in CHUNK_KINDS[kind]:
            if column.name not in table:
                table[column.name] = unknown(self.widths.shape(column, rows), column.dtype, column.fill)
        return table

    def _column(self, packed: Any, table: Table, number: int) -> Array | None:
        """A column, with those of its record before it; None where its layout is not known."""
        layout = packed.get("layout", "") if isinstance(packed, Mapping) else ""
        if layout not in LAYOUTS or (layout == "softmax" and "indices" not in table):
            return None
        array = unpack_array(packed)
        if layout not in ("top_k", "softmax"):
            return restored(array, layout)
        logits = self.table(number, "logits")["logits"]
        if (number, "logits", "logits") in self._newer:
            return None
        if (number, "logits") in self._broken or "logits" not in self._catalog.chunks[number].records:
            raise DamagedError("the logits that it is stored against are missing")
        return restored(array, layout, logits, table.get("indices"))

    def _check(self, column: Column, array: Array, rows: int) -> None:
        shape = self.widths.shape(column, rows)
        if array.dtype.str.lstrip("<|=") != column.dtype.lstrip("<|="):
            raise DamagedError("a column of another type")
        if array.ndim != len(shape) or array.shape[0] != rows:
            raise DamagedError("a column of another shape")
        exact = len(shape) if column.axis in ("", "sites") else -1
        if array.shape[1:exact] != shape[1:exact]:
            raise DamagedError("a column of another shape")


class _Cache:
    """The tables last used, as many as fit into ``limit`` bytes; the newest always."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[int, str], Table] = OrderedDict()

    def get(self, key: tuple[int, str]) -> Table | None:
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
            return table

    def put(self, key: tuple[int, str], table: Table) -> None:
        with self._lock:
            self._tables[key] = table
            self._held += _size(table)
            while self._held > self._limit and len(self._tables) > 1:
                _, old = self._tables.popitem(last=False)
                self._held -= _size(old)


def _size(table: Table) -> int:
    # Arrays that repeat one number (stride 0) take no memory.
    return 1024 + sum(array.nbytes for array in table.values() if any(array.strides))
