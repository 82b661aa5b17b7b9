"""What a token attended to and what its predecessors were worth to it, against passes of another kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from moetui.engine.zoo import build, tokenizer
from moetui.routing import ModelError, UnsupportedError, UsageError
from tests.engine.interception import hook_state
from tests.engine.test_analyses import IDS, MAIN, ZooModel, ask, passed, subject

PLACE = 8


def implementations(model: Any) -> list[str]:
    return [module.config._attn_implementation for module in model.modules() if hasattr(module, "config")]


@pytest.mark.parametrize("name", [*MAIN, "jetmoe", "dbrx"])
@torch.no_grad()
def test_attention_is_the_models_own(name: str) -> None:
    model = build(name).model  # one of its own: asked for attention, the library leaves hooks on a model
    on = subject(model)
    state, before = hook_state(model), implementations(model)
    found = ask(on, "attention", branch=0, position=PLACE)
    assert (hook_state(model), implementations(model)) == (state, before)
    assert found.tokens.tolist() == list(range(PLACE + 1))
    assert found.layers == (0, 1, 2, 3)
    assert found.rerouted == 0
    # The whole sequence by the library's own switch: later tokens must not change what this one attended to.
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        truth = model(input_ids=torch.tensor([IDS]), output_attentions=True).attentions
    finally:
        model.set_attn_implementation(own)
    for row, layer in enumerate(found.layers):
        weights = truth[layer][0, :, PLACE, : PLACE + 1]
        assert found.heads[row] == len(weights)
        np.testing.assert_allclose(found.shares[row], weights.float().mean(0).numpy(), rtol=1e-4, atol=1e-5)


def test_layers_without_weights_are_left_out(zoo_model: ZooModel) -> None:
    # MiniMax's linear attention returns a state of four dimensions where weights stand elsewhere.
    assert ask(subject(zoo_model("minimax").model), "attention", branch=0, position=PLACE).layers == (0, 2)
    assert ask(subject(zoo_model("qwen3_next").model), "attention", branch=0, position=PLACE).layers == (3,)
    with pytest.raises(UnsupportedError, match="no layer of this model forms weights of causal attention"):
        ask(subject(zoo_model("openai_privacy_filter").model), "attention", branch=0, position=PLACE)


@pytest.mark.parametrize("name", MAIN)
@torch.no_grad()
def test_attribution_is_one_replacement_after_the_other(zoo_model: ZooModel, name: str) -> None:
    model = zoo_model(name).model
    on = subject(model, words=tokenizer())
    state = hook_state(model)
    found = ask(on, "attribution", branch=0, position=PLACE, most=5)
    assert hook_state(model) == state
    assert found.tokens.tolist() == [4, 5, 6, 7, 8]
    assert found.earlier == 4
    put = tokenizer()(found.replacement, add_special_tokens=False).input_ids[-1]
    one, seen = passed(model, IDS[: PLACE + 1])
    for column, place in enumerate(found.tokens.tolist()):
        changed = [*IDS[:place], put, *IDS[place + 1 : PLACE + 1]]
        two, other = passed(model, changed)
        kl = sum(math.exp(p) * (p - q) for p, q in zip(one[-1].tolist(), two[-1].tolist()))
        assert found.output[column] == pytest.approx(kl, abs=1e-4)
        for handle in on.handles:
            first, second = (each.dense(handle)[PLACE] for each in (seen, other))
            moved = float((first - second).abs().sum() / (2 * first.abs().sum()))
            assert found.routing[handle.site.index, column] == pytest.approx(moved, abs=1e-4)


def test_passes_of_many_tokens_are_split(zoo_model: ZooModel, monkeypatch: pytest.MonkeyPatch) -> None:
    on = subject(zoo_model("mixtral").model, words=tokenizer())
    whole = ask(on, "attribution", branch=0, position=PLACE)
    monkeypatch.setattr("moetui.engine.analyses.attribution._TOKENS", 3 * (PLACE + 1))
    split = ask(on, "attribution", branch=0, position=PLACE)
    assert whole.earlier == split.earlier == 0
    monkeypatch.setattr("moetui.engine.analyses.attribution._WORK", 4 * (PLACE + 1))
    assert ask(on, "attribution", branch=0, position=PLACE).earlier == PLACE - 3
    np.testing.assert_allclose(split.output, whole.output, atol=1e-4)
    np.testing.assert_allclose(split.routing, whole.routing, atol=1e-4)


def test_what_would_fill_the_memory_is_refused(zoo_model: ZooModel, monkeypatch: pytest.MonkeyPatch) -> None:
    on = subject(zoo_model("mixtral").model)
    monkeypatch.setattr("moetui.engine.analyses.attention._free", lambda _: 10_000)
    with pytest.raises(UnsupportedError, match="attention over 9 tokens takes about") as caught:
        ask(on, "attention", branch=0, position=PLACE)
    assert "nearer to the beginning" in caught.value.hint
    assert ask(on, "attention", branch=0, position=1).layers == (0, 1, 2, 3)


def test_what_is_wrong_is_said_and_leaves_nothing(zoo_model: ZooModel) -> None:
    model = zoo_model("olmoe").model
    on = subject(model, words=tokenizer())
    for name in ("attention", "attribution"):
        with pytest.raises(UsageError, match="position must lie between 0 and 11"):
            ask(on, name, branch=0, position=12)
    with pytest.raises(UsageError, match="most must be at least 1"):
        ask(on, "attribution", branch=0, position=3, most=0)
    state, before = hook_state(model), implementations(model)

    def break_off(*_: Any) -> None:
        raise ValueError("no way")

    broken = model.model.layers[2].register_forward_pre_hook(break_off)
    for name in ("attention", "attribution"):
        with pytest.raises(ModelError, match="no way"):
            ask(on, name, branch=0, position=3)
    broken.remove()
    assert (hook_state(model), implementations(model)) == (state, before)
