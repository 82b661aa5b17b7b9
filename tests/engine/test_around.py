"""What stands in for a module's forward: it sees every call, comes off in any order, and stays out of copies."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moetui import MoEDebugger
from moetui.engine import Capture
from moetui.engine.around import Around, own_forward
from moetui.engine.zoo import build
from moetui.routing import Step
from moetui.routing.interventions import ScaleExperts
from tests.engine.interception import hook_state


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, hidden: Tensor, extra: float = 0.0) -> Tensor:
        return hidden * self.by + extra


ONE = torch.ones(1)


def test_it_sees_a_call_and_what_came_of_it_and_may_change_the_arguments() -> None:
    module, seen = Scaled(3.0), []

    def before(args: Any, kwargs: Any) -> Any:
        seen.append((args, kwargs))
        return (args[0] * 2,), {"extra": 1.0}

    Around(module, before=before, after=lambda args, kwargs, output: seen.append((args, kwargs, output)))
    assert module(ONE, extra=5.0) == 7.0
    assert seen == [((ONE,), {"extra": 5.0}), ((ONE * 2,), {"extra": 1.0}, 7.0)]


def test_it_stands_between_the_hooks_before_and_behind() -> None:
    module, order = Scaled(3.0), []
    module.register_forward_pre_hook(lambda *_: order.append("pre-hook"))
    module.register_forward_hook(lambda *_: order.append("hook"))
    Around(module, before=lambda *_: order.append("before"), after=lambda *_: order.append("after"))
    module(ONE)
    assert order == ["pre-hook", "before", "after", "hook"]


@pytest.mark.parametrize("where", ["before", "forward", "after"])
def test_it_is_told_where_something_broke(where: str) -> None:
    module, told = Scaled(3.0), []

    def explode(*_: Any) -> None:
        raise KeyboardInterrupt

    around = Around(module, broke=lambda: told.append(where), **({where: explode} if where != "forward" else {}))
    with pytest.raises((KeyboardInterrupt, TypeError)):
        module(ONE) if where != "forward" else module("not a number", None)
    assert told == [where]
    around.remove()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_several_come_off_in_any_order(order: tuple[int, ...]) -> None:
    module, seen = Scaled(3.0), []
    arounds = [Around(module, before=lambda _, __, number=number: seen.append(number)) for number in range(3)]
    left = {0, 1, 2}
    for number in order:
        arounds[number].remove()
        arounds[number].remove()
        left.discard(number)
        seen.clear()
        assert module(ONE) == 3.0
        assert set(seen) == left
    assert "forward" not in vars(module)


def test_what_another_library_had_put_there_is_put_back() -> None:
    module = Scaled(3.0)
    theirs = functools.partial(Scaled.forward, module, extra=1.0)
    module.forward = theirs  # as accelerate does
    around = Around(module)
    assert module(ONE) == 4.0
    around.remove()
    assert vars(module)["forward"] is theirs


def test_what_another_library_lays_around_it_stays_and_it_falls_silent() -> None:
    module, seen = Scaled(3.0), []
    around = Around(module, before=lambda *_: seen.append(1))
    ours = module.forward
    module.forward = lambda hidden: ours(hidden) + 1
    around.remove()
    assert module(ONE) == 4.0
    assert not seen


def test_a_class_that_is_patched_later_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Scaled(3.0)
    around = Around(module)
    monkeypatch.setattr(Scaled, "forward", lambda self, hidden: hidden - self.by)
    assert module(ONE) == -2.0
    assert own_forward(module)(ONE) == -2.0
    around.remove()


def test_a_copy_has_its_own_weights_and_is_not_watched() -> None:
    module, seen = Scaled(3.0), []
    Around(module, before=lambda *_: seen.append(1))
    twin = copy.deepcopy(module)
    twin.by.data.fill_(5.0)
    assert twin(ONE) == 5.0
    assert not seen
    assert module(ONE) == 3.0


def test_its_signature_is_the_forwards() -> None:
    module = Scaled(3.0)
    before = inspect.signature(module.forward)
    Around(module)
    assert inspect.signature(module.forward) == before


@torch.no_grad()
def test_a_copy_of_a_captured_model_runs_by_itself(zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    steps: list[Step] = []
    inputs = built.inputs(1, 5)
    with Capture(built.model, on_step=steps.append):
        twin = copy.deepcopy(built.model)
        for layer in twin.model.layers:
            layer.mlp.experts.down_proj.zero_()
        changed = twin(**inputs).logits
        bare = built.model(**inputs).logits
    assert not torch.equal(changed, bare)
    assert len(steps) == 1


@torch.no_grad()
@pytest.mark.parametrize("name", ["mixtral", "switch_transformers", "jetmoe", "llama4", "doge"])
@pytest.mark.parametrize("hooked", [False, True])
def test_a_copy_is_changed_by_no_intervention(zoo_model: Any, name: str, hooked: bool) -> None:
    built = zoo_model(name)
    inputs = built.inputs(1, 5)
    with MoEDebugger(built.model) as debugger:
        others = [
            module.register_forward_hook(lambda *_: None)
            for handle in debugger.capture.handles
            for module in {handle.router, handle.experts}
            if hooked
        ]
        before = built.model(**inputs).logits
        debugger.interventions.set([ScaleExperts((0, 1), 0.0)])
        changed = built.model(**inputs).logits
        twin = copy.deepcopy(built.model)
        end = debugger.timeline.snapshot().end
        assert torch.equal(twin(**inputs).logits, before)
        assert torch.equal(built.model(**inputs).logits, changed)
        assert debugger.timeline.snapshot().end > end
        for other in others:
            other.remove()
    assert not torch.equal(changed, before)
    assert torch.equal(twin(**inputs).logits, before)


@torch.no_grad()
def test_a_captured_model_is_pickled_as_if_it_were_not() -> None:
    built = build("mixtral")  # its own: what others leave on a model may not be pickled
    steps: list[Step] = []
    inputs = built.inputs(1, 5)
    with Capture(built.model, on_step=steps.append), Capture(built.model):
        twin = pickle.loads(pickle.dumps(built.model))
    assert torch.equal(twin(**inputs).logits, built.model(**inputs).logits)
    assert twin.forward.__self__ is twin
    assert not steps


WATCHERS: dict[str, Callable[[nn.Module, list[Tensor]], Any]] = {
    "before": lambda experts, seen: experts.register_forward_pre_hook(lambda _, args: seen.append(args[1])),
    "behind": lambda experts, seen: experts.register_forward_hook(lambda _, args, output: seen.append(args[1])),
    "around": lambda experts, seen: Around(experts, before=lambda args, kwargs: seen.append(args[1])),
}


class Sixth:
    """Sends every token to expert 6; knows the direct way to it from its first call on."""

    def __init__(self, *, knows: bool) -> None:
        self.knows, self.direct = knows, None

    def __call__(self, _: Any, logits: Any, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        if self.knows:
            self.direct = self.change
        return self.change(logits, indices, weights)

    def change(self, _: Any, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return indices * 0 + 6, weights


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("when", ["before the capture", "before the change", "between passes"])
@pytest.mark.parametrize("how", WATCHERS)
@torch.no_grad()
def test_others_at_the_experts_see_the_routing_that_runs(zoo_model: Any, how: str, when: str, direct: bool) -> None:
    built = zoo_model("mixtral")
    experts = built.model.model.layers[1].mlp.experts
    seen: list[Tensor] = []
    before = hook_state(built.model)
    early = WATCHERS[how](experts, seen) if when == "before the capture" else None
    with Capture(built.model) as capture:
        late = WATCHERS[how](experts, seen) if when == "before the change" else None
        capture.set_functions({1: Sixth(knows=direct)})
        built.model(**built.inputs(1, 5))
        latest = WATCHERS[how](experts, seen) if when == "between passes" else None
        built.model(**built.inputs(1, 5))
        for handle in (late, latest):
            if handle is not None:
                handle.remove()
        if early is None:
            built.model(**built.inputs(1, 5))
            assert not experts._forward_pre_hooks, "a hook slows the experts down for nobody"
    if early is not None:
        early.remove()
    assert [indices.unique().tolist() for indices in seen] == [[6]] * (1 if when == "between passes" else 2)
    assert hook_state(built.model) == before


@torch.no_grad()
def test_what_a_hook_before_the_experts_makes_of_the_routing_is_what_is_captured(zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    experts = built.model.model.layers[1].mlp.experts
    steps: list[Step] = []
    with Capture(built.model, on_step=steps.append):
        meddles = experts.register_forward_pre_hook(lambda _, args: (args[0], args[1] * 0 + 4, args[2]))
        built.model(**built.inputs(1, 5))
        meddles.remove()
    assert (steps[0].indices[:, 1] == 4).all()


@torch.no_grad()
def test_a_function_set_while_a_pass_stands_at_a_site_holds_there_once(zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    steps: list[Step] = []
    called: list[int] = []

    def shift(context: Any, logits: Any, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        called.append(context.site.index)
        return indices * 0 + 2, weights

    with Capture(built.model, on_step=steps.append) as capture:

        def gate(context: Any) -> None:
            if context.site.index == 1:
                capture.set_functions({1: shift, 2: shift})
            if context.site.index == 3:
                capture.set_functions({})

        capture.gate = gate
        built.model(**built.inputs(1, 5))
        built.model(**built.inputs(1, 5))
    assert called == [1, 2, 1, 2]
    for step in steps:
        assert [(step.indices[:, number] == 2).all() for number in range(4)] == [False, True, True, False]


def test_another_thread_may_take_it_off_in_the_midst_of_a_call() -> None:
    module, seen = Scaled(3.0), []
    around = Around(module, before=lambda *_: around.remove(), after=lambda *_: seen.append(1))
    assert module(ONE) == 3.0
    assert module(ONE) == 3.0
    assert not seen
    assert "forward" not in vars(module)
