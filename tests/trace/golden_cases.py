"""The recording of the golden files: every kind of record and event, with numbers that no library computes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from moetui.routing import ModelInfo, ModuleNode, ParameterInfo, Phase, Site, Step
from moetui.routing.events import (
    Branch,
    BranchAdded,
    BreakpointHit,
    Finding,
    FindingRaised,
    GenerationSettings,
    InterventionsChanged,
    ModelChanged,
    RunState,
    RunStateChanged,
)
from moetui.routing.interventions import BanExperts, BoostExperts, ExpertCapacity, Scope, SwapExperts
from moetui.routing.step import TokenScores
from moetui.trace import TraceWriter

STEPS = {1: ((0, 5, 0), (1, 1, 5), (2, 1, 6)), 2: ((0, 5, 0), (1, 1, 5), (2, 1, 6), (3, 6, 7))}  # by version
SETTINGS = GenerationSettings(max_new_tokens=4, temperature=0.5, seed=7)


def golden_info(scoring="softmax"):
    def site(index):
        path = f"model.layers.{index}.mlp"
        return Site(index, f"L{index}", index, f"{path}.experts", f"{path}.gate", 4, 4, 2, scoring=scoring)

    return ModelInfo(
        name="golden",
        architecture="GoldenForCausalLM",
        model_type="golden",
        sites=(site(0), site(1)),
        num_layers=2,
        parameters=123,
        nbytes=492,
        vocab_size=9,
        context_length=None,
        dtype="float32",
        device="cpu",
        modules=(
            ModuleNode("", "GoldenForCausalLM", "model"),
            ModuleNode(
                "model.layers.0.mlp.gate", "Router", "router", (ParameterInfo("w", (4, 8), "f", "cpu", 128),), 0
            ),
        ),
        versions={"torch": "0"},
    )


def golden_step(index, count, position):
    numbers = np.arange(count * 2 * 4) + 100 * index
    logits = (((numbers * 7) % 23 - 11) / 8).reshape(count, 2, 4).astype(np.float16)
    experts = np.stack([(numbers[::4] + k) % 4 for k in range(2)], -1).reshape(count, 2, 2).astype(np.uint16)
    weights = np.broadcast_to(np.array([0.75, 0.25], np.float16), (count, 2, 2)).copy()
    if index == 2:
        logits[0, 0] = np.nan, np.inf, -np.inf, -0.0
        experts[0, 1] = 0xFFFF
        weights[0, 1] = np.nan
    if index == 3:  # as the logits say, but for one place; one weight is another rounding of what they say
        logits[4, 1] = 0.0, -0.0, 1.0, 1.0
        experts = np.argsort(-logits, axis=-1, kind="stable")[..., :2].astype(np.uint16)
        experts[2, 0] = experts[2, 0, ::-1]
        shares = np.exp(np.take_along_axis(logits, experts, -1).astype(np.float64))
        weights = (shares / shares.sum(-1, keepdims=True)).astype(np.float16)
        weights[3, 1, 0] = np.nextafter(weights[3, 1, 0], np.float16(1))
    return Step(
        index=index,
        phase=Phase.DECODE if index else Phase.PREFILL,
        started=0.25 * index,
        duration=125.0,
        sequence=np.zeros(count, np.int16),
        position=np.arange(position, position + count, dtype=np.int32),
        token_id=((np.arange(count) + position) % 9).astype(np.int32),
        pad=np.arange(count) == (1 if index == 0 else -1),
        logprob=np.full(count, -0.5 * index if index else math.nan, np.float32),
        indices=experts,
        weights=weights,
        logits=logits,
        flags=np.full((count, 2), index % 2, np.uint8),
        candidate_ids=np.full((count, index), 3, np.int32),
        candidate_logprobs=np.full((count, index), -1.5, np.float16),
        site_ms=np.array([40.0, math.nan], np.float32),
        vocabulary={0: "Once", 1: " caf\udcc3", 2: "\udca9\x1b[0m", 3: "", 4: "日本"} if index == 0 else {},
    )


def golden_scores(step):
    values = np.arange(step.num_tokens, dtype=np.float32) / 4
    return TokenScores(values, values + 1, values + 2)


EVENTS = {
    0: [BranchAdded(Branch(0, 0, "main", prompt="Once \udcff"), SETTINGS), RunStateChanged(RunState.RUNNING)],
    1: [
        InterventionsChanged(
            (
                BanExperts((1,), Scope((0,), ("L0",), (2, None), Phase.DECODE)),
                BoostExperts((0, 2), 0.5),
                ExpertCapacity(1.25),
                SwapExperts(0, 3),
            ),
            5,
            {"L0": "reroute"},
        ),
        ModelChanged(golden_info("sigmoid")),
    ],
    2: [
        BreakpointHit(1, "entropy < 0.3", 5, 1, "entropy = 0.25", 1),
        FindingRaised(Finding("dead_expert", "warning", "expert 3 is dead", "look at it", "L1")),
    ],
    3: [RunStateChanged(RunState.FINISHED, "4 tokens")],
}


def write_golden(path, compression):
    with TraceWriter(
        path,
        golden_info(),
        settings=SETTINGS,
        prompt="Once",
        compression=compression,
        flush_seconds=math.inf,
    ) as writer:
        for index, count, position in STEPS[2]:
            for event in EVENTS[index]:
                writer.write_event(event)
            step = golden_step(index, count, position)
            writer.write_step(replace(step, scores=golden_scores(step)))
