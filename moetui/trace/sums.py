"""Sums over the tokens of some chunks in a record of their own: statistics then need not unpack them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from moetui.routing.counts import ARRAYS, Counts, added
from moetui.routing.model import Site
from moetui.trace.arrays import Array, pack_array, unpack_array
from moetui.trace.catalog import Chunk, unpack_map
from moetui.trace.frames import DamagedError, Piece, Source, read_body, read_frame
from moetui.trace.layout import SUMS_TOKENS

_DTYPES: Mapping[str, str] = {name: "<f8" if name in ("mass", "entropy") else "<i4" for name in ARRAYS}
_MAX_STACKS = 256


class SumsBuilder:
    """Adds up the counts of chunks until they are of ``SUMS_TOKENS`` tokens or more."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next chunk is counted by another rule."""
        self._parts: list[Counts] = []
        self._tokens = self._crc = 0

    def add(self, counts: Counts | None, tokens: int, records: Sequence[bytes]) -> tuple[int, list[Piece]] | None:
        """Add a chunk.

        Args:
            counts: its sums; None where a reader may count them otherwise.
            tokens: how many it has.
            records: its records as they stand in the file.

        Returns:
            When there are enough: how many tokens they are, and the body of the record of their sums.
        """
        if counts is None:
            self.forget()
            return None
        self._parts.append(counts)
        self._tokens += tokens
        for record in records:
            self._crc = zlib.crc32(record, self._crc)
        if self._tokens < SUMS_TOKENS:
            return None
        total, tokens = added(self._parts), self._tokens
        body: dict[str, Any] = {"of": self._crc}
        for name, dtype in _DTYPES.items():
            array = getattr(total, name)
            if name != "mass_known" or not np.array_equal(array, total.loads):
                body[name] = pack_array(array.astype(dtype))
        self.forget()
        return tokens, [msgpack.packb(body)]


def read_sums(
    source: Source, start: int, chunks: Sequence[Chunk], sites: Sequence[Site], *, has_logits: bool
) -> Counts | None:
    """The sums over some chunks, from the record at ``start``; None where the chunks are not what was summed up.

    Reads all of the chunks, whose checksum it takes, and unpacks nothing.

    Raises:
        DamagedError: the record cannot be used.
    """
    frame = read_frame(source, start)
    tokens = sum(chunk.count for chunk in chunks)
    if (frame.kind, frame.first, frame.count) != ("sums", chunks[0].first, tokens):
        raise DamagedError("another record stands in its place")
    packed = unpack_map(read_body(source, frame), items=256, length=256)
    columns = {"mass_known": packed.get("loads"), **packed}
    width = max((site.num_experts for site in sites), default=0)
    arrays = {name: _array(name, columns.get(name), len(sites), width) for name in ARRAYS}
    return Counts(**arrays, has_logits=has_logits) if _checksum(source, chunks) == packed.get("of") else None


def _array(name: str, packed: object, sites: int, width: int) -> Array:
    array = unpack_array(packed)
    shape: tuple[int, ...] = (sites, width) if name in ("loads", "mass", "mass_known") else (sites,)
    if name == "phases":
        shape = (2,)
    if name == "stacks" and array.ndim == 1 and len(array) <= _MAX_STACKS:
        shape = array.shape
    if array.shape != shape or array.dtype != np.dtype(_DTYPES[name]):
        raise DamagedError("sums of another shape")
    if not np.isfinite(array).all() or (array.dtype.kind == "i" and (array < 0).any()):
        raise DamagedError("sums that cannot be")
    return array.astype(np.int64) if array.dtype.kind == "i" else array


def _checksum(source: Source, chunks: Sequence[Chunk]) -> int:
    crc = 0
    for chunk in chunks:
        for start in sorted(chunk.records.values()):
            crc = zlib.crc32(source.read(start, read_frame(source, start).stop - start), crc)
    return crc
