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
    """Stands in for ``sys.stdout``: the text of some threads is caught, everything else is the original's."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.caught: dict[int, Caught] = {}  # by thread

    def write(self, text: str) -> int:
        caught = self.caught.get(threading.get_ident())
        if caught is None:
            return int(self.original.write(text) or 0)
        caught.write(str(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if threading.get_ident() not in self.caught:
            self.original.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


_lock = threading.Lock()
_forks: dict[int, _Fork] = {}
"""By the original's id, and never let go: ``print`` of CPython before 3.13 borrows ``sys.stdout`` without keeping it
alive, so that a thread which prints while another's line ends would write to freed memory."""


@contextmanager
def caught_output() -> Iterator[Caught]:
    """Within it, what this thread prints is caught."""
    caught, me = Caught(), threading.get_ident()
    with _lock:
        forks = sys.stdout, sys.stderr = _fork_of(sys.stdout), _fork_of(sys.stderr)
        before = [fork.caught.get(me) for fork in forks]
        for fork in forks:
            fork.caught[me] = caught
    try:
        yield caught
    finally:
        with _lock:
            for fork, outer in zip(forks, before):
                if outer is None:
                    fork.caught.pop(me, None)
                else:
                    fork.caught[me] = outer
            # Somebody else may have put theirs in place meanwhile: theirs stays.
            if sys.stdout is forks[0] and not forks[0].caught:
                sys.stdout = forks[0].original
            if sys.stderr is forks[1] and not forks[1].caught:
                sys.stderr = forks[1].original


def _fork_of(stream: Any) -> _Fork:
    return stream if isinstance(stream, _Fork) else _forks.setdefault(id(stream), _Fork(stream))
