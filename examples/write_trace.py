"""Writes a trace from any program that has NumPy arrays: here a toy router of eight experts in three layers.

Run it with a file name, then look at the file: ``moetui replay toy.msgpack``, ``moetui stats toy.msgpack``.
"""

from __future__ import annotations

import sys

import numpy as np

from moetui import TraceWriter
from moetui.routing import ModelInfo, Phase, Site, Step

LAYERS, EXPERTS, TOP_K = 3, 8, 2
WORDS = ["The", " mixture", " sends", " each", " token", " to", " its", " experts", "."]


def main(path: str) -> None:
    sites = tuple(
        Site(i, f"L{i}", i, f"layers.{i}.experts", f"layers.{i}.router", EXPERTS, EXPERTS, TOP_K, scoring="softmax")
        for i in range(LAYERS)
    )
    info = ModelInfo("toy", "ToyRouter", "toy", sites, num_layers=LAYERS)
    rng = np.random.default_rng(0)
    with TraceWriter(path, info, prompt="The mixture") as writer:
        for number in range(40):
            logits = rng.normal(size=(1, LAYERS, EXPERTS)).astype(np.float16)
            writer.write_step(step(number, logits))


def step(number: int, logits: np.ndarray) -> Step:
    """One token through all layers: the two best experts, weighted by the softmax over the two."""
    experts = np.argsort(-logits, axis=-1)[..., :TOP_K]
    weights = np.exp(np.take_along_axis(logits, experts, -1).astype(np.float32))
    token = number % len(WORDS)
    return Step(
        index=number,
        phase=Phase.DECODE,
        started=0.02 * number,  # seconds
        duration=15.0,  # milliseconds
        sequence=np.zeros(1, np.int16),
        position=np.array([number], np.int32),
        token_id=np.array([token], np.int32),
        pad=np.zeros(1, np.bool_),
        logprob=np.full(1, np.nan, np.float32),  # unknown
        indices=experts.astype(np.uint16),
        weights=(weights / weights.sum(-1, keepdims=True)).astype(np.float16),
        logits=logits,
        flags=np.zeros((1, LAYERS), np.uint8),
        candidate_ids=np.empty((1, 0), np.int32),
        candidate_logprobs=np.empty((1, 0), np.float16),
        site_ms=np.array([3.0, 7.0, 11.0], np.float32),
        vocabulary={token: WORDS[token]},
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "toy.msgpack")
