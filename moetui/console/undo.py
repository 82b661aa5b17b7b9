"""Interventions as they were before: undo and redo."""

from __future__ import annotations

from collections.abc import Sequence

from moetui.routing.interventions import Intervention

_DEPTH = 200
State = tuple[Intervention, ...]


class UndoStack:
    """Remembers what was in force before each change; whoever made it."""

    def __init__(self) -> None:
        self._before: list[State] = []
        self._after: list[State] = []

    def remember(self, state: Sequence[Intervention]) -> None:
        """A change is made to ``state``; what was undone cannot be redone any more."""
        self._before.append(tuple(state))
        del self._before[:-_DEPTH]
        self._after.clear()

    def undo(self, state: Sequence[Intervention]) -> State | None:
        """What was in force before the last change; None if nothing is known to have been."""
        return _move(self._before, self._after, tuple(state))

    def redo(self, state: Sequence[Intervention]) -> State | None:
        """What the last undo took back; None if there was none."""
        return _move(self._after, self._before, tuple(state))


def _move(source: list[State], target: list[State], state: State) -> State | None:
    if not source:
        return None
    target.append(state)
    return source.pop()
