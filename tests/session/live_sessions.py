"""A live session with a log, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from moetui.routing.events import Event, RunState, RunStateChanged
from moetui.session.live import LiveSession

PATIENCE = 120.0


class Log:
    """Every event of a session, and a way to wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._condition = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._condition:
            self.events.append(event)
            self._condition.notify_all()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def states(self) -> list[RunState]:
        return [event.state for event in self.of(RunStateChanged)]

    def wait(self, condition: Callable[[list[Event]], bool]) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: condition(self.events), PATIENCE), self.events[-5:]

    def wait_state(self, state: RunState, times: int = 1) -> None:
        self.wait(lambda _: self.states().count(state) >= times)


class Live(LiveSession):
    """A live session with a log."""

    log: Log

    def settle(self) -> None:
        assert self.wait(PATIENCE), self.state
        self.flush()

    def ids(self, branch: int = -1) -> list[int]:
        """Token ids of a branch, in order."""
        view = self.timeline.snapshot()
        tokens = view.tokens(view.first, view.end)
        return [int(token) for token in tokens.token_id[tokens.branch == self.branches[branch].id]]


Make = Callable[..., Live]
