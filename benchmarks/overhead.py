"""What watching costs: decode steps and prompts, bare and watched in several ways, interleaved in one process.

    python benchmarks/overhead.py                        # every model, every variant
    python benchmarks/overhead.py --models mixtral-12x512 --variants bare,captured --repeats 40
    python benchmarks/overhead.py --device cuda --dtype bfloat16 --json
    python benchmarks/overhead.py --device cuda --dtype bfloat16 --models mixtral-8x7b --layers 24   # 70 GB of weights

Each repeat times every variant once, in an order that changes from repeat to repeat: a block of decode steps at the
same length of the cache, and one prompt. A block's time is the mean of its steps, so that what the recorder's thread
takes now and then is in it; blocks are long enough for several of its turns. A variant's ratio is the median
over repeats of its block's time divided by that of the bare block of the same repeat, so that what else the machine
does falls out; ``floor`` is the ratio of the two's fastest blocks, for machines that are never quiet. ``step`` is the
same as the ratio, of the blocks' median steps: what a decode step takes longer while the recorder rests. Where a
machine's speed wanders within seconds, many short blocks tell that best (``--block 0.2 --repeats 150``), and ``ratio``
no longer has the recorder's work. ``bare-again`` is the control: the same thing twice, whose ratios show the noise.
``bare-before`` is the model before anything was captured: what watching leaves behind in the process (threads, say)
slows all that comes later, ``bare`` too. ``clone`` is a second copy of the model, bare too: what the same weights
elsewhere in memory change. ``mixtral-8x7b`` has random weights in that model's shape, 93 GB in bfloat16, made on the
device itself; it is measured when it is asked for, and without a clone. Unless ``--dtype`` says otherwise the demo runs
in bfloat16, as ``moetui run demo`` does, and the random models in 32-bit floats.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import json
import platform
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from moetui.demo import model_path
from moetui.engine import Capture, CaptureOptions
from moetui.engine.caches import cache_argument, returned_cache
from moetui.engine.interventions import plan
from moetui.routing import Timeline
from moetui.routing.interventions import BanExperts, ForceExperts, Intervention

COLD, BEFORE = 5, 7  # blocks before anything was captured: those that are not counted, and those that are
WARM = 3  # decode steps before a block that are not counted
CONTEXT = 64  # tokens cached before the decode steps

Setup = Callable[[Any], AbstractContextManager[dict[str, Any]]]
"""Prepares a model for one block; yields arguments that the forward gets besides."""


@contextlib.contextmanager
def bare(_: Any) -> Iterator[dict[str, Any]]:
    yield {}


class Captured:
    """One capture for all blocks; each attaches it and detaches it again, outside of what is timed."""

    def __init__(self, *, timeline: bool = False, interventions: tuple[Intervention, ...] = (), **options: Any) -> None:
        self._options, self._with_timeline = CaptureOptions(**options), timeline
        self._interventions = interventions
        self._captures: dict[int, Capture] = {}

    @contextlib.contextmanager
    def __call__(self, model: Any) -> Iterator[dict[str, Any]]:
        capture = self._captures.get(id(model))
        if capture is None:
            capture = self._captures[id(model)] = self._make(model)
            self._prompt(model, capture)
        capture.attach()
        try:
            yield {}
        finally:
            capture.detach()
            capture.flush()

    def _prompt(self, model: Any, capture: Capture) -> None:
        """A run begins with a prompt, which shows how the routers weigh; one token again and again does not."""
        vocabulary, device = model.config.vocab_size, next(model.parameters()).device
        capture.attach()
        model(input_ids=torch.randint(5, vocabulary, (1, CONTEXT), device=device))
        capture.detach()
        capture.flush()

    def _make(self, model: Any) -> Capture:
        held: list[Timeline] = []
        capture = Capture(
            model, self._options, on_steps=(lambda steps: held[0].extend(steps)) if self._with_timeline else drop
        )
        held.append(Timeline(capture.info, 10_000))
        if self._interventions:
            capture.set_functions(plan(self._interventions, lambda: capture.handles, {}).functions)
        return capture


def drop(steps: Any) -> None:
    """Nobody looks at the steps."""


@contextlib.contextmanager
def clone(_: Any) -> Iterator[dict[str, Any]]:
    yield {"__forward__": "clone"}


@contextlib.contextmanager
def router_logits(_: Any) -> Iterator[dict[str, Any]]:
    yield {"output_router_logits": True}


@contextlib.contextmanager
def profiler(_: Any) -> Iterator[dict[str, Any]]:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities):
        yield {}


VARIANTS: dict[str, Setup] = {
    "bare": bare,
    "bare-again": bare,
    "clone": clone,
    "captured": Captured(),
    "captured-ids": Captured(logits=False, weights=False, candidates=0),
    "captured-timeline": Captured(timeline=True),
    "forced": Captured(interventions=(ForceExperts((0, 3)),)),
    "banned": Captured(interventions=(BanExperts((1,)),)),
    "router-logits": router_logits,
    "torch-profiler": profiler,
}


def add_nnsight() -> None:
    """nnsight's tracing of every router's output, where it is installed."""
    if importlib.util.find_spec("nnsight") is None:
        return
    from nnsight import NNsight

    from moetui.engine import find_sites

    @contextlib.contextmanager
    def nnsight(model: Any) -> Iterator[dict[str, Any]]:
        traced = NNsight(model)
        routers = [handle.site.router_path for handle in find_sites(model)]

        def forward(**arguments: Any) -> Any:
            with traced.trace(**arguments):
                for path in routers:
                    traced.get(path).output.save()

        yield {"__forward__": forward}

    VARIANTS["nnsight"] = nnsight


def mixtral(layers: int, hidden: int, experts: int, top_k: int) -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_local_experts=experts,
        num_experts_per_tok=top_k,
        vocab_size=32_000,
    )
    return MixtralForCausalLM(config)


def mixtral_8x7b(layers: int = 32) -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(num_hidden_layers=layers))  # the defaults are that model's sizes


def qwen(layers: int, hidden: int, experts: int, top_k: int) -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        moe_intermediate_size=hidden // 2,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=hidden // 8,
        num_experts=experts,
        num_experts_per_tok=top_k,
        vocab_size=32_000,
    )
    return Qwen3MoeForCausalLM(config)


def demo() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_path())


MODELS: dict[str, Callable[[], Any]] = {
    "demo": demo,
    "mixtral-12x512": lambda: mixtral(12, 512, 8, 2),
    "qwen-24x512x64": lambda: qwen(24, 512, 64, 8),
}
LARGE = "mixtral-8x7b"


@contextlib.contextmanager
def made_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Within it weights come into being where and as they will be used."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Result:
    """Milliseconds are medians over repeats; ``low`` and ``high`` are the ratio's quartiles."""

    model: str
    work: str
    variant: str
    ms: float
    ratio: float
    low: float
    high: float
    floor: float
    step: float


@dataclass(frozen=True)
class Block:
    """Milliseconds of one block's steps."""

    mean: float
    median: float


class Bench:
    """Blocks of work on one model."""

    def __init__(self, model: Any, prompt: int, block: float, *, clone: bool = True) -> None:
        self._model, self._clone = model, copy.deepcopy(model) if clone else None
        self._device = next(model.parameters()).device
        vocabulary = model.config.vocab_size
        self._context = torch.randint(5, vocabulary, (1, CONTEXT), device=self._device)
        self._prompt = torch.randint(5, vocabulary, (1, prompt), device=self._device)
        self._cache = returned_cache(model(input_ids=self._context, use_cache=True))
        step = statistics.median([self._decode_step({}) for _ in range(9)])
        self._steps = max(8, round(1e3 * block / step))

    def decode(self, setup: Setup) -> Block:
        """Decode steps, the cache cut back to the same length after each."""
        with setup(self._model) as extra:
            for _ in range(WARM):
                self._decode_step(extra)
            steps = [self._decode_step(extra) for _ in range(self._steps)]
            return Block(statistics.fmean(steps), statistics.median(steps))

    def prefill(self, setup: Setup) -> Block:
        """One prompt."""
        with setup(self._model) as extra:
            took = self._timed(extra, input_ids=self._prompt, use_cache=False)
            return Block(took, took)

    def _decode_step(self, extra: dict[str, Any]) -> float:
        given = {cache_argument(self._model): self._cache}
        took = self._timed(extra, input_ids=self._context[:, :1], **given, use_cache=True)
        self._cache.crop(-1)
        return took

    def _timed(self, extra: dict[str, Any], **arguments: Any) -> float:
        arguments |= {name: value for name, value in extra.items() if name != "__forward__"}
        forward = extra.get("__forward__", self._model)
        forward = self._clone if forward == "clone" else forward
        self._wait()
        began = perf_counter()
        forward(**arguments)
        self._wait()
        return 1e3 * (perf_counter() - began)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def measure(name: str, model: Any, variants: list[str], options: argparse.Namespace) -> list[Result]:
    bench = Bench(model, options.prompt, options.block, clone="clone" in variants)
    order = random.Random(0)
    results = []
    works = [
        (work, run) for work, run in (("decode", bench.decode), ("prefill", bench.prefill)) if work in options.work
    ]
    before = {work: [run(bare) for _ in range(COLD + BEFORE)][COLD:] for work, run in works}
    for work, run in works:
        times: dict[str, list[Block]] = {variant: [] for variant in variants}
        for variant in variants:
            run(VARIANTS[variant])
        for _ in range(options.repeats):
            for variant in order.sample(variants, len(variants)):
                times[variant].append(run(VARIANTS[variant]))
        for variant in variants:
            pairs = list(zip(times[variant], times["bare"]))
            ratios = sorted(own.mean / base.mean for own, base in pairs)
            low, middle, high = statistics.quantiles(ratios, n=4)
            floor = min(own.mean for own, _ in pairs) / min(base.mean for _, base in pairs)
            step = statistics.median(own.median / base.median for own, base in pairs)
            ms = statistics.median(own.mean for own, _ in pairs)
            results.append(Result(name, work, variant, ms, middle, low, high, floor, step))
        results.append(compare_before(name, work, before[work], times["bare"]))
    return results


def compare_before(name: str, work: str, before: list[Block], later: list[Block]) -> Result:
    """Blocks of the bare model from before anything was captured, and those from between captures."""
    usual = statistics.median(block.mean for block in later)
    low, middle, high = statistics.quantiles((block.mean for block in before), n=4)
    floor = min(block.mean for block in before) / min(block.mean for block in later)
    step = statistics.median(block.median for block in before) / statistics.median(block.median for block in later)
    return Result(name, work, "bare-before", middle, middle / usual, low / usual, high / usual, floor, step)


def show(results: list[Result]) -> None:
    for result in results:
        print(
            f"{result.model:16} {result.work:8} {result.variant:18} {result.ms:9.3f} ms"
            f"   ×{result.ratio:.4f}  ({result.low:.4f} to {result.high:.4f})   floor ×{result.floor:.4f}"
            f"   step ×{result.step:.4f}"
        )


def main() -> int:
    add_nnsight()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--layers", type=int, default=32, help="of mixtral-8x7b, where the device's memory is less")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--work", default="decode,prefill")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--block", type=float, default=2.0, help="seconds of decode steps: several recorder's turns")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=0, help="threads of torch on the CPU; its default if 0")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    variants = options.variants.split(",")
    if "bare" not in variants:
        variants.insert(0, "bare")
    torch.manual_seed(0)
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    results: list[Result] = []
    with torch.no_grad():
        for name in options.models.split(","):
            if name == LARGE:
                with made_on(options.device, dtype or torch.float32):
                    model = mixtral_8x7b(options.layers).eval()
                found = measure(name, model, [variant for variant in variants if variant != "clone"], options)
            else:
                model = MODELS[name]().to(options.device, dtype).eval()
                found = measure(name, model, variants, options)
            results += found
            if not options.json:
                show(found)
    if options.json:
        about = {"device": options.device, "dtype": options.dtype, "threads": torch.get_num_threads()}
        about |= {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
        print(json.dumps({"about": about, "results": [vars(result) for result in results]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
