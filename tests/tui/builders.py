"""Timelines of known content, and a session that only holds one: what the widgets are drawn from in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from moetui.routing import NO_EXPERT, ModelInfo, Phase, Site, SiteFlag, Step, Timeline
from moetui.routing.branches import BranchTree
from moetui.routing.events import Branch, GenerationSettings, RunState
from moetui.session.protocol import Capability

HOSTILE = (
    "\x1b[31mred\x1b[0m", "[/a/x]", "[INST]", "\u202eevil", "日本語", "e\u0301\u0301\u0301\u0301", "\udce2\udc82",
    "\n\t\r", "   ", "👩\u200d👩\u200d👧", "", "a" * 300, "\u200b\ufeff", "\x00\x07\x7f", "]8;;http://x\x07",
)  # fmt: skip
WORDS = (
    " in", " the", " garden", ".", " Once", " there", " was", " a", " small", " river", " who", " lived", "\n", " by",
    " and", ",", " found", " it", " under", " an", " old", " tree", "def", " return", "(", ")", ":", " {", '"key"', "=",
)  # fmt: skip


def make_info(sites: int = 6, experts: int = 8, top_k: int = 2, *, scoring: str = "softmax", **extra: Any) -> ModelInfo:
    return ModelInfo(
        name="demo",
        architecture="MixtralForCausalLM",
        model_type="mixtral",
        num_layers=sites,
        sites=tuple(
            Site(
                index=i,
                name=f"L{i}",
                layer=i,
                path=f"model.layers.{i}.mlp.experts",
                router_path=f"model.layers.{i}.mlp.gate",
                num_experts=experts,
                num_classes=experts,
                top_k=top_k,
                scoring=scoring,  # type: ignore[arg-type]
                logits_form="logits",
                normalised=True,
                **extra,
            )
            for i in range(sites)
        ),
    )


def skewed_logits(rng: np.random.Generator, tokens: int, info: ModelInfo, *, unused: bool = True) -> np.ndarray:
    """Logits whose experts have habits; the first site's last expert is never chosen, where ``unused``."""
    sites, classes = len(info.sites), info.num_classes
    habits = np.random.default_rng(5).normal(0, 0.9, (sites, classes))
    logits = rng.normal(0, 1.1, (tokens, sites, classes)) + habits
    if unused and sites and classes > info.top_k:
        logits[:, 0, -1] = -12
    return logits.astype(np.float32)


def make_step(
    info: ModelInfo,
    index: int,
    logits: np.ndarray,
    *,
    phase: Phase = Phase.DECODE,
    position: int = 0,
    started: float = 0.0,
    duration: float = 22.5,
    token_ids: Sequence[int] | None = None,
    vocabulary: dict[int, str] | None = None,
    branch: int = 0,
    ids_only: bool = False,
    pad: Sequence[bool] | None = None,
    forced: dict[int, tuple[int, ...]] | None = None,
    dropped: dict[int, int] | None = None,
    candidates: int = 4,
    rng: np.random.Generator | None = None,
) -> Step:
    """A step whose indices and weights follow from ``logits`` [T, S, E] by softmax and renormalised top-k."""
    rng = rng or np.random.default_rng(index)
    count, sites = logits.shape[:2]
    k = info.top_k
    order = np.argsort(-logits, axis=-1)[..., :k]
    chosen = np.take_along_axis(logits, order, -1)
    weights = np.exp(chosen - chosen.max(-1, keepdims=True)) if k else chosen
    weights = weights / weights.sum(-1, keepdims=True)
    indices = order.astype(np.uint16)
    flags = np.zeros((count, sites), np.uint8)
    for site, experts in (forced or {}).items():
        indices[:, site] = experts[:k]
        weights[:, site] = 1 / k
        flags[:, site] |= int(SiteFlag.FORCED)
    for token, site in (dropped or {}).items():
        indices[token, site] = NO_EXPERT
        weights[token, site] = np.nan
        flags[token, site] |= int(SiteFlag.DROPPED)
    last = np.full((count, candidates), -1, np.int32)
    likely = np.full((count, candidates), np.nan, np.float16)
    if candidates:
        last[-1] = np.arange(candidates)
        likely[-1] = np.log(np.sort(rng.dirichlet(np.ones(candidates + 1)))[::-1][:candidates] + 1e-4)
    ids = np.asarray(token_ids if token_ids is not None else rng.integers(0, len(WORDS), count), np.int32)
    logprob = -np.abs(rng.normal(0.4, 0.5, count)).astype(np.float32)
    if phase is Phase.PREFILL and count:
        logprob[0] = np.nan
    return Step(
        index=index,
        phase=phase,
        started=started,
        duration=duration,
        sequence=np.zeros(count, np.int16),
        position=np.arange(position, position + count, dtype=np.int32),
        token_id=ids,
        pad=np.asarray(pad if pad is not None else [False] * count, np.bool_),
        logprob=logprob,
        indices=indices,
        weights=None if ids_only else weights.astype(np.float16),
        logits=None if ids_only else logits.astype(np.float16),
        flags=flags,
        candidate_ids=last,
        candidate_logprobs=likely,
        site_ms=np.linspace(1, duration, sites).astype(np.float32),
        branch=branch,
        vocabulary=vocabulary if vocabulary is not None else (dict(enumerate(WORDS)) if index == 0 else {}),
    )


def make_timeline(
    info: ModelInfo | None = None,
    *,
    prompt: int = 5,
    decode: int = 32,
    seed: int = 1,
    branch: int = 0,
    max_tokens: int = 100_000,
    timeline: Timeline | None = None,
    ids_only: bool = False,
    forced_from: int | None = None,
    vocabulary: dict[int, str] | None = None,
) -> Timeline:
    """A prompt, then one token a step, about 45 tokens a second."""
    info = info or make_info()
    timeline = timeline or Timeline(info, max_tokens)
    rng = np.random.default_rng(seed)
    clock, index = 0.1, 0
    view = timeline.snapshot()
    if view.end > view.first:
        steps = view.steps()
        clock, index = float(steps.started[-1]) + 0.05, int(steps.index[-1]) + 1
    common: dict[str, Any] = {"branch": branch, "ids_only": ids_only, "rng": rng}
    if vocabulary is not None:
        common["token_ids"] = None
    if prompt:
        step = make_step(
            info, index, skewed_logits(rng, prompt, info), phase=Phase.PREFILL, started=clock, duration=31.0,
            vocabulary=vocabulary, **common,
        )  # fmt: skip
        timeline.append(step)
        clock, index = clock + 0.033, index + 1
    for number in range(decode):
        forced = {min(3, len(info.sites) - 1): tuple(range(3, 3 + info.top_k))} if number == forced_from else None
        took = float(np.clip(rng.normal(22.6, 1.2), 18, 40))
        step = make_step(
            info, index, skewed_logits(rng, 1, info), position=prompt + number, started=clock, duration=took,
            forced=forced, **common,
        )  # fmt: skip
        timeline.append(step)
        clock, index = clock + took / 1000 + 0.0006, index + 1
    return timeline


def bulk_timeline(info: ModelInfo, tokens: int, *, chunk: int = 512, seed: int = 3) -> Timeline:
    """Many tokens quickly: prefill steps of ``chunk`` tokens."""
    timeline = Timeline(info, tokens)
    rng = np.random.default_rng(seed)
    clock = 0.0
    for index, start in enumerate(range(0, tokens, chunk)):
        count = min(chunk, tokens - start)
        step = make_step(
            info, index, skewed_logits(rng, count, info), phase=Phase.PREFILL, position=start, started=clock,
            duration=count * 0.5, rng=rng,
        )  # fmt: skip
        timeline.append(step)
        clock += count * 0.0005
    return timeline


NOTHING = Capability(0)


@dataclass
class HeldSession:
    """The session protocol over a timeline that does not move by itself."""

    source: Timeline
    info: ModelInfo | None = None
    name: str = "demo"
    capabilities: Capability = NOTHING
    state: RunState = RunState.READY
    reason: str = ""
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    branches: Sequence[Branch] = ()
    findings: Sequence[Any] = ()
    interventions: Sequence[Any] = ()
    playback: Any = None
    underway: Any = None
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def timeline(self) -> Timeline:
        return self.source

    @property
    def tree(self) -> BranchTree:
        return BranchTree(tuple(self.branches))

    async def _nothing(self) -> AsyncIterator[Any]:
        return
        yield

    def events(self) -> AsyncIterator[Any]:
        return self._nothing()

    def __getattr__(self, name: str) -> Any:
        # A screen must not drive the session while it draws: any call that is not above fails the test.
        raise AssertionError(f"session.{name} was used")


def namespace(**values: Any) -> Any:
    return SimpleNamespace(**values)
