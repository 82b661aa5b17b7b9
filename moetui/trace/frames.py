"""Records in the file: framing, checksums, and finding the next sound record after damage.

A file is a row of MessagePack arrays ``[magic, kind, codec, first, count, crc, body]`` (see docs/trace-format.md).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import msgpack
import zstandard

MAGIC = "moetui"
PREFIX = b"\x97\xa6moetui"  # an array of seven that begins with the magic: every record starts with these bytes

MAX_BODY = 64 << 20  # bytes of a record's body, stored and unpacked; the writer stays far below
MAX_RECORDS = 5_000_000
_LEVEL = 3  # higher levels gain a hundredth and cost ten times the time,
_SMALL_LEVEL = 12  # which is nothing with
_SMALL = 1 << 15  # bytes; records gathered within a second are hardly larger
_BLOCK = 1 << 10  # bytes that are worth a table of codes of their own
_HEAD = 96  # more than any record has before its body
_SEARCH = 1 << 20
_MAX_LOSSES = 10_000  # damaged places after which the rest of a file is given up
_BIN = {0xC4: 1, 0xC5: 2, 0xC6: 4}  # MessagePack's three binary headers and the bytes of their length


Piece: TypeAlias = bytes | memoryview


class DamagedError(Exception):
    """A record that cannot be used; the message says why."""


class Source(Protocol):
    """Bytes by position: what is read of a file that may still grow."""

    def read(self, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start``; fewer only at the end."""

    @property
    def size(self) -> int:
        """Bytes that can be read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A record's envelope: what it holds (tokens ``first .. first + count - 1``) and where.

    ``start`` and ``stop`` bound the record in the file; its body is the last ``length`` bytes of it.
    """

    kind: str
    codec: str
    first: int
    count: int
    crc: int
    start: int
    stop: int
    length: int


class Compressor:
    """Packs bodies into one Zstandard frame each."""

    def __init__(self) -> None:
        self._quick = zstandard.ZstdCompressor(level=_LEVEL)
        self._thorough = zstandard.ZstdCompressor(level=_SMALL_LEVEL)

    def compress(self, pieces: Sequence[Piece]) -> bytes:
        """The pieces as a frame that states its content size; those that differ in kind get codes of their own."""
        size = sum(map(len, pieces))
        stream = (self._thorough if size <= _SMALL else self._quick).compressobj(size=size)
        out = []
        for piece in pieces:
            if len(piece) >= _BLOCK:
                out.append(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
            out.append(stream.compress(piece))
        return b"".join((*out, stream.flush()))


def pack_frame(kind: str, first: int, count: int, pieces: Sequence[Piece], compressor: Compressor | None) -> bytes:
    """A whole record; compressed where that makes it smaller.

    Args:
        kind, first, count: as in ``Frame``.
        pieces: the body, cut where it changes its character.
        compressor: None to leave it as it is.

    Raises:
        ValueError: the body is larger than a reader would accept.
    """
    size = sum(map(len, pieces))
    if size > MAX_BODY:
        raise ValueError(f"a {kind} record of {size} bytes is larger than the format allows")
    packed = compressor.compress(pieces) if compressor is not None else b""
    codec, body = ("zstd", packed) if compressor is not None and len(packed) < size else ("", b"".join(pieces))
    record = [MAGIC, kind, codec, first, count, checksum(kind, codec, first, count, body), body]
    return bytes(msgpack.packb(record, use_bin_type=True))


def checksum(kind: str, codec: str, first: int, count: int, body: bytes) -> int:
    """CRC-32 of the envelope's text and the body as stored."""
    return zlib.crc32(body, zlib.crc32(f"{kind},{codec},{first},{count}".encode()))


def read_frame(source: Source, start: int) -> Frame:
    """The envelope of the record at ``start``; the body is neither read nor checked.

    Raises:
        DamagedError: there is no whole record.
    """
    head = source.read(start, _HEAD)
    if not head.startswith(PREFIX):
        raise DamagedError("no record starts here")
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=_HEAD)
    unpacker.feed(head)
    try:
        unpacker.read_array_header()
        _, kind, codec, first, count, crc = (unpacker.unpack() for _ in range(6))
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise DamagedError("a torn or garbled record") from error
    at = unpacker.tell()
    if not (isinstance(kind, str) and isinstance(codec, str)):
        raise DamagedError("a garbled record")
    if not all(type(value) is int and 0 <= value < 1 << 62 for value in (first, count, crc)):
        raise DamagedError("a garbled record")
    size = _BIN.get(head[at]) if at < len(head) else None
    if size is None or at + 1 + size > len(head):
        raise DamagedError("a torn or garbled record")
    length = int.from_bytes(head[at + 1 : at + 1 + size], "big")
    stop = start + at + 1 + size + length
    if length > MAX_BODY or stop > source.size:
        raise DamagedError("a record longer than the file")
    return Frame(kind, codec, first, count, crc, start, stop, length)


def read_body(source: Source, frame: Frame, limit: int = MAX_BODY) -> bytes:
    """The record's body, checked and unpacked; never more than ``limit`` bytes.

    Raises:
        DamagedError: the checksum does not fit, or the body is compressed in a way not known or larger than ``limit``.
    """
    body = source.read(frame.stop - frame.length, frame.length)
    if len(body) != frame.length:
        raise DamagedError("a torn record")
    if checksum(frame.kind, frame.codec, frame.first, frame.count, body) != frame.crc:
        raise DamagedError("a record's checksum does not fit")
    if frame.codec == "":
        if len(body) > limit:
            raise DamagedError("a record larger than expected")
        return body
    if frame.codec != "zstd":
        raise DamagedError("a record is compressed in a way not known")
    try:
        # The size is asked before anything is unpacked: a few bytes may claim to be terabytes.
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= limit:
            raise DamagedError("a record larger than expected")
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=limit) if size else b""
    except (zstandard.ZstdError, MemoryError) as error:
        raise DamagedError("a record does not unpack") from error


def scan(source: Source, start: int = 0) -> Iterator[Frame | int]:
    """All records from ``start`` on without reading their bodies; an int is a number of bytes that hold none.

    Ends before a torn last record, which a program that is still writing may complete.
    """
    at, losses = start, 0
    for _ in range(MAX_RECORDS):
        if at >= source.size or losses > _MAX_LOSSES:
            return
        try:
            frame = read_frame(source, at)
        except DamagedError:
            following = _find_prefix(source, at + 1)
            if following is None:
                return
            yield following - at
            at = following
            losses += 1
            continue
        if frame.stop < source.size and not _starts_record(source, frame.stop):
            # What it says of its length may be wrong: another record within it proves that, a checksum the contrary.
            following = _find_prefix(source, at + 1)
            lost_from = at
            if (following is None or following >= frame.stop) and _sound(source, frame):
                yield frame
                lost_from = frame.stop
            if following is None:
                return
            yield following - lost_from
            at = following
            losses += 1
            continue
        yield frame
        at = frame.stop


def _sound(source: Source, frame: Frame) -> bool:
    try:
        read_body(source, frame)
    except DamagedError:
        return False
    return True


def _starts_record(source: Source, at: int) -> bool:
    rest = source.read(at, len(PREFIX))
    return PREFIX.startswith(rest)  # a torn prefix at the very end is a record about to be written


def _find_prefix(source: Source, at: int) -> int | None:
    length = 1 << 12  # the next record is near, mostly
    while at < source.size:
        block = source.read(at, length + len(PREFIX) - 1)
        found = block.find(PREFIX)
        if found >= 0:
            return at + found
        if len(block) < length:
            return None
        at += length
        length = min(2 * length, _SEARCH)
    return None
