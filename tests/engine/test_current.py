"""Hooks find the pass of their own thread, however many threads run one model, and however passes end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moetui.engine.adapters.current import Current
from moetui.engine.adapters.router_watch import Glancing
from moetui.engine.interventions import plan
from moetui.routing import NO_EXPERT
from moetui.routing.interventions import ForceExperts
from tests.engine.watched import Watched, ids


def frame(*, timed: bool = False) -> Any:
    return SimpleNamespace(seen=[None], timed=timed)


def elsewhere(work: Callable[[], Any]) -> Any:
    """What it gives in another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def crowds() -> list[int]:
    return []


@pytest.fixture
def current(crowds: list[int]) -> Current:
    return Current(lambda: crowds.append(threading.get_ident()))


def test_the_places_of_the_only_pass_lie_open_until_it_ends(current: Current, crowds: list[int]) -> None:
    for _ in range(2):
        only = frame()
        current.enter(only)
        assert current.frame is only
        assert current.seen is only.seen
        assert elsewhere(lambda: current.frame) is None
        current.leave(only)
        assert current.frame is current.seen is None
    elsewhere(lambda: current.enter(frame()))
    assert not crowds, "one after the other is no crowd, whatever their threads"


def test_a_pass_that_takes_its_time_goes_by_its_thread_alone(current: Current) -> None:
    slow = frame(timed=True)
    current.enter(slow)
    assert (current.frame, current.seen) == (slow, None)
    current.leave(slow)
    current.enter(quick := frame())
    assert current.seen is quick.seen


def test_a_thread_that_comes_while_another_one_is_under_way_is_told_of_before_its_own_begins(
    current: Current, crowds: list[int]
) -> None:
    first, second = frame(), frame()
    current.enter(first)

    def come() -> int:
        current.enter(second)
        assert current.frame is second
        current.leave(second)
        assert current.frame is None
        return threading.get_ident()

    assert [elsewhere(come)] == crowds
    assert current.frame is first
    assert current.seen is first.seen
    elsewhere(come)
    assert len(crowds) == 1, "it stays so"


def test_a_pass_that_never_ended_gives_way_to_the_next_of_its_thread(current: Current, crowds: list[int]) -> None:
    left, follows = frame(), frame()
    current.enter(left)
    current.enter(follows)
    assert current.seen is follows.seen
    current.leave(follows)
    current.enter(last := frame())
    assert current.seen is last.seen
    assert not crowds


@pytest.mark.parametrize("within", [False, True])
def test_passes_aside_are_those_that_are_set_there(current: Current, crowds: list[int], within: bool) -> None:
    outer, inner = frame(), frame()
    if within:
        current.enter(outer)
    with current.aside():
        assert current.frame is current.seen is None
        current.frame = inner
        assert (current.frame, current.seen) == (inner, None)
        current.leave(inner)
    assert current.frame is (outer if within else None)
    assert current.seen is (outer.seen if within else None)
    if within:
        current.leave(outer)
    current.enter(last := frame())
    assert current.seen is last.seen, "nothing is held any longer"
    assert not crowds


def test_aside_of_another_thread_s_pass(current: Current, crowds: list[int]) -> None:
    current.enter(first := frame())

    def stand_aside() -> Any:
        with current.aside():
            return current.frame

    assert elsewhere(stand_aside) is None
    assert len(crowds) == 1, "its sites must not write to what lies open"
    assert (current.frame, current.seen) == (first, first.seen)


@pytest.mark.parametrize("place", ["router", "experts"])
def test_a_model_that_another_thread_runs_while_a_pass_stands_in_a_site(zoo_model: Any, place: str) -> None:
    """Both keep their own routing: that of each pass by itself."""
    model = zoo_model("mixtral").model
    module = model.model.layers[1].mlp.gate if place == "router" else model.model.layers[1].mlp.experts
    tokens = ids(1, 3), ids(1, 7, seed=1)

    def run(number: int) -> None:
        with torch.no_grad():
            model(input_ids=tokens[number])

    with Watched(model) as watched:
        for number in (0, 1):
            run(number)  # by itself; and what is studied of a model's first passes is done
        watched.capture.flush()
        assert [handle.short for handle in stands(model)] == [True] * 2 * len(model.model.layers)
        ran: list[bool] = []
        forward = type(module).forward

        def held_up(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self is module and not ran:
                ran.append(True)
                elsewhere(lambda: run(1))
            return forward(self, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(module), "forward", held_up)
            run(0)
        watched.capture.flush()
        run(0)
    alone, others = watched.steps[:2], watched.steps[2:]
    assert [step.num_tokens for step in others] == [7, 3, 3]
    for step, own in zip(others, (alone[1], alone[0], alone[0])):
        assert (step.indices != NO_EXPERT).all()
        assert (step.indices == own.indices).all()
        assert (step.logits == own.logits).all()


@pytest.mark.parametrize("forced", [False, True])
def test_a_block_that_another_thread_calls_by_itself_leaves_the_pass_as_it_is(zoo_model: Any, forced: bool) -> None:
    """The pass stands behind that block; the model goes on whatever is done to it."""
    model = zoo_model("mixtral").model
    others = torch.randn(1, 2, model.config.hidden_size)

    def call_alone(*_: Any) -> None:
        def call() -> None:
            with torch.no_grad():
                model.model.layers[0].mlp(others)

        elsewhere(call)

    with Watched(model) as watched, torch.no_grad():
        if forced:
            watched.capture.set_functions(plan((ForceExperts((0, 3)),), lambda: watched.capture.handles, {}).functions)
        for _ in range(3):  # of which the second one takes its time
            model(input_ids=ids(1, 3))
        hook = model.model.layers[1].register_forward_hook(call_alone)
        model(input_ids=ids(1, 3))
        hook.remove()
    assert not [finding for finding in watched.findings if finding.severity != "info"]
    (*_, alone, disturbed) = watched.steps
    assert (disturbed.indices == alone.indices).all()
    assert (disturbed.weights == alone.weights).all()
    assert (disturbed.logits == alone.logits).all()


def stands(model: Any) -> list[Glancing]:
    found = [module.__dict__.get("forward") for module in model.modules()]
    return [forward for forward in found if isinstance(forward, Glancing)]
