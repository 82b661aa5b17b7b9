"""What breakpoints cost: runs watched without any, with five switched off and with five on, interleaved in one process.

    python benchmarks/breakpoints.py
    python benchmarks/breakpoints.py --layers 24 --hidden 512 --experts 64 --top-k 8 --repeats 40 --json

Each repeat times every variant once, in an order that changes: one ``model.generate`` of so many tokens. Milliseconds
are of a token, medians over repeats; a ratio is the median over repeats of a variant's time divided by that of the same
repeat without breakpoints, its floor the quotient of both minima. ``none-again`` is the control, whose ratio shows the
noise. None of the five ever holds, so that all are looked at after every step.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from time import perf_counter
from typing import Any

import torch
from transformers import MixtralConfig, MixtralForCausalLM

from moetui import MoEDebugger

FIVE = (
    "entropy < 0.0001 and layer == 5",
    "7 in topk and weight[7] > 0.9999",
    "mean_margin > 1e6",
    'token:"never" and phase:decode',
    "nan or inf or dropped",
)
VARIANTS = ("none", "none-again", "five-off", "five")


def build(options: argparse.Namespace) -> Any:
    config = MixtralConfig(
        hidden_size=options.hidden,
        intermediate_size=2 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_local_experts=options.experts,
        num_experts_per_tok=options.top_k,
        vocab_size=32_000,
    )
    return MixtralForCausalLM(config).to(options.device, getattr(torch, options.dtype)).eval()


def timed(debugger: MoEDebugger, variant: str, tokens: int) -> float:
    """Milliseconds a token."""
    points = debugger.breakpoints
    for point in points:
        points.enable(point.id, variant == "five")
    if variant.startswith("none"):
        points.clear()
    elif not len(points):
        for expression in FIVE:
            points.add(expression, enabled=variant == "five")
    model = debugger.model
    ids = torch.arange(5, 69, device=model.device)[None]
    began = perf_counter()
    model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
    took = 1e3 * (perf_counter() - began) / tokens
    debugger.flush()
    debugger.clear_buffer()
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=16, help="tokens of a run")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    order = random.Random(0)
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    with MoEDebugger(build(options)) as debugger:
        for variant in VARIANTS:
            timed(debugger, variant, options.tokens)
        for _ in range(options.repeats):
            for variant in order.sample(VARIANTS, len(VARIANTS)):
                times[variant].append(timed(debugger, variant, options.tokens))
    results = []
    for variant in VARIANTS:
        ratio = statistics.median(own / base for own, base in zip(times[variant], times["none"]))
        floor = min(times[variant]) / min(times["none"])
        result = {"variant": variant, "ms": statistics.median(times[variant]), "ratio": ratio, "floor": floor}
        results.append(result)
        if not options.json:
            print(f"{variant:12} {result['ms']:9.3f} ms a token   ×{ratio:.4f}   floor ×{floor:.4f}")
    if options.json:
        print(json.dumps({"options": vars(options), "results": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
