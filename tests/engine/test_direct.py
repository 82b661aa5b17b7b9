"""The direct way of an intervention: the same to the bit, taken only where nothing else counts."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moetui.engine import Capture
from moetui.engine.interventions import plan
from moetui.engine.interventions.choice import Choice
from moetui.engine.interventions.direct import forcing, rankings, where_chosen
from moetui.engine.interventions.weights import numeric_weights
from moetui.engine.zoo import build
from moetui.routing import Site, Step
from moetui.routing.interventions import BanExperts, ForceExperts, Intervention, Scope, SetTopK
from tests.engine.watched import Watched, ids
from tests.releases import since_5_21

FORCE, BAN = (ForceExperts((5, 2)),), (BanExperts((1, 4)),)


def generated(built: Any, interventions: tuple[Intervention, ...], *, direct: bool) -> tuple[Tensor, list[Step], int]:
    """Tokens, what ran, and at how many sites the direct way was known in the end."""
    steps: list[Step] = []
    with Capture(built.model, on_step=steps.append) as capture, torch.no_grad():
        built.model(**built.inputs(2, 9, 0))
        capture.flush()
        functions = plan(interventions, lambda: capture.handles).functions
        used = functions if direct else {n: lambda *call, f=f: f(*call) for n, f in functions.items()}
        capture.set_functions(used)
        tokens = built.model.generate(**built.inputs(2, 9, 0), max_new_tokens=12, do_sample=False)
    return tokens, steps, sum(function.direct is not None for function in functions.values())


@pytest.mark.parametrize(
    ("name", "interventions", "known"),
    [
        ("mixtral", FORCE, True),
        ("mixtral", BAN, True),
        ("gpt_oss", FORCE, True),  # the softmax over the chosen alone
        ("gpt_oss", BAN, True),
        pytest.param("jamba", BAN, True, marks=since_5_21),  # weights that are not renormalised
        pytest.param("flint", BAN, True, marks=since_5_21),  # sigmoid
        ("jamba", FORCE, False),
        ("deepseek_v3", BAN, False),  # a bias counts in the choice
        ("mixtral", (*BAN, SetTopK(1)), False),
        ("mixtral", (ForceExperts((5, 2), Scope(positions=(3, None))),), False),
        ("mixtral", (ForceExperts((5,)),), False),  # a slot that is left over
    ],
)
def test_a_run_is_the_same_either_way(
    name: str, interventions: tuple[Intervention, ...], known: bool, zoo_model: Any
) -> None:
    built = zoo_model(name)
    short, long = (generated(built, interventions, direct=direct) for direct in (True, False))
    assert bool(short[2]) == known
    assert torch.equal(short[0], long[0])
    for one, other in zip(short[1], long[1], strict=True):
        for column in ("indices", "weights", "logits", "flags"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))
    assert any((step.flags != 0).any() for step in short[1][-11:]), "nothing was changed in decoding"


@torch.no_grad()
def test_while_a_gate_is_on_the_direct_way_is_not_taken(model: Any) -> None:
    met: list[int] = []
    with Capture(model) as capture:
        model(input_ids=ids(1, 20))
        capture.flush()
        capture.set_functions(plan(FORCE, lambda: capture.handles).functions)
        model(input_ids=ids(1, 3))
        capture.gate = lambda context: met.append(context.site.index)
        model(input_ids=ids(1, 3))
    assert met == [handle.site.index for handle in capture.handles]


@pytest.fixture
def between(model: Any) -> Iterator[list[Callable[[], Any]]]:
    """What is done in layer 1 once its router has returned and before its experts are called."""
    block, actions = model.model.layers[1].mlp, []

    def forward(hidden: Tensor) -> Tensor:
        rows = hidden.view(-1, hidden.shape[-1])
        _, weights, indices = block.gate(rows)
        for action in actions:
            action()
        return block.experts(rows, indices, weights).view(hidden.shape)

    block.forward = forward
    yield actions
    del block.forward


@pytest.mark.parametrize("what", ["a gate comes and goes", "the same functions come again", "another pass runs"])
@pytest.mark.parametrize("interventions", [FORCE, BAN])
@torch.no_grad()
def test_nothing_that_comes_between_router_and_experts_spoils_it(
    interventions: tuple[Intervention, ...], what: str, model: Any, between: list[Callable[[], Any]]
) -> None:
    with Watched(model) as watched:
        capture = watched.capture
        model(input_ids=ids(1, 20))
        capture.flush()
        functions: dict[int, Any] = plan(interventions, lambda: capture.handles).functions
        capture.set_functions(functions)
        for _ in range(2):
            model(input_ids=ids(1, 19))
        assert all(function.direct is not None for function in functions.values())
        expected = model(input_ids=ids(1, 3)).logits
        gates = iter([lambda _: None, None])

        def act() -> None:
            if what.startswith("a gate"):
                for capture.gate in gates:
                    pass
            elif what.startswith("the same"):
                capture.set_functions(functions)
            else:
                done, between[:] = list(between), []
                with capture.muted():
                    model(input_ids=ids(1, 7))
                between[:] = done

        between.append(act)
        assert torch.equal(model(input_ids=ids(1, 3)).logits, expected)
    assert not [finding for finding in watched.findings if finding.severity == "error"]


@torch.no_grad()
def test_a_function_that_comes_behind_the_router_waits_for_the_next_pass(
    model: Any, between: list[Callable[[], Any]]
) -> None:
    steps: list[Step] = []
    with Capture(model, on_step=steps.append) as capture:
        model(input_ids=ids(1, 20))
        capture.flush()
        functions = plan(FORCE, lambda: capture.handles).functions
        between.append(lambda: capture.set_functions(functions))
        for _ in range(2):
            model(input_ids=ids(1, 4))
    forced = [[set(step.indices[0, number].tolist()) == {5, 2} for number in range(4)] for step in steps[1:]]
    assert forced == [[False, False, True, True], [True] * 4]


@torch.no_grad()
def test_a_change_of_the_routers_slots_is_followed(model: Any) -> None:
    with Watched(model) as watched:
        model(input_ids=ids(1, 20))
        watched.capture.flush()
        watched.capture.set_functions(plan(BAN, lambda: watched.capture.handles).functions)
        for _ in range(2):
            model(input_ids=ids(1, 19))
        for layer in model.model.layers:
            layer.mlp.gate.top_k = 3
        try:
            model(input_ids=ids(1, 5))
        finally:
            for layer in model.model.layers:
                layer.mlp.gate.top_k = 2
    step = watched.steps[-1]
    assert step.indices.shape[-1] == 3
    assert (step.weights != 0).all()
    assert not np.isin(step.indices, (1, 4)).any()


@torch.no_grad()
def test_experts_that_break_where_no_direct_way_is_left_break_the_pass_once(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def direct(self, *_: Tensor) -> None:
            """None was made for so many slots."""

        def __call__(self, _: Any, logits: Any, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            return indices, weights

    called: list[int] = []

    def breaks(*_: Any) -> None:
        called.append(1)
        raise ValueError("theirs")

    with Watched(model) as watched:
        monkeypatch.setattr(type(model.model.layers[1].mlp.experts), "forward", breaks)
        watched.capture.set_functions({0: Gone()})
        with pytest.raises(ValueError, match="theirs"):
            model(input_ids=ids(1, 3))
    assert called == [1]
    assert not [finding for finding in watched.findings if finding.severity == "error"]


@pytest.mark.parametrize("interventions", [FORCE, BAN])
def test_what_was_made_without_gradients_serves_with_them(interventions: tuple[Intervention, ...]) -> None:
    model = build("mixtral").model
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with Watched(model) as watched:
        with torch.inference_mode():
            model(input_ids=ids(1, 20))
            watched.capture.flush()
            functions: dict[int, Any] = plan(interventions, lambda: watched.capture.handles).functions
            watched.capture.set_functions(functions)
            for _ in range(2):
                model(input_ids=ids(1, 20))
        assert all(function.direct is not None for function in functions.values())
        model.train()
        for seed in range(4):
            model(input_ids=ids(1, 3, seed=seed), use_cache=False).logits.square().mean().backward()
    assert not [finding for finding in watched.findings if finding.severity == "error"]


@torch.no_grad()
def test_nothing_of_an_earlier_call_is_kept_alive(model: Any) -> None:
    given: list[Any] = []
    with Capture(model, on_step=lambda _: None) as capture:
        model(input_ids=ids(1, 20))
        capture.flush()
        capture.set_functions(plan(FORCE, lambda: capture.handles).functions)
        hook = model.model.layers[1].post_attention_layernorm.register_forward_hook(
            lambda _, __, output: given.append(weakref.ref(output))
        )
        for length in (19, 3):
            model(input_ids=ids(1, length))
        hook.remove()
        capture.flush()
        assert given[0]() is None


@torch.no_grad()
def test_one_that_breaks_ends_the_capture_not_the_run(model: Any) -> None:
    class Breaks:
        direct = None

        def __call__(self, _: Any, logits: Any, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            self.direct = self.fail
            return indices, weights

        def fail(self, *_: Tensor) -> tuple[Tensor, Tensor]:
            raise ValueError("broken")

    inputs = ids(1, 3)
    bare = model(input_ids=inputs).logits
    with Watched(model) as watched:
        watched.capture.set_functions({0: Breaks()})
        for _ in range(3):  # the second one's time is taken: it asks for nothing direct
            assert torch.equal(model(input_ids=inputs).logits, bare)
    assert [finding.kind for finding in watched.findings if finding.severity == "error"] == ["capture_failed"]


def site(**known: Any) -> Site:
    described = {"scoring": "softmax", "logits_form": "logits", "normalised": True, "scale": 1.0, **known}
    return Site(0, "L0", 0, "", "", 8, 8, 2, **described)


def choice(*, banned: set[int] = frozenset(), forced: tuple[int, ...] | None = None) -> Choice:
    return Choice(8, 2, banned=set(banned), forced=forced)


ROUTING = torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2)


def test_experts_that_are_shut_out_are_not_forced_directly() -> None:
    logits = torch.randn(3, 8)
    assert forcing(site(), choice(forced=(2, 3)), logits, ROUTING[0]) is not None
    logits[1, 3] = -math.inf
    assert forcing(site(), choice(forced=(2, 3)), logits, ROUTING[0]) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_forced_weights_are_the_softmax_over_the_forced(dtype: torch.dtype, scale: float) -> None:
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    direct = forcing(site(scale=scale), choice(forced=(6, 1, 3)), logits, ROUTING[0])
    assert direct is not None
    indices, weights = direct(logits, *ROUTING)
    assert indices.tolist() == [[6, 1, 3]] * 3
    expected = scale * logits[:, [6, 1, 3]].double().softmax(-1)
    torch.testing.assert_close(weights.double(), expected, rtol=1e-6, atol=0)


@given(
    st.lists(st.floats(-20, 20, width=32) | st.just(math.nan) | st.just(-math.inf), min_size=8, max_size=8),
    st.sets(st.integers(0, 7), max_size=6),
    st.sampled_from(["softmax", "softmax_top_k", "sigmoid", "sqrt_softplus"]),
    st.booleans(),
)
def test_a_banned_expert_is_never_ranked(values: list[float], banned: set[int], scoring: str, normalised: bool) -> None:
    logits = torch.tensor([values])
    rule = site(scoring=scoring, normalised=normalised)
    ways = rankings(rule, choice(banned=banned), 2)
    assert ways
    for direct in ways:
        indices, weights = direct(logits, *ROUTING)
        assert not banned & set(indices[weights != 0].tolist())
        if all(map(math.isfinite, values)):
            expected = numeric_weights(rule, logits, indices, weights)
            torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)


def test_more_bans_than_the_slots_allow_have_no_direct_way() -> None:
    assert rankings(site(), choice(banned=set(range(6))), 2)
    assert not rankings(site(), choice(banned=set(range(7))), 2)


@torch.no_grad()
def test_tokens_that_no_ban_concerns_keep_what_they_have() -> None:
    def move(_: Tensor, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return indices * 0 + 7, weights

    spared = where_chosen(frozenset({3}), move)
    weights = torch.rand(2, 2)
    free, caught = torch.tensor([[0, 1], [2, 4]]), torch.tensor([[0, 1], [2, 3]])
    assert spared(torch.zeros(2, 8), free, weights)[0] is free
    assert spared(torch.zeros(2, 8), free, weights)[1] is weights
    assert (spared(torch.zeros(2, 8), caught, weights)[0] == 7).all()
    with torch.enable_grad():  # a checkpoint's recomputation has no such way
        assert (spared(torch.zeros(2, 8), free, weights)[0] == 7).all()
