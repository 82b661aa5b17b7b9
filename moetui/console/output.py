"""What one thread prints, caught; what the others print goes where it always went."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MOST = 400_000


class Caught:
    """Printed text, up to a bound."""

    def __init__(self, most: int = _MOST) -> None:
        self._parts: list[str] = []
        self._left = most
        self.dropped = 0

    def write(self, text: str) -> None:
        """Keep ``text``, or as much of it as still fits."""
        kept = text[: self._left]
        self._left -= len(kept)
        self.dropped += len(text) - len(kept)
        if kept:
            self._parts.append(kept)

    @property
    def text(self) -> str:
        """Everything kept."""
        return "".join(self._parts)


class _Fork:
    """Stands in for ``sys.stdout``: one thread's text is caught, everything else is the original's."""

    def __init__(self, original: Any, thread: int, caught: Caught) -> None:
        self._original, self._thread, self._caught = original, thread, caught

    def write(self, text: str) -> int:
        if threading.get_ident() == self._thread:
            self._caught.write(str(text))
            return len(text)
        return int(self._original.write(text) or 0)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._original.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


@contextmanager
def caught_output() -> Iterator[Caught]:
    """Within it, what this thread prints is caught."""
    caught = Caught()
    before = sys.stdout, sys.stderr
    forks = tuple(_Fork(stream, threading.get_ident(), caught) for stream in before)
    sys.stdout, sys.stderr = forks
    try:
        yield caught
    finally:
        # Somebody else may have put theirs in place meanwhile: theirs stays.
        if sys.stdout is forks[0]:
            sys.stdout = before[0]
        if sys.stderr is forks[1]:
            sys.stderr = before[1]
