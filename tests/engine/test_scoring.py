"""Scoring rules and the form of logits, found from numbers alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from moetui.engine import Capture
from moetui.engine.scoring import Rule, find_form, find_rule
from moetui.engine.zoo import buildable

SCORES = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "sqrt_softplus": lambda logits: functional.softplus(logits).sqrt(),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def routed(scoring: str, dtype: torch.dtype, *, normalised: bool, scale: float, k: int = 2, tokens: int = 24) -> Any:
    logits = (2 * torch.randn(tokens, 8, generator=torch.Generator().manual_seed(1))).to(dtype)
    scores = SCORES[scoring](logits.float())
    weights, indices = scores.topk(k, -1)
    if normalised:
        weights = weights / weights.sum(-1, keepdim=True)
    return logits, indices, (scale * weights).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("scoring", SCORES)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_rules_are_found(scoring: str, normalised: bool, scale: float, dtype: torch.dtype) -> None:
    rule = find_rule(*routed(scoring, dtype, normalised=normalised, scale=scale))
    assert rule is not None
    assert (rule.scoring, rule.normalised) == (scoring, normalised)
    assert rule.scale == scale


def test_a_single_slot_that_is_normalised_tells_no_rule() -> None:
    assert find_rule(*routed("softmax", torch.float32, normalised=True, scale=1.0, k=1)) in (None, Rule())


def test_weights_of_no_rule_stay_unknown() -> None:
    logits, indices, weights = routed("softmax", torch.float32, normalised=False, scale=1.0)
    assert find_rule(logits, indices, torch.rand_like(weights)) == Rule()


def test_too_few_tokens_prove_nothing() -> None:
    logits, indices, weights = routed("softmax", torch.float32, normalised=True, scale=1.0)
    assert find_rule(logits[:2], indices[:2], weights[:2]) is None


def test_logits_too_alike_prove_nothing() -> None:
    logits = 1e-6 * torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
    weights, indices = logits.softmax(-1).topk(2, -1)
    assert find_rule(logits, indices, weights / weights.sum(-1, keepdim=True)) is None


def test_empty_slots_and_broken_rows_do_not_count() -> None:
    logits, indices, weights = routed("sigmoid", torch.float32, normalised=False, scale=1.0)
    indices[0], weights[1], logits[2] = -1, 0.0, torch.nan
    assert find_rule(logits, indices, weights) == Rule("sigmoid", False, 1.0)


def test_factors_on_experts_are_taken_off() -> None:
    logits, indices, weights = routed("softmax", torch.float32, normalised=True, scale=1.0)
    factors = torch.linspace(0.5, 2.0, 8)
    assert find_rule(logits, indices, weights * factors[indices], factors) == Rule("softmax", True, 1.0)
    assert find_rule(logits, indices, weights * factors[indices]) == Rule()


def test_shares_of_a_mass_that_depends_on_more() -> None:
    logits, indices, weights = routed("sigmoid", torch.float32, normalised=True, scale=1.0)
    mass = 0.5 + torch.rand(len(weights), 1, generator=torch.Generator().manual_seed(3))
    assert find_rule(logits, indices, weights * mass) == Rule("sigmoid", None, None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forms_of_logits(dtype: torch.dtype) -> None:
    raw = (3 * torch.randn(16, 8, generator=torch.Generator().manual_seed(5))).to(dtype)
    capped = (4 * torch.tanh(raw.float() / 4)).to(dtype)
    cases = {"logits": raw, "scaled": raw * 0.25, "soft_capped": capped, "probabilities": raw.softmax(-1)}
    for form, values in cases.items():
        assert find_form(values, raw) == form
    assert find_form(raw.abs().sqrt(), raw) == "unknown"
    assert find_form(raw, None) == "unknown"


# As the source of the installed transformers says; what is not named follows the rule named for most.
UNKNOWN = {"phimoe", "doge", "nllb_moe"}
SIGMOID = {
    "afmoe", "axk1", "axk2", "bailing_hybrid", "beam", "deepseek_v3", "deepseek_v32", "dots1", "dots3_note",
    "exaone_moe", "flint", "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm5_next", "glm_moe_dsa", "hy_v3", "hy_v4",
    "hy_v4_vl", "inkling", "inkling2", "inkling2_loop", "kimi_k25", "kimi_linear", "kolibri1", "laguna", "lfm2_moe",
    "llama4", "mimo_v2_flash", "minimax_m2", "minimax_m3_vl", "muse_spark", "nemotron3_5_transcribe", "nemotron_h",
    "nemotron_h_omni", "sarvam_mla", "sarvam_moe", "solar_open", "step3p7",
}  # fmt: skip


@pytest.mark.parametrize("name", buildable())
@torch.no_grad()
def test_every_architecture_s_rule(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    events: list[Any] = []
    with Capture(built.model, on_step=lambda _: None, on_event=events.append) as capture:
        built.model(**built.inputs(1, 12))
    sites = [site for site in capture.sites if "vision" not in site.name]
    expected = "unknown" if name in UNKNOWN else "sigmoid" if name in SIGMOID else "softmax"
    if name == "deepseek_v4":
        expected = "sqrt_softplus"
    assert {site.scoring for site in sites} == {expected}
    own_factors = name in ("gemma4", "diffusion_gemma")  # of each expert: no constant tells them
    if name not in UNKNOWN | {"inkling"}:
        assert all(site.normalised is not None and (site.scale is None) == own_factors for site in sites)
    probabilities = own_factors
    forms = {site.logits_form for site in sites}
    assert forms <= ({"probabilities"} if probabilities else {"logits", "scaled", "soft_capped", "unknown"})
    if not probabilities and name != "doge":
        assert "unknown" not in forms
    assert not any(module._forward_hooks for handle in capture.handles for module in handle.router.modules())
