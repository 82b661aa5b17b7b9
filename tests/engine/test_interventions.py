"""Interventions on every architecture: what was asked is what ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moetui.engine.capture import Capture
from moetui.engine.interventions import chooser, plan
from moetui.engine.zoo import BuiltModel, build, buildable
from moetui.routing import NO_EXPERT, Phase, Site, SiteFlag, Step, UnsupportedError, UsageError
from moetui.routing.events import Event, FindingRaised
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ExpertCapacity,
    ForceExperts,
    Intervention,
    RandomRouting,
    RouterTemperature,
    ScaleExperts,
    Scope,
    SetTopK,
    SwapExperts,
    UniformRouting,
)
from tests.engine.conftest import ZooModel

NAMES = buildable()


class Bench:
    """A small model under capture, run with and without interventions."""

    def __init__(self, built: BuiltModel, capture: Capture, steps: list[Step], events: list[Event]) -> None:
        self.built, self.capture, self._steps, self.events = built, capture, steps, events
        self.inputs = built.inputs(2, 7, 0)
        self.rules: dict[str, str] = {}

    @property
    def sites(self) -> Sequence[Site]:
        return self.capture.sites

    def run(self, *interventions: Intervention) -> tuple[Tensor, Step]:
        """The model's output and what ran, all stacks' tokens in the one with the most sites."""
        made = plan(interventions, lambda: self.capture.handles)
        self.rules = made.rules  # type: ignore[assignment]
        self.capture.set_functions(made.functions)
        self._steps.clear()
        with torch.no_grad():
            output = self.built.model(**self.inputs)
        self.capture.flush()
        self.capture.set_functions({})
        broken = [
            event for event in self.events if isinstance(event, FindingRaised) and event.finding.severity == "error"
        ]
        assert not broken, broken
        logits = getattr(output, "logits", None)
        return (logits if isinstance(logits, Tensor) else output[0]), max(self._steps, key=passed)


def passed(step: Step) -> int:
    return int((step.indices != NO_EXPERT).any((0, 2)).sum())


def chosen(step: Step, site: Site) -> list[set[int]]:
    """The experts that carried weight, token by token; padding left out."""
    indices = step.indices[~step.pad, site.index]
    assert step.weights is not None
    weights = step.weights[~step.pad, site.index]
    return [{int(e) for e, w in zip(row, gates) if e != NO_EXPERT and w != 0} for row, gates in zip(indices, weights)]


@pytest.fixture
def bench(request: pytest.FixtureRequest, zoo_model: ZooModel) -> Iterator[Bench]:
    built = zoo_model(request.param)
    steps: list[Step] = []
    events: list[Event] = []
    capture = Capture(built.model, on_step=steps.append, on_event=events.append)
    with capture:
        yield Bench(built, capture, steps, events)
    capture.close()


def refuses(bench: Bench, intervention: Intervention) -> bool:
    try:
        plan([intervention], lambda: bench.capture.handles)
    except UnsupportedError:
        return True
    return False


def main_sites(bench: Bench, step: Step) -> list[Site]:
    return [site for site in bench.sites if (step.indices[:, site.index] != NO_EXPERT).any()]


@pytest.mark.parametrize("bench", NAMES, indirect=True)
def test_forced_banned_and_fewer_experts_are_what_ran(bench: Bench) -> None:
    before, _ = bench.run()
    k, count = min(s.top_k for s in bench.sites), min(s.num_experts for s in bench.sites)
    force = ForceExperts(tuple(range(count - k, count)))
    if refuses(bench, force):
        assert bench.built.name == "nllb_moe"
        return
    output, step = bench.run(force)
    assert torch.isfinite(output).all()
    assert not torch.equal(output, before)
    for site in main_sites(bench, step):
        assert all(experts <= set(force.experts) for experts in chosen(step, site)), site.name
        assert any(chosen(step, site)), site.name
        assert (step.flags[:, site.index] & SiteFlag.FORCED).any()
    ban = BanExperts((0, 1))
    output, step = bench.run(ban)
    assert not torch.equal(output, before)
    for site in main_sites(bench, step):
        assert all(not experts & {0, 1} for experts in chosen(step, site)), site.name
        assert sum(len(experts) for experts in chosen(step, site)) > 0, site.name
    fewer = SetTopK(k - 1)
    if k > 1 and not refuses(bench, fewer):
        output, step = bench.run(fewer)
        assert not torch.equal(output, before)
        for site in main_sites(bench, step):
            assert max(len(experts) for experts in chosen(step, site)) <= max(k - 1, site.top_k - 1), site.name


@pytest.mark.parametrize("bench", NAMES, indirect=True)
def test_more_experts_run_where_they_can(bench: Bench) -> None:
    more = SetTopK(max(s.top_k for s in bench.sites) + 1)
    if refuses(bench, more):
        assert {site.kind for site in bench.sites} <= {"parallel", "product_key", "mask"}
        return
    output, step = bench.run(more)
    assert torch.isfinite(output).all()
    for site in main_sites(bench, step):
        most = max(len(experts) for experts in chosen(step, site))
        assert most == more.k or site.zero_experts, site.name


@pytest.mark.parametrize("bench", NAMES, indirect=True)
def test_an_intervention_that_changes_nothing_changes_no_bit(bench: Bench) -> None:
    before, untouched = bench.run()
    identity = ScaleExperts((0,), 1.0)
    if refuses(bench, identity):
        assert bench.built.name == "nllb_moe"
        return
    output, step = bench.run(identity, SwapExperts(0, 1), SwapExperts(0, 1))
    assert torch.equal(output, before)
    np.testing.assert_array_equal(step.indices, untouched.indices)


@pytest.mark.parametrize("bench", NAMES, indirect=True)
def test_running_the_router_again_without_a_change_gives_its_own_weights(bench: Bench) -> None:
    # The proof that the way weights are found again is the model's own: asking for the k it has anyway.
    ks = {site.top_k for site in bench.sites}
    same = SetTopK(ks.pop())
    if ks or refuses(bench, same):
        pytest.skip("sites with different k, or refused: covered by the other tests")
    _, untouched = bench.run()
    _, step = bench.run(same)
    for site in main_sites(bench, step):
        if bench.rules.get(site.name) != "reroute":
            break  # what follows sees other hidden states
        assert chosen(step, site) == chosen(untouched, site), site.name
        assert step.weights is not None
        assert untouched.weights is not None
        np.testing.assert_array_equal(
            np.sort(step.weights[:, site.index], -1), np.sort(untouched.weights[:, site.index], -1), site.name
        )


BAN = (BanExperts((1,)),)


@pytest.mark.parametrize(
    ("name", "interventions", "rule"),
    [
        ("mixtral", BAN, "numeric"),
        ("mixtral", (*BAN, RouterTemperature(0.7), SetTopK(1)), "numeric"),
        ("mixtral", (*BAN, BoostExperts((2,), 1e-6)), "reroute"),  # which counts where the router ranks, not before
        ("deepseek_v3", BAN, "reroute"),
    ],
)
def test_a_run_is_the_same_whether_the_quick_way_is_taken_or_not(
    name: str, interventions: tuple[Intervention, ...], rule: str, zoo_model: ZooModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the logits were seen to give what the router gives, it is not run again; a selection bias forbids that."""
    built = zoo_model(name)
    runs, rules = [], []
    for proof in (16, 10**9):
        monkeypatch.setattr(chooser, "_PROOF", proof)
        steps: list[Step] = []
        with Capture(built.model, on_step=steps.append) as capture, torch.no_grad():
            built.model(**built.inputs(2, 7, 0))
            capture.flush()
            made = plan(interventions, lambda: capture.handles)
            capture.set_functions(made.functions)
            tokens = built.model.generate(**built.inputs(2, 7, 0), max_new_tokens=16, do_sample=False)
        rules.append(set(made.rules.values()))
        runs.append((tokens, steps))
    assert rules == [{rule}, {"reroute"}]
    assert torch.equal(runs[0][0], runs[1][0])
    for quick, slow in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_array_equal(quick.indices, slow.indices)
        np.testing.assert_array_equal(quick.weights, slow.weights)


MIXTRAL = pytest.mark.parametrize("bench", ["mixtral"], indirect=True)


@MIXTRAL
def test_scopes_hold_by_layer_position_and_phase(bench: Bench) -> None:
    _, untouched = bench.run()
    layers = ForceExperts((5, 6), Scope(layers=(1,)))
    _, step = bench.run(layers)
    np.testing.assert_array_equal(step.indices[:, 0], untouched.indices[:, 0])
    assert all(experts == {5, 6} for experts in chosen(step, bench.sites[1]))
    _, step = bench.run(ForceExperts((5, 6), Scope(sites=("L0",), positions=(2, 4))))
    inside = (step.position >= 2) & (step.position < 4)
    assert (np.sort(step.indices[inside, 0, :2], -1) == [5, 6]).all()
    np.testing.assert_array_equal(step.indices[~inside, 0, :2], untouched.indices[~inside, 0])
    _, step = bench.run(ForceExperts((5, 6), Scope(phase=Phase.DECODE)))
    np.testing.assert_array_equal(step.indices, untouched.indices)


@pytest.mark.parametrize("bench", ["mixtral", "llama4", "dbrx"], indirect=True)
def test_tokens_beside_those_that_get_more_experts_are_as_they_were(bench: Bench) -> None:
    _, untouched = bench.run()
    k = untouched.indices.shape[2]
    name = bench.sites[0].name
    for intervention in (
        SetTopK(k + 1, Scope(sites=(name,), positions=(2, 4))),
        ForceExperts(tuple(range(k + 2)), Scope(sites=(name,), positions=(2, 4))),
    ):
        _, step = bench.run(intervention)
        inside = (step.position >= 2) & (step.position < 4)
        np.testing.assert_array_equal(step.flags[:, 0] & SiteFlag.FORCED > 0, inside)
        assert step.weights is not None
        assert (step.indices[inside, 0, k] != NO_EXPERT).all()
        np.testing.assert_array_equal(step.indices[~inside, 0, :k], untouched.indices[~inside, 0])
        assert (step.indices[~inside, 0, k:] == NO_EXPERT).all()
        assert np.isnan(step.weights[~inside, 0, k:]).all()


@MIXTRAL
def test_choices_with_different_positions_do_not_disturb_each_other(bench: Bench) -> None:
    first, rest = Scope(sites=("L0",), positions=(0, 3)), Scope(sites=("L0",), positions=(2, None))
    _, step = bench.run(BanExperts((0, 1, 2), first), BanExperts((3, 4), rest))
    for row in range(step.num_tokens):
        used = {int(e) for e in step.indices[row, 0] if e != NO_EXPERT}
        position = int(step.position[row])
        assert not (position < 3 and used & {0, 1, 2})
        assert not (position >= 2 and used & {3, 4})


@MIXTRAL
def test_a_temperature_flattens_the_weights_and_keeps_the_experts(bench: Bench) -> None:
    _, untouched = bench.run()
    _, step = bench.run(RouterTemperature(4.0))
    assert chosen(step, bench.sites[0]) == chosen(untouched, bench.sites[0])
    assert step.weights is not None
    assert untouched.weights is not None
    assert step.weights[:, 0].max(-1).mean() < untouched.weights[:, 0].max(-1).mean()


@MIXTRAL
def test_what_a_capacity_drops_is_shown_as_dropped(bench: Bench) -> None:
    _, step = bench.run(ExpertCapacity(0.25))
    assert step.weights is not None
    none = ~np.array([bool(experts) for experts in chosen(step, bench.sites[0])])
    assert none.any()
    np.testing.assert_array_equal((step.flags[~step.pad, 0] & SiteFlag.DROPPED) > 0, none)


@MIXTRAL
def test_a_silenced_slot_is_empty_and_counts_as_no_load(bench: Bench) -> None:
    _, step = bench.run(SetTopK(1))
    real = ~step.pad
    assert ((step.indices[real] != NO_EXPERT).sum(-1) == 1).all()
    assert step.weights is not None
    assert np.isnan(step.weights[real][step.indices[real] == NO_EXPERT]).all()
    assert not (step.flags[real] & (SiteFlag.NON_FINITE | SiteFlag.DROPPED)).any()
    _, step = bench.run(ScaleExperts((3,), 0.0))
    assert not (step.indices == 3).any()


@MIXTRAL
def test_random_routing_repeats_by_its_seed(bench: Bench) -> None:
    one, _ = bench.run(RandomRouting(3))
    two, _ = bench.run(RandomRouting(3))
    other, _ = bench.run(RandomRouting(4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@MIXTRAL
@pytest.mark.parametrize(
    ("intervention", "words"),
    [
        (ForceExperts((99,)), "no expert 99"),
        (ForceExperts(()), "at least one"),
        (BanExperts(tuple(range(8))), "bans every expert"),
        (SetTopK(0), "between 1 and"),
        (SetTopK(99), "between 1 and"),
        (RouterTemperature(0.0), "above 0"),
        (ExpertCapacity(float("nan")), "above 0"),
        (ScaleExperts((0,), float("inf")), "finite"),
        (BanExperts((0,), Scope(layers=(99,))), "layer 99"),
        (BanExperts((0,), Scope(sites=("L99",))), "L99"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(bench: Bench, intervention: Intervention, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan([intervention], lambda: bench.capture.handles)


@contextmanager
def gradients(model: nn.Module) -> Iterator[None]:
    model.train()
    try:
        yield
    finally:
        model.eval()
        model.zero_grad(set_to_none=True)


@MIXTRAL
def test_gradients_flow_through_a_changed_routing(bench: Bench) -> None:
    made = plan([BanExperts((0,))], lambda: bench.capture.handles)
    bench.capture.set_functions(made.functions)
    with gradients(bench.built.model):
        bench.built.model(**bench.inputs).logits.square().mean().backward()
        router = bench.capture.handles[0].router
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in router.parameters())


@torch.no_grad()
def test_a_pair_of_keys_without_weight_stays_without() -> None:
    model = build("doge").model  # one of its own, as its gate is changed
    for layer in model.model.layers:
        layer.mlp.router_gate.weight.mul_(1e4)
    inputs = {"input_ids": torch.arange(5, 12)[None]}
    steps: list[Step] = []
    with Capture(model, on_step=steps.append) as capture:
        model(**inputs)
        capture.flush()
        assert steps[0].weights is not None
        assert (steps[0].weights == 0).any(), "some weight is too small for a number"
        for intervention in (ScaleExperts(tuple(range(4)), 0.0), UniformRouting()):
            capture.set_functions(plan([intervention], lambda: capture.handles).functions)
            assert torch.isfinite(model(**inputs).logits).all()
