"""Interventions on every architecture, seen from the experts: what they really got, and that the capture says so."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from moetui.engine.capture import Capture
from moetui.engine.interventions import plan
from moetui.engine.interventions.noise import normal
from moetui.engine.zoo import BuiltModel, buildable
from moetui.routing import Site, Step, UnsupportedError
from moetui.routing.events import Event, FindingRaised
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ExpertCapacity,
    ForceExperts,
    Intervention,
    RandomRouting,
    RouterNoise,
    RouterTemperature,
    ScaleExperts,
    SetTopK,
    SwapExperts,
    UniformRouting,
)
from tests.engine.conftest import ZooModel
from tests.engine.interception import Interception, captured, intercepted, routing, spread
from tests.releases import since_5_21

LENGTH = 9  # of the longer sequence; that of the canvas of a diffusion model is 8
Check: TypeAlias = "Callable[[Bench, Ran], None]"


class Choosing(TorchFunctionMode):
    """The last of a router's ``topk`` calls chooses otherwise."""

    def __init__(self, number: int = 0, choose: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.number, self.choose, self.calls = number, choose, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (torch.topk, Tensor.topk):
            return func(*args, **(kwargs or {}))
        self.calls += 1
        if self.choose is None or self.calls != self.number:
            return func(*args, **(kwargs or {}))
        scores = args[0]
        chosen = self.choose(scores.reshape(-1, scores.shape[-1])).reshape(*scores.shape[:-1], -1)
        return torch.return_types.topk((scores.gather(-1, chosen), chosen))


class Ran:
    """One pass: what the experts got, what was captured, and what the model made of it."""

    def __init__(self, bench: Bench, logits: Tensor) -> None:
        self.bench, self.logits, self.truth = bench, logits, bench.truth
        self.handles = [handle for handle in bench.capture.handles if bench.truth.reached(handle)]
        self.got = [bench.truth.dense(handle) for handle in self.handles]
        self.own = [bench.truth.own(handle) for handle in self.handles]
        self.slots = [bench.truth.slots(handle) for handle in self.handles]
        self.k = min(handle.site.top_k for handle in self.handles)
        self.last = min(handle.site.num_experts for handle in self.handles) - 1

    def each(self) -> Iterator[tuple[Any, Tensor, Tensor]]:
        """Site by site: its handle, what its experts got, and what its router had chosen for them."""
        return zip(self.handles, self.got, self.own)

    def again(self, handle: Any, choose: Callable[[Tensor], Tensor]) -> Tensor | None:
        """What the site's router gives the experts when it chooses so; None where that cannot be asked of it."""
        (args, kwargs), router = self.truth.given[id(handle.router)], handle.router

        def route(choosing: Choosing) -> Tensor:
            with choosing:
                output = type(router).forward(router, *args, **kwargs)
                if handle.site.kind == "dense":
                    return cast(Tensor, output[0])
                return spread(*routing(handle, output), handle.site.num_classes)

        if handle.site.kind == "product_key":
            return None
        counting = Choosing()
        rows = len(route(counting))
        if not counting.calls:
            return None
        try:
            found = route(Choosing(counting.calls, choose))
        except (RuntimeError, StopIteration):
            return None  # its code holds for its own number of slots
        return found if len(found) == rows else None


class Bench:
    """A small model under capture and under interception, run with and without interventions."""

    def __init__(self, built: BuiltModel, capture: Capture, truth: Interception, steps: list[Step]) -> None:
        self.built, self.capture, self.truth, self.steps = built, capture, truth, steps
        self.inputs = built.inputs(2, LENGTH, padding="left")
        self.refused: set[str] = set()

    def run(self, *interventions: Intervention, times: int = 1) -> Ran | None:
        """The last of some passes; None where they are refused."""
        try:
            made = plan(interventions, lambda: self.capture.handles)
        except UnsupportedError:
            self.refused.add(interventions[0].name)
            return None
        self.capture.set_functions(made.functions)
        for _ in range(times):
            self.truth.clear()
            self.steps.clear()
            logits = self.built.model(**self.inputs).logits
            self.capture.flush()
        self.capture.set_functions({})
        ran = Ran(self, logits)
        self.check_captured(ran)
        return ran

    def check_captured(self, ran: Ran) -> None:
        """What was captured is what the experts got."""
        by_stack = {step.stack: step for step in self.steps}
        for handle, got, _ in ran.each():
            site = handle.site
            shown = captured(by_stack[site.stack], site.index, got.shape[1])
            np.testing.assert_allclose(shown, got.float().numpy(), rtol=2e-3, atol=1e-4, err_msg=site.name)

    def positions(self) -> Tensor:
        """``[T]`` of the prompt's tokens, -1 for padding."""
        mask = self.inputs["attention_mask"]
        return (mask.cumsum(1) - 1).masked_fill(mask == 0, -1).reshape(-1)

    def real(self, rows: int) -> Tensor:
        """``[T]`` which of a site's tokens are no padding."""
        mask = self.inputs["attention_mask"].reshape(-1).bool()
        return mask if len(mask) == rows else torch.ones(rows, dtype=torch.bool)


@contextmanager
def bench_of(built: BuiltModel) -> Iterator[Bench]:
    steps: list[Step] = []
    events: list[Event] = []
    capture = Capture(built.model, on_step=steps.append, on_event=events.append)
    modules = [module for handle in capture.handles for module in (handle.experts, handle.router)]
    for handle in capture.handles:
        if handle.site.kind == "product_key":
            modules += [cast(nn.Module, handle.block.up_embed), cast(nn.Module, handle.block.down_embed)]
    with torch.no_grad(), capture, intercepted(modules) as truth:
        yield Bench(built, capture, truth, steps)
    broken = [event for event in events if isinstance(event, FindingRaised) and event.finding.severity == "error"]
    assert not broken, broken


def close(found: Tensor, wanted: Tensor, site: Site) -> None:
    torch.testing.assert_close(
        found, wanted.to(found.dtype), rtol=1e-4, atol=1e-6, msg=lambda text: f"{site.name}: {text}"
    )


def same_support(first: Tensor, second: Tensor) -> Tensor:
    """``[T]`` whether the same experts carry weight."""
    return ((first != 0) == (second != 0)).all(-1)


def among(width: int, experts: tuple[int, ...]) -> Tensor:
    return torch.isin(torch.arange(width), torch.tensor(experts))


def best(slots: int, scores: Tensor, change: Callable[[Tensor], Tensor] = lambda scores: scores) -> Tensor:
    return change(scores).topk(slots, -1).indices


def simple(site: Site) -> bool:
    """Whether every expert may be chosen with every other, and every choice has a weight."""
    return site.groups == 1 and not site.zero_experts


def check_pairs_of_keys(ran: Ran, temperature: float = 1.0) -> None:
    """An expert that is a pair of keys is weighed by their scores' sum, among those chosen."""
    for handle, got, _ in ran.each():
        if handle.site.kind == "product_key":
            rows, columns = ran.truth.outputs[id(handle.router)].reshape(2, len(got), -1) / temperature
            pairs = (rows[:, :, None] + columns[:, None]).flatten(1)
            close(got, pairs.masked_fill(got == 0, -torch.inf).softmax(-1), handle.site)


def noticed(ran: Ran | None, bare: Ran) -> Ran:
    assert ran is not None
    assert torch.isfinite(ran.logits).all()
    assert not torch.equal(ran.logits, bare.logits), "the model did not notice"
    return ran


def check_rule(ran: Ran, choose: Callable[[Tensor], Tensor], slots: int = 0) -> None:
    """The experts got what each site's own router gives when it chooses so; where it cannot: by its rule."""
    for handle, got, own in ran.each():
        site = handle.site
        if slots and (site.groups > 1 or site.top_k != slots):
            continue
        wanted = ran.again(handle, choose)
        if wanted is not None:
            # Its own code gives an expert outside of the chosen groups no weight.
            close(got, wanted if site.groups == 1 else torch.where(wanted != 0, wanted, got), site)
        elif site.scoring == "softmax" and not site.normalised:
            chances = cast(float, site.scale) * ran.truth.logits(handle).softmax(-1)
            close(got, torch.where(got != 0, chances[:, : got.shape[1]], 0.0), site)
        else:
            close(got.sum(-1), own.sum(-1), site)


def check_scores(ran: Ran, change: Callable[[Tensor], Tensor]) -> None:
    """The same where each site's router chooses by changed scores; groups that are shut out are not looked at."""
    for slots in {handle.site.top_k for handle in ran.handles}:
        check_rule(ran, partial(best, slots, change=change), slots)


def check_force(bench: Bench, bare: Ran) -> None:
    experts = tuple(range(bare.last + 1 - bare.k, bare.last + 1))
    for times in (1, 2):  # a second pass may take a short way that the first one found
        ran = noticed(bench.run(ForceExperts(experts), times=times), bare)
        for handle, got, _ in ran.each():
            forced = among(got.shape[1], experts)
            assert not (got[:, ~forced] != 0).any(), handle.site.name
            assert (got[:, forced] != 0).all(), handle.site.name
        check_rule(ran, lambda scores: torch.tensor(experts).expand(len(scores), -1))
        check_pairs_of_keys(ran)


def check_ban(bench: Bench, bare: Ran) -> None:
    experts = (0, 1)
    for times in (1, 2):
        ran = noticed(bench.run(BanExperts(experts), times=times), bare)
        for handle, got, _ in ran.each():
            site = handle.site
            assert not (got[:, list(experts)] != 0).any(), site.name
            assert (got != 0).any(-1).all() or site.zero_experts, site.name
            if simple(site):
                assert ((got != 0).sum(-1) == min(site.top_k, site.num_experts - len(experts))).all(), site.name

        check_scores(ran, lambda scores: scores.masked_fill(among(scores.shape[1], experts), -torch.inf))
        check_pairs_of_keys(ran)


def check_top_k(bench: Bench, bare: Ran) -> None:
    for slots in (bare.k - 1, bare.k + 1):
        ran = bench.run(SetTopK(slots)) if slots else None
        if ran is not None:
            noticed(ran, bare)
            for handle, got, _ in ran.each():
                if not handle.site.zero_experts:
                    assert ((got != 0).sum(-1) == slots).all(), handle.site.name
            check_rule(ran, partial(best, slots))


def check_boost(bench: Bench, bare: Ran) -> None:
    expert = bare.last
    ran = noticed(bench.run(BoostExperts((expert,), 100.0)), bare)
    for handle, got, _ in ran.each():
        assert (got[:, expert] != 0).all() or not simple(handle.site), handle.site.name
    check_scores(ran, lambda scores: scores + 100.0 * among(scores.shape[1], (expert,)))


def check_temperature(bench: Bench, bare: Ran) -> None:
    ran = noticed(bench.run(RouterTemperature(3.0)), bare)
    for handle, got, own in ran.each():
        mix = getattr(sys.modules[type(handle.router).__module__], "sparsemixer", None)
        if mix is None:
            assert not torch.equal(got, own), handle.site.name
        else:  # where the best expert stands out, it has a weight of 1 at any temperature
            mixed, chosen = mix(ran.truth.logits(handle) / 3.0, handle.router.router_jitter_noise, False)
            close(got, spread(chosen, mixed, got.shape[1]), handle.site)
        if simple(handle.site) and not handle.site.selection_bias:
            assert same_support(got, own).all(), handle.site.name
    check_softmax(ran, lambda _, logits: logits / 3.0)
    check_pairs_of_keys(ran, 3.0)


def check_noise(bench: Bench, bare: Ran) -> None:
    noise = RouterNoise(2.0, seed=3)
    ran = noticed(bench.run(noise), bare)
    for handle, got, own in ran.each():
        # Where a table of the tokens chooses, the logits weigh only.
        assert same_support(got, own).all() == ("token id" in handle.site.note), handle.site.name
    check_softmax(ran, lambda site, logits: logits + 2.0 * normal(3, site.index, bench.positions(), logits.shape[1]))
    assert torch.equal(cast(Ran, bench.run(noise)).logits, ran.logits)
    assert not torch.equal(cast(Ran, bench.run(RouterNoise(2.0, seed=4))).logits, ran.logits)


def check_softmax(ran: Ran, change: Callable[[Site, Tensor], Tensor]) -> None:
    """Where the softmax of the logits weighs, and they alone choose, the changed ones do."""
    for handle, got, _ in ran.each():
        site = handle.site
        plain = simple(site) and not site.selection_bias and site.logits_form in ("logits", "scaled", "soft_capped")
        if not plain or site.scoring not in ("softmax", "softmax_top_k") or len(got) != len(ran.bench.positions()):
            continue
        weights, indices = change(site, ran.truth.logits(handle).float()).softmax(-1).topk(site.top_k, -1)
        if site.normalised or site.scoring == "softmax_top_k":
            weights = weights / weights.sum(-1, keepdim=True)
        wanted = torch.zeros(got.shape).scatter(1, indices, cast(float, site.scale) * weights)
        close(got, wanted, site)


def check_scale_and_swap(bench: Bench, bare: Ran) -> None:
    most, other = (sum((own[:, :8] != 0).sum(0) for own in bare.own)).topk(2).indices.tolist()  # type: ignore[union-attr]
    ran = noticed(bench.run(ScaleExperts((most,), 0.0)), bare)
    for handle, got, own in ran.each():
        close(got, own.index_fill(1, torch.tensor([most]), 0.0), handle.site)
    assert torch.equal(cast(Ran, bench.run(ScaleExperts((most,), 1.0))).logits, bare.logits)
    ran = noticed(bench.run(SwapExperts(most, other)), bare)
    for handle, got, own in ran.each():
        order = list(range(own.shape[1]))
        order[most], order[other] = other, most
        close(got, own[:, order], handle.site)


def check_uniform_and_random(bench: Bench, bare: Ran) -> None:
    ran = cast(Ran, bench.run(UniformRouting()))
    for handle, got, own in ran.each():
        used = own != 0
        close(got, used * own.sum(-1, keepdim=True) / used.sum(-1, keepdim=True).clamp(min=1), handle.site)
    if any(handle.site.top_k > 1 for handle in bare.handles):
        noticed(ran, bare)
    ran = noticed(bench.run(RandomRouting(3)), bare)
    for handle, got, own in ran.each():
        close(got.sort(-1).values, own.sort(-1).values, handle.site)
        assert not same_support(got, own).all(), handle.site.name
    assert torch.equal(cast(Ran, bench.run(RandomRouting(3))).logits, ran.logits)
    assert not torch.equal(cast(Ran, bench.run(RandomRouting(4))).logits, ran.logits)


def check_capacity(bench: Bench, bare: Ran) -> None:
    """All first choices queue before all second ones, by token; not padding, and not what goes to no expert."""
    ran = noticed(bench.run(ExpertCapacity(0.5)), bare)
    for (handle, got, own), (indices, weights) in zip(ran.each(), ran.slots):
        real = bench.real(len(got))
        places = math.ceil(0.5 * int(real.sum()) * indices.shape[1] / handle.site.num_experts)
        wanted, taken = own.clone(), [0] * own.shape[1]
        for slot in range(indices.shape[1]):
            for token in real.nonzero().flatten().tolist():
                expert = int(indices[token, slot])
                if weights[token, slot] != 0 and expert < handle.site.num_experts:  # the others take any number
                    taken[expert] += 1
                    if taken[expert] > places:
                        wanted[token, expert] = 0
        close(got, wanted, handle.site)


CHECKS = (
    check_force,
    check_ban,
    check_top_k,
    check_boost,
    check_temperature,
    check_noise,
    check_scale_and_swap,
    check_uniform_and_random,
    check_capacity,
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=since_5_21 if n == "jamba" else ()) for n in buildable()])
def test_what_the_experts_got_is_what_was_asked_for(name: str, zoo_model: ZooModel) -> None:
    with bench_of(zoo_model(name)) as bench:
        bare = cast(Ran, bench.run())
        if name == "nllb_moe":
            for refused in (ForceExperts((0,)), ScaleExperts((0,), 0.0), UniformRouting(), ExpertCapacity(1.0)):
                assert bench.run(refused) is None
            return
        for handle, got, own in bare.each():
            close(got, own, handle.site)
        for check in CHECKS:
            check(bench, bare)
        stiff = any(handle.site.kind in ("parallel", "product_key", "mask") for handle in bare.handles)
        assert bench.refused == ({"top_k"} if stiff else set())
