"""A small recording with words in it, made by hand: the console's tests read it as a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moetui.routing import ModelInfo, ModuleNode, Phase, Site, Step
from moetui.routing.events import Branch, BranchAdded, GenerationSettings, InterventionsChanged
from moetui.routing.interventions import BanExperts, Scope
from moetui.trace import TraceWriter

WORDS = [
    *(" the", " artificial", " river", " garden", "art", "ificial", " in", "tell", "igence"),
    *(".", "\x1b[31mred", "[bold]markup[/bold]", "\u202eright", " once", " was", " a"),
]
LAYERS, EXPERTS, TOP_K = 3, 6, 2


def make_info(experts: int = EXPERTS, layers: int = LAYERS) -> ModelInfo:
    """A model of which only the facts are known."""
    sites = tuple(
        Site(
            index=i,
            name=f"L{i}",
            layer=i,
            path=f"model.layers.{i}.mlp.experts",
            router_path=f"model.layers.{i}.mlp.gate",
            num_experts=experts,
            num_classes=experts,
            top_k=TOP_K,
            scoring="softmax",
            logits_form="logits",
            normalised=True,
        )
        for i in range(layers)
    )
    modules = [ModuleNode("", "TinyForCausalLM", "model"), ModuleNode("model", "Tiny"), ModuleNode("lm_head", "Linear")]
    for i in range(layers):
        modules += [
            ModuleNode(f"model.layers.{i}", "Layer", "layer"),
            ModuleNode(f"model.layers.{i}.mlp", "Moe", "mlp"),
        ]
    return ModelInfo(
        name="tiny",
        architecture="TinyForCausalLM",
        model_type="tiny",
        sites=sites,
        num_layers=layers,
        vocab_size=len(WORDS),
        modules=tuple(modules),
    )


def make_step(
    info: ModelInfo,
    index: int,
    ids: list[int],
    start: int,
    *,
    branch: int = 0,
    dead: int | None = EXPERTS - 1,
    ids_only: bool = False,
) -> Step:
    """A pass over some words: a word leans to its own experts, and expert ``dead`` is never chosen."""
    count, sites = len(ids), len(info.sites)
    leaning = np.random.default_rng(7).normal(0, 1.5, (len(WORDS), sites, info.num_experts))
    if dead is not None:
        leaning[:, :, dead] = -20
    own = np.random.default_rng(index).normal(0, 0.3, (count, sites, info.num_experts))
    logits = (leaning[ids] + own).astype(np.float16)
    order = np.argsort(-logits.astype(np.float32), -1)[..., :TOP_K]
    chosen = np.exp(np.take_along_axis(logits.astype(np.float32), order, -1))
    return Step(
        index=index,
        phase=Phase.PREFILL if count > 1 else Phase.DECODE,
        started=0.1 * index,
        duration=20.0,
        sequence=np.zeros(count, np.int16),
        position=np.arange(start, start + count, dtype=np.int32),
        token_id=np.array(ids, np.int32),
        pad=np.zeros(count, np.bool_),
        logprob=np.full(count, -0.5, np.float32),
        indices=order.astype(np.uint16),
        weights=None if ids_only else (chosen / chosen.sum(-1, keepdims=True)).astype(np.float16),
        logits=None if ids_only else logits,
        flags=np.zeros((count, sites), np.uint8),
        candidate_ids=np.full((count, 2), -1, np.int32),
        candidate_logprobs=np.full((count, 2), np.nan, np.float16),
        site_ms=np.linspace(1, 15, sites, dtype=np.float32),
        branch=branch,
        vocabulary={word: WORDS[word] for word in ids},
    )


def write_recording(
    path: Path, *, experts: int = EXPERTS, layers: int = LAYERS, runs: int = 2, ids_only: bool = False
) -> Path:
    """Runs of one prompt, those after the first with an expert banned and another word at position 8."""
    info = make_info(experts=experts, layers=layers)
    prompt = [13, 14, 15, 1, 2, 4, 5]
    has = {"has_logits": not ids_only, "has_weights": not ids_only}
    writer = TraceWriter(path, info, settings=GenerationSettings(max_new_tokens=8), prompt="once was a", **has)
    index = 0
    for run in range(runs):
        tail = [0, 2 if run else 3, 9, 10, 11, 12, 1, 2]
        first = run * (len(prompt) + len(tail))
        writer.write_event(BranchAdded(Branch(run, run, f"run {run}", first_token=first, prompt="once was a")))
        if run:
            writer.write_event(InterventionsChanged((BanExperts((2,), Scope(layers=(1,))),), first))
        writer.write_step(make_step(info, index, prompt, 0, branch=run, ids_only=ids_only))
        index += 1
        for place, word in enumerate(tail):
            writer.write_step(make_step(info, index, [word], len(prompt) + place, branch=run, ids_only=ids_only))
            index += 1
    writer.close()
    return path
