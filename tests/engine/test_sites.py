"""Every router is found by structure, named for its place, and described as its configuration says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from moetui.engine import Capture, describe, find_sites
from moetui.engine.zoo import buildable
from moetui.routing import Site

KINDS = {
    "llama4": "dense", "jetmoe": "parallel", "switch_transformers": "mask", "nllb_moe": "mask", "doge": "product_key",
}  # fmt: skip
EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
SLOTS = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")
# By the table of the library's source: which routers choose with a bias, which only among some groups.
GROUPED = {
    "axk1", "bailing_hybrid", "beam", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "dots3_note",
    "exaone_moe", "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm5_next", "glm_moe_dsa", "hy_v4", "hy_v4_vl",
    "kimi_k25", "kimi_linear", "mimo_v2_flash", "mistral4", "mistral_large4", "nemotron3_5_transcribe",
    "nemotron_h", "nemotron_h_omni", "sarvam_mla", "sarvam_moe", "solar_open",
}  # fmt: skip
SHARED = {
    "afmoe", "aria", "axk1", "axk2", "bailing_hybrid", "cohere2_moe", "deepseek_ocr2", "deepseek_v2", "deepseek_v3",
    "deepseek_v32", "deepseek_v4", "dots1", "dots3_note", "ernie4_5_moe", "ernie4_5_vl_moe", "exaone_moe", "flint",
    "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm5_next", "glm_moe_dsa", "granitemoe_swa", "granitemoehybrid",
    "granitemoeshared", "hunyuan_v1_moe", "hy_v3", "hy_v4", "hy_v4_vl", "inkling", "kimi_k25", "kimi_linear",
    "kolibri1", "laguna", "lara_mini", "llama4", "minimax_m3_vl", "mistral4", "mistral_large4",
    "nemotron3_5_transcribe", "nemotron_h", "nemotron_h_omni", "qwen2_moe", "qwen3_5_moe", "qwen3_next",
    "qwen4_exp", "sarvam_mla", "sarvam_moe", "solar_open", "step3p7", "unlimited_ocr",
}  # fmt: skip


def sites(model: nn.Module) -> list[Site]:
    return [handle.site for handle in find_sites(model)]


def configured(config: Any, names: tuple[str, ...]) -> set[int]:
    parts = ("text_config", "vision_config", "ffn_config")
    inner = [config, *(getattr(config, part, None) for part in parts)]
    values = {getattr(each, name, None) for each in inner for name in names}
    return {value for value in values if isinstance(value, int) and value > 0}


@pytest.mark.parametrize("name", buildable())
def test_every_architecture(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    found = sites(built.model)
    text = [site for site in found if site.stack in ("decoder", "encoder") and "vision" not in site.name]
    assert {site.kind for site in found} == {KINDS.get(name, "indexed")}
    assert [site.index for site in found] == list(range(len(found)))
    assert len({site.name for site in found}) == len(found)
    assert {site.num_experts for site in found} <= configured(built.config, EXPERTS)
    if name not in ("switch_transformers", "nllb_moe"):
        assert {site.top_k for site in found} <= configured(built.config, SLOTS)
    assert {site.groups > 1 for site in text} == {name in GROUPED}
    assert {site.shared_experts > 0 for site in text} == {name in SHARED}
    for site in found:
        built.model.get_submodule(site.path)
        built.model.get_submodule(site.router_path)
        assert site.num_classes == site.num_experts + site.zero_experts or site.kind == "product_key"


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("mixtral", ["L0", "L1", "L2", "L3"]),
        ("deepseek_v3", ["L1", "L2", "L3"]),
        ("jetmoe", [f"L{layer}{part}" for layer in range(4) for part in (".attention", "")]),
        ("switch_transformers", ["encoder.L1", "encoder.L3", "L1", "L3"]),
        ("ernie4_5_vl_moe", [f"L{layer}{part}" for layer in range(1, 4) for part in ("", ".vision")]),
        pytest.param(
            *("dots3_note", ["L1", "L2", "L3", "vision.L1"]),
            marks=pytest.mark.skipif("dots3_note" not in buildable(), reason="new in transformers 5.23"),
        ),
        ("diffusion_gemma", [f"{stack}L{layer}" for stack in ("encoder.", "") for layer in range(4)]),
    ],
)
def test_names(name: str, names: list[str], zoo_model: Any) -> None:
    assert [site.name for site in sites(zoo_model(name).model)] == names


@pytest.mark.parametrize(
    ("name", "zero", "classes"), [("longcat_flash", 2, 10), ("zaya", 1, 9), ("inkling", 0, 8), ("mixtral", 0, 8)]
)
def test_classes_behind_the_experts(name: str, zero: int, classes: int, zoo_model: Any) -> None:
    site = sites(zoo_model(name).model)[0]
    assert (site.zero_experts, site.num_classes, site.num_experts) == (zero, classes, 8)


def test_notes_say_what_is_odd(zoo_model: Any) -> None:
    assert "token id" in sites(zoo_model("deepseek_v4").model)[0].note
    assert "token id" not in sites(zoo_model("deepseek_v4").model)[-1].note
    assert "experts 0 and 1" in sites(zoo_model("nllb_moe").model)[0].note
    assert "input" in sites(zoo_model("llama4").model)[0].note
    (handle, *_) = find_sites(zoo_model("nllb_moe").model)
    assert handle.adapter.refusal(handle)
    (handle, *_) = find_sites(zoo_model("switch_transformers").model)
    assert not handle.adapter.refusal(handle)


class Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))

    def forward(self, hidden: torch.Tensor) -> Any:
        logits = hidden @ self.weight.T
        weights, indices = logits.sigmoid().topk(3, -1)
        return logits, weights, indices


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(6, 4, 4))

    def forward(self, states: torch.Tensor, expert_indices: torch.Tensor, gate_weights: torch.Tensor) -> torch.Tensor:
        return (torch.einsum("th,tkhi->tki", states, self.up[expert_indices]) * gate_weights[..., None]).sum(1)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.workers, self.top_k = Router(), Experts(), 3

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        flat = hidden.reshape(-1, 4)
        _, weights, indices = self.router(flat)
        return hidden + self.workers(flat, gate_weights=weights, expert_indices=indices).view_as(hidden)


class Unheard(nn.Module):
    """An architecture that nobody has seen, and no transformers model at all."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.stages = nn.Embedding(16, 4), nn.ModuleList([Layer(), Layer()])

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(input_ids)
        for stage in self.stages:
            hidden = stage(hidden)
        return hidden


@torch.no_grad()
def test_an_architecture_that_nobody_has_seen() -> None:
    model = Unheard()
    steps: list[Any] = []
    with Capture(model, on_step=steps.append) as capture:
        model(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]))
    assert [site.name for site in capture.sites] == ["L0", "L1"]
    assert {(site.num_experts, site.top_k, site.scoring) for site in capture.sites} == {(6, 3, "sigmoid")}
    (step,) = steps
    assert step.token_id.tolist() == list(range(1, 9))
    logits = model.embed(torch.arange(1, 9)) @ model.stages[0].router.weight.T
    assert step.indices[:, 0].tolist() == logits.topk(3, -1).indices.tolist()


@pytest.mark.parametrize("kind", ["switch_transformers", "qwen3_moe", "gpt_oss", "doge"])
def test_every_number_of_the_tree_counts_once(zoo_model: Any, kind: str) -> None:
    """Neither buffers nor a tensor's second module make the model larger."""
    model = zoo_model(kind).model
    info = describe(model, find_sites(model))
    tensors = [tensor for node in info.modules for tensor in node.parameters]
    assert sum(tensor.count for tensor in tensors) == info.parameters
    assert sum(tensor.own_nbytes for tensor in tensors) == info.nbytes
    if kind == "switch_transformers":
        assert [tensor.kind for tensor in tensors].count("shared") > 0


def test_the_module_tree_knows_what_is_what(zoo_model: Any) -> None:
    model = zoo_model("deepseek_v3").model
    info = describe(model, find_sites(model), name="mine")
    nodes = {node.path: node for node in info.modules}
    assert info.modules[0].role == "model"
    assert set(nodes) == {path for path, _ in model.named_modules()}
    roles = {
        "model.embed_tokens": ("embedding", None),
        "model.layers.1": ("layer", None),
        "model.layers.1.self_attn": ("attention", None),
        "model.layers.1.mlp": ("mlp", None),
        "model.layers.1.mlp.gate": ("router", 0),
        "model.layers.1.mlp.experts": ("experts", 0),
        "model.layers.2.mlp.shared_experts": ("shared_expert", 1),
        "model.layers.2.mlp.shared_experts.up_proj": ("other", 1),
        "model.layers.1.input_layernorm": ("norm", None),
        "lm_head": ("head", None),
    }
    assert {path: (nodes[path].role, nodes[path].site) for path in roles} == roles
    gate = {parameter.name: parameter for parameter in nodes["model.layers.1.mlp.gate"].parameters}
    assert gate["weight"].shape == (8, 64)
    assert gate["weight"].nbytes == 8 * 64 * 4
    assert gate["e_score_correction_bias"].dtype == "float32"
    assert (info.name, info.model_type, info.num_layers, info.num_experts, info.top_k) == (
        "mine",
        "deepseek_v3",
        4,
        8,
        2,
    )
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
