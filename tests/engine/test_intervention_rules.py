"""By which rule a changed routing is weighed, and in which order interventions act."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from moetui.engine import Capture, CaptureOptions
from moetui.engine.interventions import plan
from moetui.engine.zoo import buildable
from moetui.routing import NO_EXPERT, Step, UnsupportedError
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ForceExperts,
    Intervention,
    RandomRouting,
    RouterNoise,
    RouterTemperature,
    ScaleExperts,
    Scope,
    SetTopK,
    SwapExperts,
    UniformRouting,
)
from tests.engine.conftest import ZooModel
from tests.engine.interception import intercepted


def ran(
    model: nn.Module, inputs: dict[str, torch.Tensor], *chains: Sequence[Intervention], **options: bool
) -> list[Step]:
    """What each chain made of a pass of its own, on a model that nobody has looked at before."""
    steps: list[Step] = []
    out = []
    with Capture(model, CaptureOptions(**options), on_step=steps.append) as capture, torch.no_grad():
        made: dict[int, dict[int, object]] = {}
        for chain in chains:
            functions = made.setdefault(id(chain), plan(chain, lambda: capture.handles).functions)
            capture.set_functions(functions)
            steps.clear()
            model(**inputs)
            capture.flush()
            out.append(max(steps, key=lambda step: int((step.indices != NO_EXPERT).any((0, 2)).sum())))
    return out


def experts(step: Step, site: int) -> list[set[int]]:
    """Those that carried weight, token by token."""
    assert step.weights is not None
    rows = zip(step.indices[:, site].tolist(), np.nan_to_num(step.weights[:, site]).tolist())
    return [{e for e, w in zip(chosen, gates) if e != NO_EXPERT and w != 0} for chosen, gates in rows]


@pytest.mark.parametrize("name", buildable())
@pytest.mark.parametrize("what", ["force", "ban"])
def test_the_first_pass_is_weighed_by_the_rule_of_all_later_ones(name: str, what: str, zoo_model: ZooModel) -> None:
    built = zoo_model(name)
    k = Capture(built.model).sites[-1].top_k
    chain = [ForceExperts(tuple(range(k)))] if what == "force" else [BanExperts((0,))]
    try:
        first, second = ran(built.model, built.inputs(1, 9), chain, chain)
    except UnsupportedError:
        pytest.skip("refused: told in words, see test_what_makes_no_sense_is_refused_in_words")
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.weights, second.weights)


@pytest.mark.parametrize("name", ["gemma4", "diffusion_gemma"])
def test_forced_experts_have_their_own_factor_where_the_router_has_one(name: str, zoo_model: ZooModel) -> None:
    built = zoo_model(name)
    chain = [ForceExperts((6, 7))]
    step, _ = ran(built.model, built.inputs(1, 16), chain, chain)
    with Capture(built.model) as capture, torch.no_grad():
        handle = capture.handles[0]
        with intercepted([handle.router]) as truth:
            built.model(**built.inputs(1, 16))
        shares = truth.outputs[id(handle.router)][0].reshape(16, -1)[:, [6, 7]].float()
    expected = shares / shares.sum(-1, keepdim=True) * handle.router.per_expert_scale[[6, 7]].detach()
    assert step.weights is not None
    np.testing.assert_allclose(step.weights[:, 0].astype(np.float32), expected.numpy(), rtol=2e-3)


@pytest.mark.parametrize("logits", [True, False])
def test_forced_experts_outside_of_the_chosen_groups_run_from_the_first_token_on(
    logits: bool, zoo_model: ZooModel
) -> None:
    built = zoo_model("deepseek_v2")
    for step in ran(built.model, built.inputs(1, 12), *[[ForceExperts((6, 7))]] * 2, logits=logits):
        for site in range(step.indices.shape[1]):
            assert experts(step, site) == [{6, 7}] * 12


@pytest.mark.parametrize("name", ["deepseek_v2", "deepseek_v3"])
def test_tokens_whose_groups_are_banned_or_too_small_go_to_other_experts(name: str, zoo_model: ZooModel) -> None:
    built = zoo_model(name)
    banned, more = ran(built.model, built.inputs(2, 12, 5), [BanExperts((0, 1, 2, 3))], [SetTopK(8)])
    for site in range(banned.indices.shape[1]):
        assert all(found <= {4, 5, 6, 7} and len(found) == 2 for found in experts(banned, site))
        assert experts(more, site) == [set(range(8))] * 24


@pytest.mark.parametrize(
    ("item", "touched"),
    [
        (RouterTemperature(1.0), set()),
        (RouterTemperature(3.0), set()),
        (RouterNoise(0.0), set()),
        (BoostExperts((0,), 0.0), set()),
        (SetTopK(2), set()),
        (BanExperts((7,)), {7}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_experts_that_a_table_names_stay_where_nothing_is_asked_of_them(
    item: Intervention, touched: set[int], zoo_model: ZooModel
) -> None:
    built = zoo_model("deepseek_v4")
    bare, changed = ran(built.model, built.inputs(2, 12, 5), [], [item])
    for own, found in zip(experts(bare, 0), experts(changed, 0)):
        assert own - touched <= found
        assert len(found) == len(own)
        assert not found & touched


def test_interventions_act_in_their_order(zoo_model: ZooModel) -> None:
    built = zoo_model("mixtral")
    chains: tuple[list[Intervention], ...] = (
        [],
        [SwapExperts(0, 1), BanExperts((0,))],
        [BanExperts((0,)), SwapExperts(0, 1)],
        [ScaleExperts((3,), 0.0), ForceExperts((3, 4))],
        [ForceExperts((3, 4)), ScaleExperts((3,), 0.0)],
        [UniformRouting(), SetTopK(1)],
        [SwapExperts(0, 1), SetTopK(3)],
        [RandomRouting(3), ForceExperts((5, 6))],
    )
    bare, swapped_first, banned_first, forced_last, scaled_last, one, three, forced = ran(
        built.model, built.inputs(2, 12, 5), *chains
    )
    swap = {0: 1, 1: 0}
    own = experts(bare, 0)  # behind the first site, tokens are no longer the same
    assert any({0, 1} & found for found in own), "a model that shows the difference"
    for before, found in zip(own, experts(swapped_first, 0)):
        assert {swap.get(expert, expert) for expert in before} - {0} <= found
        assert len(found) == 2
    assert all(1 not in found for found in experts(banned_first, 0))
    assert any(0 in found for found in experts(banned_first, 0))
    assert experts(forced_last, 0) == [{3, 4}] * 24
    assert experts(scaled_last, 0) == [{4}] * 24
    assert all(len(found) == 1 for found in experts(one, 0))
    for before, found in zip(own, experts(three, 0)):
        assert {swap.get(expert, expert) for expert in before} < found
        assert len(found) == 3
    assert experts(forced, 0) == [{5, 6}] * 24
    for site in range(bare.indices.shape[1]):
        assert all(0 not in found for found in experts(swapped_first, site)), "what is banned last never runs"
    assert all(step.weights is not None for step in (bare, one, three, swapped_first))
    for step in (one, three, swapped_first):
        mass = np.nansum(step.weights.astype(np.float32), -1)  # type: ignore[union-attr]
        np.testing.assert_allclose(mass, 1.0, atol=2e-3)


def test_a_ban_for_some_tokens_leaves_the_draw_of_others_alone(zoo_model: ZooModel) -> None:
    built = zoo_model("mixtral")
    free, some = ran(
        built.model,
        built.inputs(1, 12),
        [RandomRouting(1)],
        [RandomRouting(1), BanExperts((0, 1, 2, 3), Scope(positions=(0, 4)))],
    )
    for site in range(free.indices.shape[1]):
        assert experts(some, site)[4:] == experts(free, site)[4:]
        assert all(found <= {4, 5, 6, 7} for found in experts(some, site)[:4])
