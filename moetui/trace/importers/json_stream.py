"""A large JSON document read piece by piece: its outer keys, and one of them element by element."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from moetui.routing.errors import TraceError

_BLOCK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_CLOSED = frozenset('}]"eln')  # what a value that cannot go on ends with; a number at the end of a block can


class JsonStream:
    """The items of a JSON object in a file; ``spread`` names the key whose array is given element by element.

    Args:
        path: the file.
        spread: the key of the array.
    """

    def __init__(self, path: Path, spread: str) -> None:
        self._path = path
        self._spread = spread
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._decoder = json.JSONDecoder()

    def items(self) -> Iterator[tuple[str, Any]]:
        """Pairs of key and value; the array's key comes once for each of its elements.

        Raises:
            TraceError: it is no such document.
        """
        self._buffer, self._at, self._ended = "", 0, False
        try:
            with self._path.open(encoding="utf-8-sig") as stream:
                yield from self._object(stream)
        except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested without end
            raise TraceError(f"{self._path.name} is no JSON that can be read: {_words(error)}", "check it") from None
        except OSError as error:
            raise TraceError(f"cannot read {self._path.name}: {error.strerror}", "check the disk") from None

    def _object(self, stream: TextIO) -> Iterator[tuple[str, Any]]:
        self._expect(stream, "{")
        if self._peek(stream) == "}":
            return
        while True:
            key = self._value(stream)
            self._expect(stream, ":")
            if key == self._spread and self._peek(stream) == "[":
                yield from self._elements(stream, str(key))
            else:
                yield str(key), self._value(stream)
            if self._expect(stream, ",}") == "}":
                return

    def _elements(self, stream: TextIO, key: str) -> Iterator[tuple[str, Any]]:
        self._expect(stream, "[")
        if self._peek(stream) == "]":
            self._expect(stream, "]")
            return
        while True:
            yield key, self._value(stream)
            if self._expect(stream, ",]") == "]":
                return

    def _peek(self, stream: TextIO) -> str:
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._ended:
                raise ValueError("it ends early")
            self._more(stream, _BLOCK)

    def _expect(self, stream: TextIO, chars: str) -> str:
        char = self._peek(stream)
        if char not in chars:
            raise ValueError(f"{char!r} where {' or '.join(chars)} should be")
        self._at += 1
        return char

    def _value(self, stream: TextIO) -> Any:
        self._peek(stream)
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError:
                if self._ended:
                    raise
            else:
                if self._ended or end < len(self._buffer) or self._buffer[end - 1] in _CLOSED:
                    self._at = end
                    return value
            # Twice as much each time, so that a large element is not begun again too often.
            self._more(stream, max(_BLOCK, len(self._buffer) - self._at))

    def _more(self, stream: TextIO, size: int) -> None:
        block = stream.read(size)
        self._ended = not block
        self._buffer, self._at = self._buffer[self._at :] + block, 0


def _words(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested without end"
    if isinstance(error, json.JSONDecodeError):
        return error.msg.lower()
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
