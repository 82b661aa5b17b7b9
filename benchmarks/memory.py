"""What watching adds to a process's memory: the same run bare and under MoEDebugger, each in a process of its own.

    python benchmarks/memory.py [--tokens 2048] [--layers 48] [--experts 128] [--top-k 8] [--repeats 3] [--json]

The model is a narrow Qwen3-MoE with random weights; half of the tokens are its prompt, the other half is generated.
What is compared is the highest resident size of the process, of which the model and torch are the same in both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HIDDEN = 64


def model(options: argparse.Namespace) -> Any:
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        moe_intermediate_size=HIDDEN // 2,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=HIDDEN // 4,
        num_experts=options.experts,
        num_experts_per_tok=options.top_k,
        vocab_size=32_000,
        max_position_embeddings=options.tokens,
    )
    return Qwen3MoeForCausalLM(config).eval()


def run(options: argparse.Namespace) -> int:
    """One run in this process. Returns its highest resident size, in bytes."""
    import torch

    from moetui import MoEDebugger

    made = model(options)
    half = options.tokens // 2
    prompt = torch.randint(5, 32_000, (1, half))
    watch = MoEDebugger(made) if options.variant == "watched" else contextlib.nullcontext()
    with watch as debugger:
        made.generate(input_ids=prompt, max_new_tokens=half, min_new_tokens=half, do_sample=False, pad_token_id=0)
        if debugger is not None:
            debugger.flush()
            kept = debugger.timeline.snapshot()
            assert kept.end - kept.first >= options.tokens - 1, "not everything was kept"
    return highest_resident()


def highest_resident() -> int:
    # Not getrusage: its figure goes on over exec, so that it starts with that of the process that started this one.
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def measure(options: argparse.Namespace) -> dict[str, float]:
    shape = [f"--{name}={getattr(options, name)}" for name in ("tokens", "layers", "experts")]
    sizes: dict[str, list[int]] = {"bare": [], "watched": []}
    for _ in range(options.repeats):
        for variant, found in sizes.items():
            command = [sys.executable, __file__, *shape, f"--top-k={options.top_k}", f"--variant={variant}"]
            found.append(int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    bare, watched = (statistics.median(found) / 1e6 for found in sizes.values())
    spread = (max(sizes["bare"]) - min(sizes["bare"])) / 1e6
    return {"bare_mb": bare, "watched_mb": watched, "added_mb": watched - bare, "spread_of_bare_mb": spread}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=["bare", "watched"], help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.variant:
        print(run(options))
        return 0
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    for name, value in found.items():
        print(f"{name:20} {value:9.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
