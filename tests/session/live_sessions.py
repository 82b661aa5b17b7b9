"""A live session with a log, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from moetui.routing.events import Event, RunState, RunStateChanged
from moetui.session.live import LiveSession

PATIENCE = 120.0
PROMPT = "some words to begin with"
LONG = 400


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


def reference(ids: tuple[int, ...], n: int) -> list[int]:
    """What the library writes by itself."""
    from moetui.engine.zoo import build

    model = build("mixtral").model
    out = model.generate(torch.tensor([ids]), max_new_tokens=n, do_sample=False)
    return [int(token) for token in out[0]]


@contextmanager
def held_forward(session: LiveSession) -> Iterator[threading.Event]:
    """Within it the model's passes hang after their layers, as a busy device would; gives what tells that one does."""
    hangs, go_on = threading.Event(), threading.Event()

    def hang(*_: Any) -> None:
        hangs.set()
        go_on.wait(PATIENCE)

    hook = session.call(lambda model, _: model.lm_head.register_forward_hook(hang)).result(PATIENCE)
    try:
        yield hangs
    finally:
        go_on.set()
        hook.remove()


def begin_paused(session: Live, begin: Callable[[], None]) -> None:
    """Begin a run and pause it before its second step, however slow this thread is against the one that runs it."""
    with held_forward(session) as hangs:
        begin()
        assert hangs.wait(PATIENCE)
        session.pause()
    session.settle()
    assert session.state is RunState.PAUSED
