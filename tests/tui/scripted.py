"""A small real session: real steps on a real timeline, made up by a seeded router instead of a model."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from moetui.routing import (
    ModelInfo,
    ModuleNode,
    ParameterInfo,
    Phase,
    Site,
    Step,
    Timeline,
    UnsupportedError,
    UsageError,
)
from moetui.routing.events import (
    Branch,
    BranchAdded,
    Event,
    Finding,
    FindingRaised,
    GenerationSettings,
    InterventionsChanged,
    LoadProgress,
    ModelChanged,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.routing.interventions import Intervention
from moetui.session import Capability, Playback
from moetui.session.mailbox import Mailbox

WORDS = (
    *("", "the", "a", "river", "garden", "was", "small", "who", "lived", "once", "there", "and"),
    *("in", "of", ".", ",", "old", "boat", "stone", "light", "went", "to", "sea"),
)
LIVE = (
    Capability.GENERATE
    | Capability.STEP
    | Capability.STEP_LAYER
    | Capability.INTERVENE
    | Capability.INSPECT
    | Capability.PYTHON
)


def model_info(layers: int = 6, experts: int = 8, top_k: int = 2) -> ModelInfo:
    """A Mixtral's tree without its arrays."""
    sites = tuple(
        Site(
            index=i,
            name=f"L{i}",
            layer=i,
            path=f"model.layers.{i}.mlp.experts",
            router_path=f"model.layers.{i}.mlp.gate",
            num_experts=experts,
            num_classes=experts,
            top_k=top_k,
            scoring="softmax",
            logits_form="logits",
            normalised=True,
        )
        for i in range(layers)
    )
    return ModelInfo(
        name="demo",
        architecture="MixtralForCausalLM",
        model_type="mixtral",
        sites=sites,
        num_layers=layers,
        parameters=3_400_000,
        nbytes=13_600_000,
        vocab_size=512,
        context_length=512,
        dtype="float32",
        device="cpu",
        modules=tuple(_modules(layers, experts)),
        versions={"torch": "2.13.0", "transformers": "5.23.0"},
    )


def _parameter(name: str, *shape: int) -> ParameterInfo:
    return ParameterInfo(name, shape, "float32", "cpu", 4 * int(np.prod(shape)))


def _modules(layers: int, experts: int) -> list[ModuleNode]:
    nodes = [
        ModuleNode("", "MixtralForCausalLM", "model"),
        ModuleNode("model", "MixtralModel", "other"),
        ModuleNode("model.embed_tokens", "Embedding", "embedding", (_parameter("weight", 512, 128),)),
        ModuleNode("model.layers", "ModuleList", "other"),
    ]
    for i in range(layers):
        at = f"model.layers.{i}"
        nodes += [
            ModuleNode(at, "MixtralDecoderLayer", "layer"),
            ModuleNode(f"{at}.self_attn", "MixtralAttention", "attention"),
            *(
                ModuleNode(f"{at}.self_attn.{name}_proj", "Linear", "other", (_parameter("weight", 128, 128),))
                for name in "qkvo"
            ),
            ModuleNode(f"{at}.mlp", "MixtralSparseMoeBlock", "mlp"),
            ModuleNode(f"{at}.mlp.gate", "MixtralTopKRouter", "router", (_parameter("weight", experts, 128),), i),
            ModuleNode(
                f"{at}.mlp.experts",
                "MixtralExperts",
                "experts",
                (_parameter("gate_up_proj", experts, 320, 128), _parameter("down_proj", experts, 128, 160)),
                i,
            ),
            ModuleNode(f"{at}.input_layernorm", "MixtralRMSNorm", "norm", (_parameter("weight", 128),)),
        ]
    nodes.append(ModuleNode("model.norm", "MixtralRMSNorm", "norm", (_parameter("weight", 128),)))
    nodes.append(ModuleNode("lm_head", "Linear", "head", (_parameter("weight", 512, 128),)))
    return nodes


class Router:
    """Makes steps: each token id leans to some experts, each layer has a favourite and the last one a dead expert."""

    def __init__(self, info: ModelInfo, seed: int = 0) -> None:
        self._info = info
        self._random = np.random.default_rng(seed)
        sites, experts = len(info.sites), info.num_experts
        self._leaning = self._random.normal(0, 1.3, (len(WORDS), sites, experts))
        self._leaning[:, np.arange(sites), self._random.integers(0, experts, sites)] += 0.8
        self._leaning[:, -1, 0] = -30.0
        self._count = 0
        self._clock = 0.0

    def step(self, token_ids: Sequence[int], start: int, phase: Phase, branch: int = 0) -> Step:
        """A forward pass over these tokens at positions from ``start``."""
        info, count = self._info, len(token_ids)
        ids = np.array(token_ids, np.int32)
        logits = self._leaning[ids % len(WORDS)] + self._random.normal(
            0, 0.4, (count, len(info.sites), info.num_experts)
        )
        order = np.argsort(-logits, -1)[..., : info.top_k]
        chosen = np.take_along_axis(logits, order, -1)
        weights = np.exp(chosen - chosen.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        duration = 20.0 + 2.0 * count + float(self._random.normal(0, 0.5))
        index, self._count = self._count, self._count + 1
        started, self._clock = self._clock, self._clock + duration / 1e3 + 0.002
        # The first layers cost a little more, so that a profile has something to show.
        share = np.linspace(1.3, 0.9, len(info.sites)).cumsum()
        candidates = np.full((count, 4), -1, np.int32)
        candidates[-1] = (ids[-1] + np.arange(1, 5)) % len(WORDS)
        logprobs = np.full((count, 4), np.nan, np.float16)
        logprobs[-1] = np.log([0.41, 0.22, 0.09, 0.05])
        return Step(
            index=index,
            phase=phase,
            started=started,
            duration=duration,
            sequence=np.zeros(count, np.int16),
            position=np.arange(start, start + count, dtype=np.int32),
            token_id=ids,
            pad=np.zeros(count, np.bool_),
            logprob=np.asarray(-np.abs(self._random.normal(0.5, 0.4, count)), np.float32),
            indices=order.astype(np.uint16),
            weights=weights.astype(np.float16),
            logits=logits.astype(np.float16),
            flags=np.zeros((count, len(info.sites)), np.uint8),
            candidate_ids=candidates,
            candidate_logprobs=logprobs,
            site_ms=np.asarray(duration * 0.96 * share / share[-1], np.float32),
            branch=branch,
            vocabulary={i: (" " if i > 2 else "") + WORDS[i % len(WORDS)] for i in token_ids},
        )


class ScriptedSession:
    """A session that does what a test says; with ``rate`` it runs by itself, that many tokens a second."""

    def __init__(
        self,
        info: ModelInfo | None = None,
        *,
        rate: float | None = None,
        capabilities: Capability = LIVE,
        loads: bool = True,
    ) -> None:
        self._info = info or model_info()
        self._loads = loads
        self._rate = rate
        self._mail = Mailbox()
        self._router = Router(self._info)
        self._timeline = Timeline(self._info)
        self._end = self._position = 0
        self._loaded = False
        self._thread: threading.Thread | None = None
        self._go = threading.Event()
        self._over = threading.Event()
        self._steps_left = 0
        self._generated = 0
        self.capabilities = capabilities
        self.state = RunState.LOADING
        self.reason = ""
        self.settings = GenerationSettings(max_new_tokens=24)
        self.branches: list[Branch] = []
        self.findings: list[Finding] = []
        self.interventions: tuple[Intervention, ...] = ()
        self.playback: Playback | None = None
        self.costs = {"hooks": 0.003, "copy": 0.002, "recorder": 0.001}
        self.asked: list[tuple[str, object]] = []

    name = "demo"

    @property
    def info(self) -> ModelInfo | None:
        return self._info if self._loaded else None

    @property
    def timeline(self) -> Timeline:
        return self._timeline

    def open(self) -> None:
        self.asked.append(("open", None))
        self._mail.put(LoadProgress("importing torch", None))
        if self._loads:
            self.finish_loading()

    def events(self) -> AsyncIterator[Event]:
        return self._mail.events()

    def finish_loading(self) -> None:
        """What a real session does when the weights are in memory."""
        self._loaded = True
        self._mail.put(ModelChanged(self._info))
        self.set_state(RunState.READY)

    def learn(self) -> None:
        """Tell of the model again, as a first run does: it taught more of it."""
        self._mail.put(ModelChanged(self._info))

    def progress(self, message: str, fraction: float | None) -> None:
        self._mail.put(LoadProgress(message, fraction))

    def fail(self, reason: str, hint: str) -> None:
        self.state, self.reason = RunState.FAILED, reason
        self._mail.put(RunStateChanged(RunState.FAILED, reason, hint))

    def raise_finding(self, finding: Finding) -> None:
        self.findings.append(finding)
        self._mail.put(FindingRaised(finding))

    def set_state(self, state: RunState, reason: str = "") -> None:
        self.state, self.reason = state, reason
        self._mail.put(RunStateChanged(state, reason))

    def generate(self, prompt: str, settings: GenerationSettings | None = None) -> None:
        if not prompt.strip():
            raise UsageError("the prompt is empty", "type one first")
        if self.state in (RunState.RUNNING, RunState.PAUSED):
            raise UsageError("a run is going on", "x ends it, or 'stop' in the console")
        self.asked.append(("generate", prompt))
        self.settings = settings or self.settings
        number = len(self.branches)
        branch = Branch(number, number, f"run {number}", first_token=self._end, prompt=prompt)
        self.branches.append(branch)
        self._mail.put(BranchAdded(branch, self.settings))
        self._position = self._generated = 0
        self.set_state(RunState.RUNNING)
        self.advance_prompt([sum(word.encode()) % len(WORDS) for word in prompt.split()])
        if self._rate is not None:
            self._go.set()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def advance_prompt(self, ids: Sequence[int]) -> None:
        self._append(ids, Phase.PREFILL)

    def advance(self, count: int = 1) -> None:
        """Let ``count`` tokens come out."""
        for _ in range(count):
            self._append([(self._position * 7 + 3) % len(WORDS)], Phase.DECODE)
            self._generated += 1

    def _append(self, ids: Sequence[int], phase: Phase) -> None:
        step = self._router.step(ids, self._position, phase, len(self.branches) - 1)
        self._position += len(ids)
        self._end = self._timeline.append(step)
        self._mail.put(StepCaptured(self._end))

    def _run(self) -> None:
        assert self._rate is not None
        while self._generated < self.settings.max_new_tokens - 1 and not self._over.is_set():
            if not self._go.wait(0.05):
                continue
            self._over.wait(1.0 / self._rate)
            self.advance()
            if self._steps_left:
                self._steps_left -= 1
                if not self._steps_left:
                    self._go.clear()
                    self.set_state(RunState.PAUSED, "stepped")
        self.set_state(RunState.FINISHED)

    def pause(self) -> None:
        self.asked.append(("pause", None))
        self._go.clear()
        if self.state is RunState.RUNNING:
            self.set_state(RunState.PAUSED, "by hand")

    def resume(self) -> None:
        self.asked.append(("resume", None))
        self._steps_left = 0
        if self.state is RunState.PAUSED:
            self.set_state(RunState.RUNNING)
        self._go.set()

    def step(self, count: int = 1) -> None:
        self.asked.append(("step", count))
        if self._rate is None:
            self.advance(max(0, count))
        else:
            self._steps_left = count
            self._go.set()

    def step_layer(self) -> None:
        self.asked.append(("step_layer", None))

    def stop(self) -> None:
        self.asked.append(("stop", None))
        self._over.set()
        if self._rate is None:
            self.set_state(RunState.FINISHED, "stopped")

    def seek(self, token: int) -> None:
        if Capability.SEEK not in self.capabilities:
            raise UnsupportedError("a live model cannot seek")
        self.asked.append(("seek", token))

    def set_speed(self, speed: float) -> None:
        self.asked.append(("set_speed", speed))

    def set_interventions(self, interventions: Sequence[Intervention]) -> None:
        self.interventions = tuple(interventions)
        self._mail.put(InterventionsChanged(self.interventions, self._end))

    def call(self, function: Callable[[Any, Any], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(TinyModel(), None))
        except Exception as error:  # noqa: BLE001 - as a real session does: the caller gets it from the future
            future.set_exception(error)
        return future

    def close(self, timeout: float = 1.0) -> None:
        self.asked.append(("close", timeout))
        self._over.set()
        self._go.set()
        self._mail.close()


class TinyModel:
    """Stands where a torch model would: expressions may look at it."""

    training = False

    def __repr__(self) -> str:
        return "TinyModel()"


__all__ = ["LIVE", "Router", "ScriptedSession", "model_info"]
