"""What records a file holds and where: from its index, or from one scan where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np

from moetui.trace.arrays import Array, unpack_array
from moetui.trace.frames import PREFIX, DamagedError, Frame, Source, read_body, read_frame, scan
from moetui.trace.layout import CHUNK_KINDS, CHUNK_TOKENS, MAX_ITEMS, MAX_META

META_KINDS = frozenset({"header", "model", "widths", "stacks", "vocabulary", "events"})
_MAX_GAP = 1 << 16  # tokens that damage may have cost at one place; more is a numbering that cannot be believed
_MAX_PARTS = 64  # chunks begun and not ended that are kept in mind; a writer begins one at a time
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens ``first .. first + count - 1``: where the records of each kind begin; a missing kind is damaged."""

    first: int
    count: int
    records: dict[str, int]

    @property
    def stop(self) -> int:
        """One past the last token."""
        return self.first + self.count


@dataclass(slots=True)
class Catalog:
    """The records found so far.

    Attributes:
        chunks: without gaps, in order; damaged places are chunks without records.
        metas: where the records that are no chunks begin, in order.
        sums: of the records of sums, in order, the first token, one past the last, and where they begin; those from
            before the model was last said to be another are not among them.
        position: where to look for more.
        ended: an end record was read; complete: it says that nothing is missing.
        lost: pieces of the file that could not be read as records.
        unknown: records of kinds not known (of a newer version).
        steps: the number of steps an end record gives; -1 without one.
        foreign: another trace's header follows in the same file.
    """

    chunks: list[Chunk] = field(default_factory=list)
    metas: list[int] = field(default_factory=list)
    sums: list[tuple[int, int, int]] = field(default_factory=list)
    position: int = 0
    ended: bool = False
    complete: bool = False
    lost: int = 0
    unknown: int = 0
    steps: int = -1
    foreign: bool = False
    _parts: dict[tuple[int, int], dict[str, int]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens in all chunks."""
        return self.chunks[-1].stop if self.chunks else 0

    def add(self, kind: str, first: int, count: int, start: int) -> None:
        """Take in a record."""
        if kind in CHUNK_KINDS:
            self._add_part(kind, first, count, start)
        elif kind in META_KINDS:
            self.metas.append(start)
            if kind == "model":  # by whose rules tokens are counted
                self.sums.clear()
        elif kind == "sums":
            if count and (not self.sums or first >= self.sums[-1][1]):
                self.sums.append((first, first + count, start))
        elif kind not in ("index", "end"):
            self.unknown += 1

    def reach(self, token: int) -> bool:
        """Make chunks of what is known of the tokens up to ``token``, which damage keeps from being whole."""
        if not 0 <= token - self.tokens <= _MAX_GAP:
            return False
        if token > self.tokens:
            self.lost += 1
        for first, count in sorted(self._parts):
            if self.tokens == first and first + count <= token:
                self.chunks.append(Chunk(first, count, self._parts[first, count]))
        while self.tokens < token:
            self.chunks.append(Chunk(self.tokens, min(CHUNK_TOKENS, token - self.tokens), {}))
        return True

    def _add_part(self, kind: str, first: int, count: int, start: int) -> None:
        if not (0 < count <= CHUNK_TOKENS and first < 1 << 31):
            self.lost += 1
            return
        if len(self._parts) >= _MAX_PARTS:
            self._parts.clear()
            self.lost += 1
        self._parts.setdefault((first, count), {})[kind] = start
        if kind != "tokens":
            return  # the tokens come last; a chunk without them is torn
        records = self._parts.pop((first, count))
        if self.reach(first):
            self.chunks.append(Chunk(first, count, records))
        else:
            self.lost += 1
        self._parts.clear()


def from_index(source: Source) -> Catalog | None:
    """The catalog that the file's own index gives; None where there is none to be trusted."""
    try:
        return _from_index(source)
    except DamagedError:
        return None


def extend(catalog: Catalog, source: Source) -> None:
    """Scan what stands behind ``catalog.position``; chunks that another program is about to complete stay out."""
    found = scan(source, catalog.position)
    for frame in found:
        if isinstance(frame, int):
            catalog.lost += 1
            catalog.position += frame
            continue
        catalog.position = frame.stop
        if frame.kind == "header" and catalog.metas:
            catalog.foreign = True
            return
        if frame.kind == "end":
            _take_end(catalog, source, frame)
            continue
        if frame.kind == "tokens" and not _intact(source, frame):
            continue  # which tokens these are is not certain now; the numbering shows later what is missing
        catalog.add(frame.kind, frame.first, frame.count, frame.start)


def read_map(source: Source, frame: Frame) -> dict[str, Any]:
    """A record's body as a map, with bounds on what a few bytes may claim to be.

    Raises:
        DamagedError: it is none.
    """
    if frame.kind in CHUNK_KINDS:
        return unpack_map(read_body(source, frame), items=256, length=256)
    return unpack_map(read_body(source, frame, MAX_META), items=MAX_ITEMS, length=MAX_ITEMS)


def unpack_map(body: bytes, *, items: int, length: int) -> dict[str, Any]:
    """MessagePack bytes as a map of at most ``items`` maps and lists, none longer than ``length``.

    Raises:
        DamagedError: it is none.
    """
    left = items

    def count(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise DamagedError("a record with too many parts")
        return value

    try:
        value = msgpack.unpackb(body, object_hook=count, list_hook=count, max_array_len=length, max_map_len=length)
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise DamagedError("a record that is no map") from error
    if not isinstance(value, dict):
        raise DamagedError("a record that is no map")
    return value


def _from_index(source: Source) -> Catalog:
    size = source.size
    tail = source.read(max(0, size - _TAIL), _TAIL)
    at = tail.rfind(PREFIX + b"\xa3end")
    if at < 0:
        raise DamagedError("no end record")
    end = read_frame(source, max(0, size - _TAIL) + at)
    if end.kind != "end" or end.stop != size:
        raise DamagedError("no end record")
    totals = read_map(source, end)
    start = totals.get("index")
    if type(start) is not int or not 0 <= start < end.start:
        raise DamagedError("no index")
    index = read_frame(source, start)
    if index.kind != "index" or index.stop != end.start:
        raise DamagedError("no index")
    packed = read_map(source, index)
    kinds = packed.get("kinds")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise DamagedError("no index")
    columns = [unpack_array(packed.get(name)) for name in ("kind", "first", "count", "start")]
    _check_index(columns, len(kinds), start)
    catalog = Catalog(position=size)
    for kind, first, count, where in _rows(columns):
        catalog.add(kinds[kind], first, count, where)
    if catalog.lost or not _end_fits(catalog, totals):
        raise DamagedError("an index that does not fit")
    return catalog


def _check_index(columns: list[Array], kinds: int, end: int) -> None:
    kind, first, count, start = columns
    if any(column.ndim != 1 or column.dtype.kind not in "iu" or len(column) != len(kind) for column in columns):
        raise DamagedError("an index of unknown form")
    fits = (
        len(kind) > 0
        and int(kind.max()) < kinds
        and int(start[0]) == 0
        and bool((np.diff(start) > len(PREFIX)).all())
        and int(start[-1]) < end
        and int(first.min()) >= 0
        and int(count.min()) >= 0
    )
    if not fits:
        raise DamagedError("an index that does not fit")


def _rows(columns: list[Array]) -> Iterable[tuple[int, int, int, int]]:
    return zip(*(column.tolist() for column in columns))


def _end_fits(catalog: Catalog, totals: dict[str, Any]) -> bool:
    steps = totals.get("steps")
    tokens = totals.get("tokens")
    if type(tokens) is not int or not catalog.reach(tokens) or type(steps) is not int or not 0 <= steps <= tokens:
        return False
    catalog.ended, catalog.complete, catalog.steps = True, totals.get("complete") is True, steps
    return True


def _take_end(catalog: Catalog, source: Source, frame: Frame) -> None:
    try:
        fits = _end_fits(catalog, read_map(source, frame))
    except DamagedError:
        fits = False
    if not fits:
        catalog.ended = True
        catalog.lost += 1


def _intact(source: Source, frame: Frame) -> bool:
    try:
        read_body(source, frame)
    except DamagedError:
        return False
    return True
