"""Models and steps as a recording has them: a prefill, then decode steps, with weights that follow the logits."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from moetui.routing import ModelInfo, ModuleNode, ParameterInfo, Phase, Site, Step
from moetui.routing.steps import Steps
from moetui.routing.timeline import StepColumns, TokenColumns


def make_info(sites=2, experts=4, top_k=2, name="tiny"):
    return ModelInfo(
        name=name,
        architecture="TinyForCausalLM",
        model_type="tiny",
        sites=tuple(make_site(index, experts, top_k) for index in range(sites)),
        num_layers=sites,
        parameters=1000,
        nbytes=4000,
        vocab_size=100,
        context_length=512,
        dtype="float32",
        device="cpu",
        modules=(
            ModuleNode("", "TinyForCausalLM", "model"),
            ModuleNode(
                "lm_head",
                "Linear",
                "head",
                (
                    ParameterInfo("weight", (100, 8), "float32", "cpu", 3200, "shared"),
                    ParameterInfo("scale", (), "float32", "cpu", 4, "buffer"),
                ),
            ),
            ModuleNode("model.layers.0.gate", "Router", "router", (), 0),
        ),
        versions={"torch": "2.13.0"},
    )


def make_site(index, experts, top_k):
    path = f"model.layers.{index}"
    return Site(
        index,
        f"L{index}",
        index,
        f"{path}.experts",
        f"{path}.gate",
        experts,
        experts,
        top_k,
        scoring="softmax",
        logits_form="logits",
        normalised=True,
        scale=1.0,
    )


def make_steps(info, prefill=7, decode=5, seed=0, candidates=3):
    rng = np.random.default_rng(seed)
    steps = [make_step(info, rng, 0, prefill, Phase.PREFILL, 0, 0.0, candidates)]
    for index in range(1, decode + 1):
        step = make_step(info, rng, index, 1, Phase.DECODE, prefill + index - 1, 0.05 * index, candidates)
        steps.append(step)
    return steps


def make_step(info, rng, index, count, phase, position, started, candidates=3):
    sites, k, classes = len(info.sites), info.top_k, info.num_classes
    logits = rng.normal(size=(count, sites, classes)).astype(np.float16)
    order = np.argsort(-logits.astype(np.float32), axis=-1, kind="stable")[..., :k]
    shares = np.exp(np.take_along_axis(logits.astype(np.float32), order, -1))
    ids = rng.integers(0, 100, count).astype(np.int32)
    return Step(
        index=index,
        phase=phase,
        started=started,
        duration=40.0,
        sequence=np.zeros(count, np.int16),
        position=np.arange(position, position + count, dtype=np.int32),
        token_id=ids,
        pad=np.zeros(count, np.bool_),
        logprob=-rng.random(count).astype(np.float32),
        indices=order.astype(np.uint16),
        weights=(shares / shares.sum(-1, keepdims=True)).astype(np.float16),
        logits=logits,
        flags=np.zeros((count, sites), np.uint8),
        candidate_ids=rng.integers(0, 100, (count, candidates)).astype(np.int32),
        candidate_logprobs=-rng.random((count, candidates)).astype(np.float16),
        site_ms=np.linspace(1, 30, sites, dtype=np.float32),
        vocabulary={int(each): f" w{each}" for each in ids},
    )


def assert_same_view(got, want):
    """All that a screen can ask of two views is the same, bit for bit."""
    assert (got.first, got.end) == (want.first, want.end)
    assert got.stacks == want.stacks
    assert got.sites == want.sites
    same_columns(got.tokens(0, got.end), want.tokens(0, want.end), TokenColumns)
    same_columns(got.steps(), want.steps(), StepColumns)
    for name in ("indices", "weights", "logits", "flags"):
        mine, other = getattr(got.routing(0, got.end), name), getattr(want.routing(0, want.end), name)
        assert (mine is None) == (other is None), name
        if mine is not None:
            same_array(mine, other, name)
    for token_id in set(want.tokens(0, want.end).token_id.tolist()):
        assert got.text(token_id) == want.text(token_id)


def same_columns(got, want, cls):
    for field in fields(cls):
        same_array(getattr(got, field.name), getattr(want, field.name), field.name)


def same_array(got, want, name=""):
    assert got.shape == want.shape, name
    assert got.dtype == want.dtype, name
    assert got.tobytes() == want.tobytes(), name
    assert not got.flags.writeable, name


def joined(steps):
    """Steps alike in shape as one ``Steps``."""
    first = steps[0]
    by_token = [field.name for field in fields(Step) if field.name not in _OF_STEPS]

    def column(name):
        values = [getattr(step, name) for step in steps]
        return None if values[0] is None else np.concatenate(values)

    return Steps(
        phase=first.phase,
        index=np.array([step.index for step in steps], np.int32),
        branch=np.array([step.branch for step in steps], np.int16),
        started=np.array([step.started for step in steps], np.float64),
        duration=np.array([step.duration for step in steps], np.float64),
        site_ms=np.stack([step.site_ms for step in steps]),
        stack=first.stack,
        vocabulary={key: text for step in steps for key, text in step.vocabulary.items()},
        memory=first.memory,
        **{name: column(name) for name in by_token},
    )


_OF_STEPS = {"index", "phase", "branch", "started", "duration", "site_ms", "stack", "vocabulary", "memory", "scores"}
