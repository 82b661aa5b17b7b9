"""What a trace costs: bytes, writing, opening, finding a token, statistics, export.

    python benchmarks/trace.py [--tokens 100000] [--json] [--no-demo]

Sizes are those of a recorded run of the demo model (its logits are those of a trained router) and of synthetic routing
(an autoregressive hidden state of 32 dimensions, correlation 0.6 from token to token, through random routers). The
large file is synthetic: 48 sites of 128 experts, top-8, with logits. Opening, finding tokens and what ``moetui replay``
takes in a terminal is wall time, all else processor time. Everything is written to a temporary folder.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from replaying import forget, memory_mb, replays

from moetui.routing import ModelInfo, Phase, Site, Step, TimelineView
from moetui.routing.scores import token_scores
from moetui.trace import Held, TraceWriter, export, import_file, open_trace, recorded_stats, steps_of

SITES, EXPERTS, TOP_K = 48, 128, 8
HIDDEN, CORRELATION = 32, 0.6
BLOCK = 1000
Exact: TypeAlias = tuple[np.ndarray, np.ndarray]  # logits [n, S, E] and weights [n, S, K] as the router has them
PROMPT = "Once there was a small router that"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-demo", action="store_true")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        json.dump(read_large(Path(options.read)), sys.stdout)
        return
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="moetui-bench-") as name:
        folder = Path(name)
        if not options.no_demo:
            results["sizes, demo run"] = demo_sizes(folder)
            results["writing, demo run"] = demo_rates(folder / "demo.msgpack")
            results["sizes, demo run in 32-bit floats"] = demo_sizes(folder, "--dtype", "float32")
        results["sizes, synthetic 16×64, 1,024 tokens"] = synthetic_sizes(folder, 16, 64, 512)
        results["sizes, synthetic 48×128, 256 tokens"] = synthetic_sizes(folder, SITES, EXPERTS, 128)
        results["writing, synthetic (48 sites of 128 experts), processor time"] = write_rates(folder)
        results[f"large file, {options.tokens:,} tokens"] = large(folder, options.tokens)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for title, numbers in results.items():
        print(f"\n{title}")
        for name, value in numbers.items():
            print(f"  {name:<58} {value:>14,.3f}" if value < 1000 else f"  {name:<58} {value:>14,.0f}")


# Data.


def synthetic_info(sites: int = SITES, experts: int = EXPERTS, top_k: int = TOP_K) -> ModelInfo:
    return ModelInfo(
        "synthetic",
        "Synthetic",
        "synthetic",
        tuple(
            Site(i, f"L{i}", i, "", "", experts, experts, top_k, scoring="softmax", logits_form="logits")
            for i in range(sites)
        ),
        num_layers=sites,
    )


class Synthetic:
    """Steps whose logits are correlated from token to token and biased by expert, as those of real routers are."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.rng = np.random.default_rng(0)
        sites, experts = len(info.sites), info.num_experts
        self.routers = (self.rng.normal(size=(sites, HIDDEN, experts)) * 1.2 / math.sqrt(HIDDEN)).astype(np.float32)
        self.bias = (self.rng.normal(size=(sites, 1, experts)) * 0.5).astype(np.float32)
        self.hidden = np.zeros((sites, HIDDEN), np.float32)
        self.index = self.position = 0
        self.exact: list[Exact] = []

    def step(self, count: int, phase: Phase = Phase.PREFILL) -> Step:
        sites, k = len(self.info.sites), self.info.top_k
        noise = self.rng.normal(size=(count, sites, HIDDEN)).astype(np.float32) * math.sqrt(1 - CORRELATION**2)
        states = np.empty((sites, count, HIDDEN), np.float32)
        for row in range(count):
            self.hidden = CORRELATION * self.hidden + noise[row]
            states[:, row] = self.hidden
        exact = (states @ self.routers + self.bias).transpose(1, 0, 2)
        logits = exact.astype(np.float16)
        top = np.argpartition(-logits, k, axis=-1)[..., :k]
        order = np.argsort(-np.take_along_axis(logits, top, -1), axis=-1)
        indices = np.take_along_axis(top, order, -1)
        weights = np.exp(np.take_along_axis(logits, indices, -1).astype(np.float32))
        chosen = np.exp(np.take_along_axis(exact, indices, -1))
        self.exact.append((exact, chosen / chosen.sum(-1, keepdims=True)))
        index, position = self.index, self.position
        self.index, self.position = index + 1, position + count
        return Step(
            index=index,
            phase=phase,
            # Whole microseconds, as the recorder has them.
            started=50_000 * index / 1e6,
            duration=round(1000 * (40.0 + self.rng.random())) / 1e3,
            sequence=np.zeros(count, np.int16),
            position=np.arange(position, position + count, dtype=np.int32),
            token_id=self.rng.integers(0, 50_000, count).astype(np.int32),
            pad=np.zeros(count, np.bool_),
            logprob=-self.rng.random(count).astype(np.float32),
            indices=indices.astype(np.uint16),
            weights=(weights / weights.sum(-1, keepdims=True)).astype(np.float16),
            logits=logits,
            flags=np.zeros((count, sites), np.uint8),
            candidate_ids=np.empty((count, 0), np.int32),
            candidate_logprobs=np.empty((count, 0), np.float16),
            site_ms=(np.sort(self.rng.integers(0, 40_000, sites)) / 1e3).astype(np.float32),
        )


# Sizes.


def demo_sizes(folder: Path, *dtype: str) -> dict[str, float]:
    path = folder / "demo.msgpack"
    command = [sys.executable, "-m", "moetui", "record", "demo", "-p", PROMPT, "-n", "400", "-o", str(path), "-q"]
    subprocess.run([*command, "--overwrite", *dtype], check=True, stdout=subprocess.DEVNULL)
    with open_trace(path) as trace:
        out = {"tokens": trace.num_tokens, "bytes of the recording as it was written": path.stat().st_size}
        steps = list(steps_of(trace.timeline))
        out.update(sizes(folder, trace.info, steps, demo_numbers(steps, trace.info.dtype)))
    return out


def demo_rates(path: Path) -> dict[str, float]:
    """How fast the recorded run decoded, and how fast its decode steps are written once more, one by one."""
    with open_trace(path) as trace:
        info, rate = trace.info, recorded_stats(trace)["tokens_per_second"]
        steps = [with_scores(step, info) for step in steps_of(trace.timeline) if step.phase is Phase.DECODE]

    def write() -> None:
        with TraceWriter(path.with_name("again.msgpack"), info, overwrite=True) as writer:
            for step in steps:
                writer.write_step(step)

    written = len(steps) / best(write)
    return {
        "decoded tokens a second, wall time": rate,
        "tokens written a second": written,
        "written over decoded": written / rate,
    }


def demo_numbers(steps: list[Step], dtype: str) -> list[Exact]:
    """Router logits and weights of the demo model step by step, as a program gets them that has nothing of ours."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    from moetui.demo import model_path
    from moetui.engine.caches import cache_argument

    model = AutoModelForCausalLM.from_pretrained(model_path(), dtype=getattr(torch, dtype))
    given: dict = {cache_argument(model): DynamicCache(config=model.config), "output_router_logits": True}
    out = []
    with torch.no_grad():
        for step in steps:
            seen = model(torch.tensor(step.token_id)[None].long(), use_cache=True, **given)
            logits = torch.stack(seen.router_logits, 1).float()
            weights = logits.softmax(-1).topk(model.config.num_experts_per_tok).values
            out.append((logits.numpy(), (weights / weights.sum(-1, keepdim=True)).numpy()))
    return out


def synthetic_sizes(folder: Path, sites: int, experts: int, tokens: int) -> dict[str, float]:
    """A prompt of so many tokens, and as many decoded ones."""
    source = Synthetic(synthetic_info(sites, experts, TOP_K))
    steps = [source.step(tokens), *(source.step(1, Phase.DECODE) for _ in range(tokens))]
    return sizes(folder, source.info, steps, source.exact)


def sizes(folder: Path, info: ModelInfo, steps: list[Step], exact: list[Exact]) -> dict[str, float]:
    tokens = sum(step.num_tokens for step in steps)
    path = folder / "sizes.msgpack"

    def traced(**kept: bool) -> int:
        with TraceWriter(path, info, overwrite=True, flush_seconds=math.inf, **kept) as writer:
            for step in steps:
                writer.write_step(step)
        return path.stat().st_size

    ids_and_weights = traced(has_logits=False)
    whole = traced()
    log, arrays = io.BytesIO(), io.BytesIO()
    with open_trace(path) as trace:
        export(trace, "json", log)
        np.savez_compressed(arrays, **columns(trace.timeline))
    # The same log as a program writes it that takes the router's own numbers, not half floats.
    own = json.dumps(with_numbers(json.loads(log.getvalue()), exact)).encode()
    # A trace of what the log holds: no times, no candidates.
    (folder / "log.json").write_bytes(log.getvalue())
    import_file(folder / "log.json", folder / "log.msgpack", overwrite=True)
    same = (folder / "log.msgpack").stat().st_size
    packed = len(gzip.compress(log.getvalue(), 6))
    return {
        "bytes/token: trace": whole / tokens,
        "bytes/token: npz of the same": len(arrays.getvalue()) / tokens,
        "bytes/token: router-log json, half floats": len(log.getvalue()) / tokens,
        "bytes/token: router-log json, the router's own numbers": len(own) / tokens,
        "bytes/token: gzip -6 of the json of half floats": packed / tokens,
        "bytes/token: trace of what the json holds": same / tokens,
        "npz / trace": len(arrays.getvalue()) / whole,
        "json of half floats / trace": len(log.getvalue()) / whole,
        "json of half floats / trace of what it holds": len(log.getvalue()) / same,
        "json of the router's own numbers / trace": len(own) / whole,
        "json of the router's own numbers / trace of what it holds": len(own) / same,
        "gzip -6 of the json / trace of what it holds": packed / same,
        "bytes/token: trace without logits": ids_and_weights / tokens,
        "bytes a token and site: trace without logits": ids_and_weights / tokens / len(info.sites),
    }


def columns(view: TimelineView) -> dict[str, np.ndarray]:
    tokens, block, steps = view.tokens(0, view.end), view.routing(0, view.end), view.steps()
    out = {field.name: getattr(tokens, field.name) for field in fields(tokens)}
    out |= {f"steps_{field.name}": getattr(steps, field.name) for field in fields(steps)}
    texts = "\0".join(view.text(token_id) for token_id in np.unique(tokens.token_id).tolist())
    texts = np.frombuffer(texts.encode("utf-8", "surrogateescape"), np.uint8)
    return {**out, "indices": block.indices, "weights": block.weights, "logits": block.logits, "texts": texts}


def with_numbers(log: dict, exact: list[Exact]) -> dict:
    logits, weights = (np.concatenate(arrays) for arrays in zip(*exact, strict=True))
    (sample,) = log["samples"]
    for number, layer in enumerate(sample["layers"]):
        for name, values in (("router_logits_sample", logits), ("expert_weights", weights)):
            want = np.array(layer[name], np.float32)
            assert np.allclose(want, values[:, number], rtol=0.002, atol=0.002), name  # the same run
            layer[name] = values[:, number].tolist()
    return log


# Rates.


def with_scores(step: Step, info: ModelInfo) -> Step:
    """As the recorder hands them on."""
    return replace(step, scores=token_scores(step, info.sites))


def write_rates(folder: Path) -> dict[str, float]:
    source = Synthetic(synthetic_info())
    steps = [source.step(BLOCK) for _ in range(6)]
    size = sum(s.logits.nbytes + s.weights.nbytes + s.indices.nbytes for s in steps)
    scored = [with_scores(step, source.info) for step in steps]
    out = {"raw MB": size / 1e6, "memcpy, MB/s": size / 1e6 / best(lambda: [copied(step) for step in steps])}
    cases = (("zstd", scored, "zstd"), ("not compressed", scored, None), ("zstd, scores computed too", steps, "zstd"))
    for title, given, compression in cases:

        def write(given=given, compression=compression) -> None:
            path = folder / "rate.msgpack"
            with TraceWriter(path, source.info, overwrite=True, compression=compression) as writer:
                for step in given:
                    writer.write_step(step)

        out[f"write_step, MB/s, {title}"] = size / 1e6 / best(write)
    ones = [with_scores(step, source.info) for step in (source.step(1) for _ in range(500))]
    with TraceWriter(folder / "rate.msgpack", source.info, overwrite=True) as writer:
        begun = time.process_time()
        for step in ones:
            writer.write_step(step)
        out["write_step of one decoded token, ms"] = (time.process_time() - begun) / len(ones) * 1e3
    return out


def copied(step: Step) -> Step:
    return replace(step, logits=step.logits.copy(), weights=step.weights.copy(), indices=step.indices.copy())


def best(function, rounds: int = 3) -> float:
    """Seconds of processor time, so that the figures are those of a machine that does nothing else."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times)


# The large file.


def large(folder: Path, tokens: int) -> dict[str, float]:
    path = folder / "large.msgpack"
    source = Synthetic(synthetic_info())
    spent = 0.0
    with TraceWriter(path, source.info) as writer:
        for _ in range(0, tokens, BLOCK):
            step = source.step(BLOCK)
            begun = time.process_time()
            writer.write_step(step)
            spent += time.process_time() - begun
    out = {"file MB": path.stat().st_size / 1e6, "write_step in all, scores too, s": spent}
    # In a process of its own, so that its memory is the reader's.
    done = subprocess.run([sys.executable, __file__, "--read", str(path)], check=True, capture_output=True, text=True)
    small = folder / "small.msgpack"
    source = Synthetic(synthetic_info(6, 8, 2))
    with TraceWriter(small, source.info) as writer:
        for step in (source.step(8), *(source.step(1, Phase.DECODE) for _ in range(40))):
            writer.write_step(step)
    cases = {"of 48 tokens": (small, False), "in the page cache": (path, False), "not in it": (path, True)}
    return out | json.loads(done.stdout) | replays(cases)


def read_large(path: Path) -> dict[str, float]:
    out: dict[str, float] = {}
    forget(path)
    before = memory_mb("VmRSS")
    begun = time.perf_counter()
    trace = open_trace(path)
    out["open, ms (not in the page cache)"] = (time.perf_counter() - begun) * 1e3
    view = trace.timeline
    rng = np.random.default_rng(1)
    times, busy = [], time.process_time()
    for token in rng.integers(0, view.end, 300).tolist():
        begun = time.perf_counter()
        block = view.routing(token, token + 1)
        assert block.logits is not None
        assert block.logits.shape == (1, SITES, EXPERTS)
        view.tokens(token, token + 1)
        times.append((time.perf_counter() - begun) * 1e3)
    times.sort()
    out["any token with its logits, mean processor ms"] = (time.process_time() - busy) * 1e3 / len(times)
    out["any token with its logits, median ms"] = statistics.median(times)
    out["any token with its logits, p95 ms"] = times[int(0.95 * len(times))]
    out["memory that opening and 300 such tokens took, MB"] = memory_mb("VmHWM") - before
    begun = time.process_time()
    for start in range(0, view.end, 4096):
        view.tokens(start, start + 4096)
    out["light columns of all tokens, ms"] = (time.process_time() - begun) * 1e3
    plain = best(lambda: plain_read(path), 2)
    out["reading the file's bytes, s"] = plain
    begun = time.process_time()
    for start in range(0, view.end, 1024):
        assert view.routing(start, start + 1024).logits is not None
    out["unpacking all logits, s"] = time.process_time() - begun
    begun, wall = time.process_time(), time.perf_counter()
    trace.stats()
    out["stats, s"] = time.process_time() - begun
    out["stats, s of wall time"] = time.perf_counter() - wall
    reads, counts = [], []
    for _ in range(5):
        reads.append(from_disk(path, lambda: plain_read(path)))
        counts.append(from_disk(path, trace.stats))
    out["reading the file's bytes from the disk, median s of wall time"] = statistics.median(reads)
    out["stats from the disk, median s of wall time"] = statistics.median(counts)
    out["stats over reading the bytes, both from the disk"] = statistics.median(counts) / statistics.median(reads)
    part = view.clip(4000)
    log = Counter()
    begun = time.process_time()
    export(Held(trace.info, part), "json", log)
    spent = time.process_time() - begun
    out["export json, tokens/s"] = part.end / spent
    out["export json, MB/s"] = log.size / 1e6 / spent
    out["highest memory of all that, MB"] = memory_mb("VmHWM")
    return out


class Counter(io.RawIOBase):
    """Counts what is written to it."""

    size = 0

    def write(self, data) -> int:
        self.size += len(data)
        return len(data)


def plain_read(path: Path) -> None:
    with path.open("rb", buffering=0) as stream:
        while stream.read(1 << 20):
            pass


def from_disk(path: Path, function: Callable[[], object]) -> float:
    """Seconds of wall time with the file not in the page cache."""
    forget(path)
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
