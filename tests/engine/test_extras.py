"""Contributions of single experts, and attention: exact where they can be had, said where they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moetui.engine import Capture, CaptureOptions
from moetui.engine.zoo import build, buildable
from moetui.routing import Step
from moetui.routing.events import FindingRaised
from tests.engine.interception import hook_state, intercepted

IDS = torch.randint(5, 500, (2, 6), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_contributions_of_experts(zoo_model: Any) -> None:
    model = zoo_model("mixtral").model
    before = hook_state(model)
    bare = model(input_ids=IDS).logits
    kept: dict[str, Any] = {}
    steps: list[Step] = []
    with Capture(model, CaptureOptions(activations=True), on_step=steps.append) as capture:
        experts = capture.handles[1].experts
        look = experts.register_forward_hook(lambda _, args, output: kept.update(args=args, output=output))
        watched = model(input_ids=IDS).logits
        look.remove()
    assert torch.equal(bare, watched)
    assert hook_state(model) == before
    found = capture.extras.activations(1)
    assert found is not None
    hidden, indices, weights = kept["args"]
    norms: dict[int, list[float]] = {expert: [] for expert in range(8)}
    for token in range(len(hidden)):
        for slot in range(2):
            expert = int(indices[token, slot])
            gate, up = (hidden[token] @ experts.gate_up_proj[expert].T).chunk(2, -1)
            out = (torch.nn.functional.silu(gate) * up) @ experts.down_proj[expert].T
            norms[expert].append(float((out * weights[token, slot]).norm()))
    assert found.count.tolist() == [len(values) for values in norms.values()]
    for expert, values in norms.items():
        if values:
            assert found.mean[expert] == pytest.approx(np.mean(values), rel=1e-4)
            assert found.largest[expert] == pytest.approx(max(values), rel=1e-4)
        else:
            assert np.isnan(found.mean[expert])


@pytest.mark.parametrize("name", buildable())
@torch.no_grad()
def test_contributions_of_slots_add_up_to_what_the_experts_gave(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    with Capture(built.model, CaptureOptions(activations=True), on_step=lambda _: None) as capture:
        handles = [handle for handle in capture.handles if handle.site.kind == "indexed"]
        if not handles:
            pytest.skip("its experts are not called with indices")
        modules = [module for handle in handles for module in (handle.experts, handle.router)]
        with intercepted(modules) as seen:
            built.model(**built.inputs(1, 5))
    for handle in filter(seen.reached, handles):
        hidden, indices, weights, *others = seen.calls[id(handle.experts)]
        slots = torch.eye(weights.shape[1], dtype=weights.dtype)
        parts = [
            type(handle.experts).forward(handle.experts, hidden, indices, weights * slot, *others) for slot in slots
        ]
        torch.testing.assert_close(sum(parts), seen.outputs[id(handle.experts)], rtol=1e-4, atol=1e-4)
        if name == "inkling2_loop":
            continue  # a pass calls them several times: the last is seen, all are counted
        found = capture.extras.activations(handle.site.index)
        assert found is not None
        norms = torch.stack([part.reshape(len(indices), -1).norm(dim=-1) for part in parts], 1)
        norms = norms[weights != 0]
        chosen = indices[weights != 0]
        for expert in set(chosen.tolist()) & set(range(handle.site.num_experts)):
            mine = norms[chosen == expert]
            assert int(found.count[expert]) == len(mine)
            assert found.largest[expert] == pytest.approx(float(mine.max()), rel=1e-3)


@torch.no_grad()
def test_padding_contributes_nothing(zoo_model: Any) -> None:
    built = zoo_model("qwen3_moe")
    with Capture(built.model, CaptureOptions(activations=True), on_step=lambda _: None) as capture:
        built.model.generate(**built.inputs(2, 7, padding="left"), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert contributions(capture, 0) == (7 + 5 + 2 * 2) * capture.sites[0].top_k


@torch.no_grad()
def test_padding_among_a_modality_s_tokens_contributes_nothing(zoo_model: Any) -> None:
    built = zoo_model("ernie4_5_vl_moe")
    pictures = torch.tensor([[0, 0, 0, 1, 1, 0, 0]] * 2)
    with Capture(built.model, CaptureOptions(activations=True), on_step=lambda _: None) as capture:
        built.model(**built.inputs(2, 7, padding="left"), moe_mm_token_type_ids=pictures)
    text = next(site for site in capture.sites if "vision" not in site.name)
    assert contributions(capture, text.index) == (5 + 3) * text.top_k


def contributions(capture: Capture, site: int) -> int:
    found = capture.extras.activations(site)
    assert found is not None
    return int(found.count.sum())


@torch.no_grad()
def test_contributions_that_cannot_be_had_are_said(zoo_model: Any) -> None:
    events: list[Any] = []
    model = zoo_model("jetmoe").model
    with Capture(model, CaptureOptions(activations=True), on_step=lambda _: None, on_event=events.append) as capture:
        model(input_ids=IDS)
    assert capture.extras.activations(0) is None
    kinds = [event.finding.kind for event in events if isinstance(event, FindingRaised)]
    assert kinds.count("activations_unknown") == len(capture.sites)


@torch.no_grad()
def test_attention_of_the_last_token() -> None:
    model = build("mixtral").model
    model.set_attn_implementation("eager")
    steps: list[Step] = []
    with Capture(model, CaptureOptions(attention=True), on_step=steps.append) as capture:
        truth = model(input_ids=IDS, output_attentions=True).attentions
    found = capture.extras.attention(steps[0].index)
    assert found is not None
    assert sorted(found) == [0, 1, 2, 3]
    for layer, rows in found.items():
        np.testing.assert_allclose(rows, truth[layer][:, :, -1].mean(1).numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-4)
    assert capture.extras.attention(99) is None


@torch.no_grad()
def test_attention_that_is_not_formed_is_said_once() -> None:
    model = build("mixtral").model
    model.set_attn_implementation("sdpa")
    events: list[Any] = []
    with Capture(model, CaptureOptions(attention=True), on_step=lambda _: None, on_event=events.append):
        model(input_ids=IDS)
        model(input_ids=IDS)
    (finding,) = [event.finding for event in events if isinstance(event, FindingRaised)]
    assert finding.kind == "attention_unknown"
    assert "eager" in finding.suggestion
