"""Small models, steps and views made by hand, for the tests of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from moetui.routing import NO_EXPERT, ModelInfo, Phase, Site, SiteFlag, Step, Timeline


def make_site(index: int = 0, experts: int = 4, top_k: int = 2, **more: Any) -> Site:
    layer = more.pop("layer", index)
    values: dict[str, Any] = {
        "name": f"L{layer}",
        "path": f"layers.{layer}.experts",
        "router_path": f"layers.{layer}.gate",
        "num_classes": experts,
        "scoring": "softmax",
    }
    return Site(index=index, layer=layer, num_experts=experts, top_k=top_k, **(values | more))


def make_info(*sites: Site) -> ModelInfo:
    return ModelInfo(
        name="test", architecture="TestForCausalLM", model_type="test", sites=sites or (make_site(0), make_site(1))
    )


def make_step(
    info: ModelInfo, indices: Any, weights: Any = None, logits: Any = None, *, index: int = 0, **more: Any
) -> Step:
    """A step of as many tokens as ``indices`` has rows; what is not given is unknown."""
    chosen = np.asarray(indices, np.uint16).reshape(-1, len(info.sites), info.top_k)
    count = chosen.shape[0]
    flags = more.pop("flags", None)
    values: dict[str, Any] = {
        "phase": Phase.PREFILL if count > 1 else Phase.DECODE,
        "started": float(index),
        "duration": 10.0,
        "sequence": np.zeros(count, np.int16),
        "position": np.arange(count, dtype=np.int32),
        "token_id": np.arange(count, dtype=np.int32),
        "pad": np.zeros(count, np.bool_),
        "logprob": np.full(count, np.nan, np.float32),
        "flags": np.zeros((count, len(info.sites)), np.uint8) if flags is None else np.asarray(flags, np.uint8),
        "candidate_ids": np.full((count, 2), -1, np.int32),
        "candidate_logprobs": np.full((count, 2), np.nan, np.float16),
        "site_ms": np.full(len(info.sites), np.nan, np.float32),
    }
    return Step(
        index=index,
        indices=chosen,
        weights=None if weights is None else np.asarray(weights, np.float16).reshape(chosen.shape),
        logits=None
        if logits is None
        else np.asarray(logits, np.float16).reshape(count, len(info.sites), info.num_classes),
        **(values | more),
    )


def random_step(
    info: ModelInfo,
    count: int,
    rng: np.random.Generator,
    *,
    index: int = 0,
    has_logits: bool = True,
    has_weights: bool = True,
    marks: bool = False,
    **more: Any,
) -> Step:
    """A step routed by softmax over random logits; ``marks`` sprinkles unknowns, drops, NaN and padding over it."""
    sites, k, classes = len(info.sites), info.top_k, info.num_classes
    indices = np.full((count, sites, k), NO_EXPERT, np.uint16)
    weights = np.full((count, sites, k), np.nan, np.float16)
    logits = np.full((count, sites, classes), np.nan, np.float16)
    flags = np.zeros((count, sites), np.uint8)
    for site in info.sites:
        if site.stack != more.get("stack", "decoder"):
            continue
        raw = rng.normal(0, 2, (count, site.num_classes)).astype(np.float16)
        order = np.argsort(-raw[:, : site.num_experts].astype(np.float32), axis=-1)[:, : site.top_k]
        shares = np.exp(np.take_along_axis(raw, order, -1).astype(np.float32))
        logits[:, site.index, : site.num_classes] = raw
        indices[:, site.index, : site.top_k] = order
        weights[:, site.index, : site.top_k] = shares / shares.sum(-1, keepdims=True)
    if marks:
        dropped, forced, broken = (rng.random((count, sites)) < 0.1 for _ in range(3))
        dropped &= (indices != NO_EXPERT).any(-1)
        indices[dropped] = NO_EXPERT
        weights[dropped] = np.nan
        logits[broken, 0] = rng.choice([np.nan, np.inf, -np.inf], int(broken.sum()))
        flags |= np.where(dropped, SiteFlag.DROPPED, 0).astype(np.uint8)
        flags |= np.where(forced, SiteFlag.FORCED, 0).astype(np.uint8)
        flags |= np.where(broken, SiteFlag.NON_FINITE, 0).astype(np.uint8)
        more.setdefault("pad", rng.random(count) < 0.1)
        more.setdefault("logprob", np.where(rng.random(count) < 0.2, np.nan, -rng.random(count)).astype(np.float32))
        more.setdefault("token_id", rng.integers(-1, 12, count).astype(np.int32))
    more.setdefault("vocabulary", {number: f" w{number}" for number in range(12)})
    return make_step(
        info,
        indices,
        weights if has_weights else None,
        logits if has_logits else None,
        index=index,
        flags=flags,
        **more,
    )


def timeline_of(info: ModelInfo, steps: Sequence[Step], max_tokens: int = 100_000) -> Timeline:
    timeline = Timeline(info, max_tokens)
    for step in steps:
        timeline.append(step)
    return timeline
