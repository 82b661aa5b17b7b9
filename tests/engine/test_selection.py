"""What decides a choice is found from what was chosen; the margins are then those of the choice itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from moetui.engine import Capture, find_sites
from moetui.engine.adapters import SiteHandle
from moetui.engine.interventions import plan
from moetui.engine.selection import ENOUGH_TOKENS, find_selection
from moetui.engine.zoo import BuiltModel, buildable
from moetui.routing import Selection, Site, Step
from moetui.routing.interventions import ForceExperts
from moetui.routing.metrics import margins, router_margin, selection_scores, site_margin
from tests.engine.conftest import ZooModel
from tests.routing.routing_cases import make_site

# By the library's source; of what is not named here, a sigmoid, and groups by the sum of their two best.
SOFTMAX = {"ernie4_5_moe", "ernie4_5_vl_moe", "longcat_flash", "zaya", "deepseek_v2", "mistral4", "mistral_large4"}
UNKNOWN = {"doge", "nllb_moe"}  # product keys; runs two experts whatever the router says
BIASES = ("e_score_correction_bias", "expert_bias", "balancing_biases")


def own_bias(handle: SiteHandle) -> Tensor:
    """The one tensor of that name in the site's modules, however they nest."""
    named = {**dict(handle.block.named_parameters()), **dict(handle.block.named_buffers())}
    inside = {**dict(handle.router.named_parameters()), **dict(handle.router.named_buffers())}
    for tensors in (inside, named):
        for name, tensor in tensors.items():
            if name.rpartition(".")[2] in BIASES:
                return tensor.reshape(-1)
    return torch.zeros(handle.site.num_classes)


@pytest.fixture
def biased(zoo_model: ZooModel) -> Iterator[Any]:
    """A small model with random biases, put back behind the test."""
    kept: list[tuple[Tensor, Tensor]] = []

    def get(name: str) -> BuiltModel:
        built = zoo_model(name)
        generator = torch.Generator().manual_seed(4)
        for handle in find_sites(built.model):
            bias = own_bias(handle)
            kept.append((bias, bias.detach().clone()))
            bias.data.copy_(0.2 * torch.randn(bias.shape, generator=generator))
        return built

    yield get
    for bias, before in kept:
        bias.data.copy_(before)


def own_choice(name: str, site: Site, row: Tensor, bias: Tensor, eligible: int) -> tuple[set[int], float]:
    """Experts and margin of one token, worked out anew."""
    if name == "deepseek_v4":
        scores = functional.softplus(row).sqrt()
    else:
        scores = row if name == "kolibri1" else row.softmax(-1) if name in SOFTMAX else torch.sigmoid(row)
    scores = scores + bias
    if site.groups > 1:
        size = len(scores) // site.groups
        groups = [
            scores[size * group : size * (group + 1)].sort(descending=True).values for group in range(site.groups)
        ]
        worth = [float(group[0]) if name == "deepseek_v2" else float(group[:2].sum()) for group in groups]
        best = sorted(range(site.groups), key=lambda group: -worth[group])[:eligible]
        left = [expert for expert in range(len(scores)) if expert // size not in best]
        scores = scores.index_fill(0, torch.tensor(left), -torch.inf)
    ranked = scores.sort(descending=True)
    gap = float(ranked.values[site.top_k - 1] - ranked.values[site.top_k])
    return set(ranked.indices[: site.top_k].tolist()), gap


def watched(built: BuiltModel, *calls: dict[str, Tensor]) -> tuple[list[Step], Capture]:
    steps: list[Step] = []
    with Capture(built.model, on_step=steps.append) as capture, torch.no_grad():
        for inputs in calls:
            built.model(**inputs)
    return steps, capture


@pytest.mark.parametrize("name", buildable())
def test_every_architecture_s_margins(name: str, biased: Any) -> None:
    built = biased(name)
    outputs: dict[int, Any] = {}
    handles = find_sites(built.model)
    for handle in handles:
        handle.router.register_forward_hook(
            lambda _, __, output, number=handle.site.index: outputs.update({number: output})
        )
    try:
        steps, capture = watched(built, built.inputs(1, 90))
    finally:
        for handle in handles:
            handle.router._forward_hooks.clear()
    step = steps[-1]
    found = site_margin(step.logits, capture.sites, len(step.indices))
    for handle, site in zip(handles, capture.sites):
        margin = found[:, site.index]
        if not any((one.indices[:, site.index] != 65535).any() for one in steps):
            assert site.selection is None, "it was not called"
        elif name in UNKNOWN or "looked up by token id" in site.note:
            assert site.selection == Selection()
            assert np.isnan(margin).all()
        elif not site.selection_bias and site.groups == 1:
            assert site.selection is None
            if step.stack == site.stack and step.logits is not None:
                own = step.logits[:, site.index, : site.num_classes]
                np.testing.assert_array_equal(margin, margins(own, site.top_k))
        elif site.selection is None:
            assert np.isnan(margin).all(), "two rules fit so far"
        else:
            assert site.selection.scoring != "unknown"
            check_choices(name, handle, site, outputs[site.index], step, margin)
    if any(site.selection_bias or site.groups > 1 for site in capture.sites):
        assert any(site.selection is not None for site in capture.sites)


def check_choices(name: str, handle: SiteHandle, site: Site, output: Any, step: Step, margin: Any) -> None:
    """Of every token: what ran is the top-k of the scores, and the margin their gap; of a half float's logits, too."""
    bias = own_bias(handle).detach()
    eligible = getattr(handle.router, "topk_group", None) or getattr(handle.block, "topk_group", 0)
    whole = handle.adapter.logits(handle, output).detach()[:, : site.num_classes]
    assert len(whole) == len(step.indices) == 90
    exact = router_margin(whole.numpy(), site)
    for row in range(len(whole)):
        chosen, gap = own_choice(name, site, whole[row].float(), bias, eligible)
        assert chosen == set(step.indices[row, site.index].tolist()), (name, site.name, row)
        assert exact[row] == pytest.approx(gap, abs=2e-6), (name, site.name, row)
        assert gap >= 0
        half = torch.from_numpy(np.array(step.logits[row, site.index, : site.num_classes], np.float32))  # type: ignore[index]
        assert margin[row] == pytest.approx(own_choice(name, site, half, bias, eligible)[1], abs=2e-6)


def test_margins_of_the_choice_are_not_those_of_the_logits(biased: Any) -> None:
    """Else the test above would not notice which are taken."""
    built = biased("deepseek_v3")
    (step,), capture = watched(built, built.inputs(1, 90))
    assert step.logits is not None
    plain = margins(step.logits, 2)
    assert (np.abs(site_margin(step.logits, capture.sites) - plain) > 0.01).mean() > 0.9


def test_as_long_as_rules_are_not_told_apart_there_is_no_margin(zoo_model: ZooModel) -> None:
    built = zoo_model("deepseek_v3")
    (step,), capture = watched(built, built.inputs(1, 2))
    assert all(site.selection is None for site in capture.sites)
    assert step.scores is not None
    assert np.isnan(step.scores.margin).all()
    steps, capture = watched(built, *(built.inputs(1, 2, seed) for seed in range(64)))
    assert {site.selection.group_score for site in capture.sites if site.selection} == {"top2"}
    assert not np.isnan(steps[-1].scores.margin).any()  # type: ignore[union-attr]


def test_what_a_function_chose_is_no_choice_of_the_router_s(biased: Any) -> None:
    built = biased("deepseek_v3")
    free = watched(built, built.inputs(1, 90))[1].sites
    with Capture(built.model, on_step=lambda _: None) as capture, torch.no_grad():
        capture.set_functions(plan((ForceExperts((0, 3)),), lambda: capture.handles).functions)
        built.model(**built.inputs(1, 90))
    assert [site.selection for site in capture.sites] == [site.selection for site in free]
    assert all(site.selection and site.selection.scoring == "sigmoid" for site in free)


def test_a_bias_that_was_moved_between_two_recordings_is_read_again(biased: Any) -> None:
    built = biased("minimax_m2")
    capture = Capture(built.model, on_step=lambda _: None)
    handle = find_sites(built.model)[1]
    found = []
    for _ in range(2):
        with capture, torch.no_grad():
            built.model(**built.inputs(1, 90))
            capture.flush()
        found.append(capture.sites[1].selection)
        assert found[-1] is not None
        assert found[-1].bias == pytest.approx(own_bias(handle).tolist())
        own_bias(handle).data.neg_()
    assert found[0] != found[1]


# -- from numbers alone ---------------------------------------------------------------------------------------------


def chosen_by(scores: Tensor, k: int = 2) -> Tensor:
    return scores.topk(k, -1).indices


LOGITS = 2 * torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
BIAS = 0.3 * torch.randn(8, generator=torch.Generator().manual_seed(2))
PLAIN = make_site(experts=8)
BIASED = replace(PLAIN, selection_bias=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("space", ["sigmoid", "identity"])
def test_the_space_of_a_bias_is_found(space: str, dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype)
    scores = logits if space == "identity" else logits.sigmoid()  # in their own precision: some are equal
    found = find_selection(BIASED, "sigmoid", logits, chosen_by(scores + BIAS), BIAS, 1)
    assert found is not None
    assert found.selection == Selection(space, tuple(BIAS.tolist()))  # type: ignore[arg-type]
    assert find_selection(BIASED, "unknown", logits, chosen_by(scores + BIAS), BIAS, 1) == found


def test_a_bias_that_moves_nothing_is_one_of_the_scores_that_weigh() -> None:
    found = find_selection(BIASED, "sigmoid", LOGITS[:9], chosen_by(LOGITS[:9]), torch.zeros(8), 1)
    assert found is not None
    assert found.selection == Selection("sigmoid", (0.0,) * 8)


def test_how_groups_are_scored_is_found_or_stays_unknown() -> None:
    grouped = replace(PLAIN, groups=2)
    for score in ("max", "top2"):
        rule = Selection("softmax", None, 2, 1, score)
        scores, left_out = selection_scores(LOGITS.numpy(), replace(grouped, selection=rule))
        indices = chosen_by(torch.from_numpy(np.where(left_out, -1, scores)))
        found = find_selection(grouped, "softmax", LOGITS, indices, None, 1)
        assert found == replace(grouped, selection=rule)
    clear = LOGITS + torch.tensor([9.0] * 4 + [0.0] * 4)  # of the first group all, by either rule
    few, many = clear, clear.repeat(ENOUGH_TOKENS // 200 + 1, 1)
    assert find_selection(grouped, "softmax", few, chosen_by(few), None, 1) is None
    assert find_selection(grouped, "softmax", many, chosen_by(many), None, 1) == replace(grouped, selection=Selection())


def test_what_is_not_reproduced_is_unknown() -> None:
    by_chance = chosen_by(torch.rand(200, 8, generator=torch.Generator().manual_seed(3)))
    for site in (PLAIN, BIASED, replace(PLAIN, groups=4)):
        assert find_selection(site, "sigmoid", LOGITS, by_chance, BIAS, 2) == replace(site, selection=Selection())
    unread = find_selection(BIASED, "sigmoid", LOGITS, chosen_by(LOGITS.sigmoid() + BIAS), None, 1)
    assert unread == replace(BIASED, selection=Selection())


def test_few_tokens_tell_nothing_and_one_in_fifty_may_differ() -> None:
    indices = chosen_by(LOGITS.sigmoid() + BIAS)
    assert find_selection(BIASED, "sigmoid", LOGITS[:2], indices[:2], BIAS, 1) is None
    assert find_selection(PLAIN, "sigmoid", LOGITS[:2], indices[:2], None, 1) is None
    odd = indices.clone()
    odd[:4] = chosen_by(-LOGITS[:4].sigmoid() - BIAS)
    assert find_selection(BIASED, "sigmoid", LOGITS, odd, BIAS, 1) == find_selection(
        BIASED, "sigmoid", LOGITS, indices, BIAS, 1
    )
    odd[:8] = chosen_by(-LOGITS[:8].sigmoid() - BIAS)
    assert find_selection(BIASED, "sigmoid", LOGITS, odd, BIAS, 1) == replace(BIASED, selection=Selection())


def test_a_plain_choice_stays_plain() -> None:
    assert find_selection(PLAIN, "softmax", LOGITS, chosen_by(LOGITS), None, 1) == PLAIN
    saturated = 8 * LOGITS.bfloat16()  # where a sigmoid's half precision has many equal
    assert find_selection(PLAIN, "sigmoid", saturated, chosen_by(saturated.sigmoid()), None, 1) == PLAIN
    everything = torch.arange(8).expand(200, 8)
    assert find_selection(PLAIN, "softmax", LOGITS, everything, None, 1) == PLAIN
