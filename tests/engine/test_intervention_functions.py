"""Properties of the pure functions that change a routing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moetui.engine.interventions.choice import Choice, among, fit
from moetui.engine.interventions.noise import normal, uniform
from moetui.engine.interventions.transforms import (
    limit_capacity,
    random_experts,
    scale_experts,
    swap_experts,
    uniform_weights,
)
from moetui.engine.interventions.weights import kept_mass, numeric_weights
from moetui.routing import Site

E = 6
few = settings(max_examples=60, deadline=None)


def site(**fields: object) -> Site:
    given_: dict[str, object] = {"scoring": "softmax", "normalised": True, "scale": 1.0, **fields}
    return Site(0, "L0", 0, "mlp.experts", "mlp.gate", E, E, 2, **given_)  # type: ignore[arg-type]


@st.composite
def routings(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [T, E] (now and then with NaN or infinity), distinct indices [T, 2] and positive weights."""
    tokens = draw(st.integers(1, 9))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, E, generator=generator)
    for value in draw(st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), max_size=2)):
        logits[draw(st.integers(0, tokens - 1)), draw(st.integers(0, E - 1))] = value
    indices = torch.rand(tokens, E, generator=generator).topk(2).indices
    weights = torch.rand(tokens, 2, generator=generator) + 0.01
    return logits, indices, weights


experts = st.lists(st.integers(0, E - 1), min_size=1, max_size=E - 1, unique=True).map(tuple)


@few
@given(routings(), experts)
def test_a_banned_expert_is_never_chosen(routing: tuple[Tensor, Tensor, Tensor], banned: tuple[int, ...]) -> None:
    choice = Choice(E, 2)
    choice.ban(banned)
    chosen = choice.select(routing[0])
    assert chosen.shape[-1] == min(2, E - len(banned))
    assert not among(chosen, banned).any()
    assert all(len(set(row)) == len(row) for row in chosen.tolist())


@few
@given(routings(), experts)
def test_forced_experts_are_chosen_in_their_order(
    routing: tuple[Tensor, Tensor, Tensor], forced: tuple[int, ...]
) -> None:
    choice = Choice(E, 2)
    choice.force(forced)
    assert choice.select(routing[0]).tolist() == [list(forced)] * routing[0].shape[0]


@few
@given(routings(), experts, experts)
def test_the_later_of_force_and_ban_wins(
    routing: tuple[Tensor, Tensor, Tensor], forced: tuple[int, ...], banned: tuple[int, ...]
) -> None:
    ban_last, force_last = Choice(E, 2), Choice(E, 2)
    ban_last.force(forced)
    ban_last.ban(banned)
    force_last.ban(banned)
    force_last.force(forced)
    assert not among(ban_last.select(routing[0]), banned).any()
    assert set(force_last.select(routing[0])[0].tolist()) == set(forced)


@few
@given(routings())
def test_no_change_is_the_models_own_choice(routing: tuple[Tensor, Tensor, Tensor]) -> None:
    logits = torch.nan_to_num(routing[0], nan=0.0, posinf=9.0, neginf=-9.0)
    assert torch.equal(Choice(E, 2).select(logits), logits.topk(2).indices)


@few
@given(routings(), st.integers(0, E - 1), st.floats(0.5, 50))
def test_a_boost_never_lowers_an_experts_rank(routing: tuple[Tensor, Tensor, Tensor], expert: int, bias: float) -> None:
    logits = torch.nan_to_num(routing[0], nan=0.0, posinf=9.0, neginf=-9.0)
    boosted = Choice(E, 2)
    boosted.boost((expert,), bias)
    before, after = among(logits.topk(2).indices, (expert,)).any(-1), among(boosted.select(logits), (expert,)).any(-1)
    assert (after | ~before).all()


@few
@given(routings(), st.integers(0, 7))
def test_fit_widens_and_never_drops(routing: tuple[Tensor, Tensor, Tensor], slots: int) -> None:
    _, indices, weights = routing
    wide, gates = fit(indices, weights, slots)
    assert wide.shape == gates.shape == (indices.shape[0], max(2, slots))
    assert torch.equal(wide[:, :2], indices)
    assert torch.equal(gates[:, :2], weights)
    assert (gates[:, 2:] == 0).all()


@pytest.mark.parametrize("scoring", ["softmax", "softmax_top_k", "sigmoid", "sqrt_softplus"])
@pytest.mark.parametrize("normalised", [True, False])
def test_numeric_weights_follow_the_rule(scoring: str, normalised: bool) -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0, 0.0, 0.7, -0.4]], dtype=torch.float64)
    indices = torch.tensor([[2, 4, 0]])
    z = logits.numpy()
    scores = {
        "softmax": np.exp(z) / np.exp(z).sum(),
        "softmax_top_k": np.exp(z),
        "sigmoid": 1 / (1 + np.exp(-z)),
        "sqrt_softplus": np.sqrt(np.log1p(np.exp(z))),
    }[scoring][0, [2, 4, 0]]
    wanted = 2.5 * (scores / scores.sum() if normalised or scoring == "softmax_top_k" else scores)
    rule = site(scoring=scoring, normalised=normalised, scale=2.5)
    for as_routers in (False, True):
        found = numeric_weights(rule, logits, indices, torch.zeros(1, dtype=torch.float64), as_routers=as_routers)
        np.testing.assert_allclose(found.numpy()[0], wanted, rtol=1e-6)


def test_experts_that_all_are_shut_out_share_alike_when_forced() -> None:
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 0.0]])
    rule = site(scoring="softmax", normalised=True, scale=1.0)
    assert numeric_weights(rule, logits, torch.tensor([[0, 2]]), logits).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_no_number_brings_a_banned_expert_back(value: float) -> None:
    choice = Choice(num_experts=4, k=3)
    choice.boost((2,), 5.0)
    choice.ban((1,))
    assert set(choice.select(torch.tensor([[0.0, value, 1.0, value]]))[0].tolist()) == {0, 2, 3}
    assert set(choice.select(torch.full((1, 4), value))[0].tolist()) == {0, 2, 3}


@few
@given(routings(), st.integers(1, 5))
def test_kept_mass_keeps_the_mass(routing: tuple[Tensor, Tensor, Tensor], slots: int) -> None:
    weights = routing[2]
    kept = kept_mass(weights, slots)
    assert kept.shape[-1] == slots
    torch.testing.assert_close(kept.sum(-1), weights.sum(-1))


def test_kept_mass_of_a_token_without_mass_is_zero_and_finite() -> None:
    assert kept_mass(torch.zeros(2, 2), 1).tolist() == [[0.0], [0.0]]
    assert kept_mass(torch.tensor([[0.0, 0.8]]), 1).tolist() == [[pytest.approx(0.8)]]


@few
@given(routings(), experts, st.floats(0, 3))
def test_scaling_touches_only_its_experts(
    routing: tuple[Tensor, Tensor, Tensor], scaled: tuple[int, ...], factor: float
) -> None:
    _, indices, weights = routing
    same, changed = scale_experts(indices, weights, scaled, factor)
    hit = among(indices, scaled)
    assert same is indices
    assert torch.equal(changed[~hit], weights[~hit])
    torch.testing.assert_close(changed[hit], weights[hit] * factor)


@few
@given(routings(), st.integers(0, E - 1), st.integers(0, E - 1))
def test_swapping_twice_is_the_identity(routing: tuple[Tensor, Tensor, Tensor], a: int, b: int) -> None:
    _, indices, weights = routing
    once = swap_experts(indices, weights, a, b)
    assert torch.equal(swap_experts(*once, a, b)[0], indices)
    assert torch.equal(once[1], weights)
    if a != b:
        assert torch.equal(once[0] == a, indices == b)


@few
@given(routings())
def test_uniform_weights_keep_the_mass_and_the_empty_slots(routing: tuple[Tensor, Tensor, Tensor]) -> None:
    _, indices, weights = routing
    weights[0, 1] = 0.0
    _, even = uniform_weights(indices, weights)
    torch.testing.assert_close(even.sum(-1), weights.sum(-1))
    assert even[0, 1] == 0
    assert torch.allclose(even[1:, 0], even[1:, 1])


@few
@given(st.integers(0, 2**31), st.integers(0, 40), experts)
def test_random_experts_repeat_by_seed_and_respect_bans(seed: int, number: int, banned: tuple[int, ...]) -> None:
    indices, weights = torch.zeros(12, 2, dtype=torch.int64), torch.ones(12, 2)
    positions = torch.arange(12)
    shut = torch.zeros(1, E, dtype=torch.bool)
    shut[:, list(banned)] = True
    first, kept = random_experts(indices, weights, E, seed, number, positions, shut)
    again, _ = random_experts(indices, weights, E, seed, number, positions, shut)
    assert torch.equal(first, again)
    assert kept is weights
    assert not among(first, banned).any()
    # A token's experts do not depend on which other tokens are in the step: rewinding repeats them.
    alone, _ = random_experts(indices[5:6], weights[5:6], E, seed, number, positions[5:6], shut)
    assert torch.equal(first[5:6], alone)
    some = shut & (positions < 6).unsqueeze(-1)  # shut for these tokens alone
    mixed, _ = random_experts(indices, weights, E, seed, number, positions, some)
    free, _ = random_experts(indices, weights, E, seed, number, positions)
    assert torch.equal(mixed, torch.cat([first[:6], free[6:]]))


def test_noise_is_normal_and_uncorrelated_between_sites() -> None:
    positions = torch.arange(4000)
    a, b = normal(7, 0, positions, 8), normal(7, 1, positions, 8)
    assert abs(float(a.mean())) < 0.03
    assert abs(float(a.std()) - 1) < 0.03
    assert abs(float((a * b).mean())) < 0.03
    flat = uniform(7, 0, positions, 8)
    assert 0 < float(flat.min()) < 0.001 < 0.999 < float(flat.max()) < 1


def naive_capacity(indices: Tensor, weights: Tensor, factor: float, real: list[bool]) -> list[list[float]]:
    capacity = math.ceil(factor * sum(real) * indices.shape[1] / E)
    used = [0] * E
    out = weights.tolist()
    for slot in range(indices.shape[1]):
        for token in range(indices.shape[0]):
            if real[token] and out[token][slot] != 0:
                used[int(indices[token, slot])] += 1
                if used[int(indices[token, slot])] > capacity:
                    out[token][slot] = 0.0
    return out


@few
@given(routings(), st.floats(0.1, 2), st.data())
def test_capacity_drops_as_gshard_does(
    routing: tuple[Tensor, Tensor, Tensor], factor: float, data: st.DataObject
) -> None:
    _, indices, weights = routing
    real = data.draw(st.lists(st.booleans(), min_size=len(indices), max_size=len(indices)))
    _, found = limit_capacity(indices, weights, E, factor, torch.tensor(real))
    assert found.tolist() == naive_capacity(indices, weights, factor, real)
