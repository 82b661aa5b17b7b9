"""Writes a trace from any program that has NumPy arrays: here a toy router of eight experts in three layers.

Run it with a file name, then look at the file: ``moetui replay toy.msgpack``, ``moetui stats toy.msgpack``.
"""

from __future__ import annotations

import sys

import numpy as np

from moetui import TraceWriter
from moetui.routing import ModelInfo, Site
from moetui.trace import step_from_arrays

LAYERS, EXPERTS, TOP_K = 3, 8, 2
WORDS = ["The", " mixture", " sends", " each", " token", " to", " its", " experts", "."]


def main(path: str) -> None:
    sites = tuple(
        Site(i, f"L{i}", i, "", "", EXPERTS, EXPERTS, TOP_K, scoring="softmax", logits_form="logits")
        for i in range(LAYERS)
    )
    with TraceWriter(path, ModelInfo("toy", "ToyRouter", "toy", sites), prompt="The mixture") as writer:
        for number in range(40):
            logits, experts, weights = route(number)
            token = number % len(WORDS)
            # Only the experts and the step's number are needed; what else is left out stays unknown.
            step = step_from_arrays(
                experts,
                index=number,
                weights=weights,
                logits=logits,
                token_id=[token],
                texts={token: WORDS[token]},
                position=[number],
                started=0.02 * number,  # seconds
                duration=15.0,  # milliseconds
            )
            writer.write_step(step)


def route(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One token through all layers: logits, the two best experts, and the softmax over the two."""
    logits = np.random.default_rng(seed).normal(size=(1, LAYERS, EXPERTS))
    experts = np.argsort(-logits, axis=-1)[..., :TOP_K]
    weights = np.exp(np.take_along_axis(logits, experts, -1))
    return logits, experts, weights / weights.sum(-1, keepdims=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "toy.msgpack")
