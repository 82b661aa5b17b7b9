"""Where a decode step's time goes, by a clock that only what the test slows down lets go on."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import accelerate
import pytest
import torch
from torch import nn

from moetui.engine import Capture, find_sites
from moetui.engine.analyses.subject import Subject
from moetui.engine.zoo import build, buildable
from moetui.routing import ModelError, UnsupportedError, UsageError
from moetui.routing.analyses import TimeByPart
from tests.engine.conftest import ZooModel
from tests.engine.interception import hook_state
from tests.engine.test_analyses import IDS, ask, subject

MS = 1_000_000


class SlowModules:
    """A clock that stands still but for modules made slow."""

    def __init__(self) -> None:
        self.now = 0
        self._slow: list[nn.Module] = []

    def __call__(self) -> int:
        return self.now

    def slow(self, module: nn.Module, ms: float) -> None:
        """From now on each call of its forward takes so long."""
        inner = type(module).forward

        def forward(own: nn.Module, *args: Any, **kwargs: Any) -> Any:
            self.now += int(ms * MS)
            return inner(own, *args, **kwargs)

        module.forward = MethodType(forward, module)
        self._slow.append(module)

    def undo(self) -> None:
        for module in self._slow:
            del module.forward


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowModules]:
    found = SlowModules()
    monkeypatch.setattr("moetui.engine.analyses.time_by_part.perf_counter_ns", found)
    yield found
    found.undo()


def by_place(found: TimeByPart) -> dict[tuple[int | None, str], float]:
    """What took any time."""
    return {(each.layer, each.part): pytest.approx(each.ms) for each in found.parts if each.ms}


def test_each_part_has_its_own_time(zoo_model: ZooModel, clock: SlowModules) -> None:
    model = zoo_model("mixtral").model
    on = subject(model)
    layers = model.model.layers
    state = hook_state(model)
    clock.slow(layers[0].self_attn, 5)
    clock.slow(layers[1].mlp, 3)
    clock.slow(on.handles[1].router, 0.5)
    clock.slow(on.handles[1].experts, 2)
    clock.slow(layers[2], 1)
    clock.slow(layers[2].input_layernorm, 0.25)
    clock.slow(model.model.norm, 4)
    clock.slow(model.lm_head, 7)
    found = ask(on, "time_by_part", branch=0, steps=3)
    assert by_place(found) == {
        (0, "attention"): 5,
        (1, "rest"): 3,
        (1, "router"): 0.5,
        (1, "experts"): 2,
        (2, "rest"): 1.25,
        (None, "rest"): 4,
        (None, "head"): 7,
    }
    assert {(each.layer, each.part) for each in found.parts} >= {
        (layer, part) for layer in range(4) for part in ("attention", "router", "experts", "rest")
    }
    assert (found.step, found.bare) == (pytest.approx(22.75), pytest.approx(22.75))
    assert (found.steps, found.context, found.clock) == (3, len(IDS) - 1 - 6, "host")
    assert list(found.totals)[:3] == ["rest", "head", "attention"]
    clock.undo()
    clock._slow.clear()
    assert hook_state(model) == state


def test_parts_that_lie_in_others_are_told_apart(zoo_model: ZooModel, clock: SlowModules) -> None:
    model = zoo_model("jetmoe").model
    on = subject(model)
    attention = next(handle for handle in on.handles if handle.site.name == "L1.attention")
    clock.slow(model.model.layers[1].self_attention, 5)
    clock.slow(attention.router, 2)
    assert by_place(ask(on, "time_by_part", branch=0)) == {(1, "attention"): 5, (1, "router"): 2}


@pytest.mark.parametrize(
    ("name", "path", "part"),
    [
        ("deepseek_v3", "model.layers.1.mlp.shared_experts", "shared experts"),
        ("deepseek_v3", "model.layers.0.mlp", "dense"),
        ("qwen3_next", "model.layers.0.linear_attn", "attention"),
        ("jamba", "model.layers.0.mamba", "attention"),
        ("nemotron_h", "model.layers.0.mixer", "attention"),
        ("lfm2_moe", "model.layers.0.conv", "attention"),
    ],
)
def test_parts_of_other_architectures(zoo_model: ZooModel, clock: SlowModules, name: str, path: str, part: str) -> None:
    model = zoo_model(name).model
    on = subject(model)
    clock.slow(model.get_submodule(path), 2)
    (place,) = by_place(ask(on, "time_by_part", branch=0))
    assert place[1] == part


@pytest.mark.parametrize("name", buildable())
def test_the_parts_add_up(zoo_model: ZooModel, name: str) -> None:
    model = zoo_model(name).model
    if zoo_model(name).is_encoder_decoder:
        on = Subject(model, None, find_sites(model), subject(zoo_model("mixtral").model).view)
        with pytest.raises(UnsupportedError, match="an encoder reads the prompt"):
            ask(on, "time_by_part", branch=0)
        return
    on = subject(model)
    try:
        found = ask(on, "time_by_part", branch=0)
    except UnsupportedError as error:
        assert "token by token" in error.message or "code of its own" in error.message  # noqa: PT017
        return
    assert found.step == pytest.approx(sum(each.ms for each in found.parts))
    assert min(each.ms for each in found.parts) >= 0
    assert any(each.part == "attention" for each in found.parts)
    sites = {handle.site.layer for handle in on.handles if handle.site.stack == "decoder"}
    assert {each.layer for each in found.parts if each.part == "experts"} == sites


def test_clocks_change_nothing_of_a_paused_run(zoo_model: ZooModel) -> None:
    model = zoo_model("mixtral").model
    on = subject(model)
    random = torch.get_rng_state()
    with Capture(model) as capture, capture.muted():
        ask(on, "time_by_part", branch=0)
    assert capture.steps == 0
    assert torch.equal(torch.get_rng_state(), random)


def test_a_model_whose_weights_are_offloaded() -> None:
    model = build("mixtral").model
    on = subject(model)
    accelerate.cpu_offload(model, execution_device="cpu")
    assert model.get_input_embeddings().weight.is_meta
    assert ask(on, "time_by_part", branch=0).clock == "host"


def test_what_cannot_be_measured_is_said(zoo_model: ZooModel) -> None:
    mixtral = zoo_model("mixtral").model
    with pytest.raises(UsageError, match="5 tokens are too few to measure a step"):
        ask(subject(mixtral, IDS[:5]), "time_by_part", branch=0)
    with pytest.raises(UsageError, match="steps must be at least 1"):
        ask(subject(mixtral), "time_by_part", branch=0, steps=0)
    with pytest.raises(UnsupportedError, match="no text token by token"):
        ask(subject(zoo_model("openai_privacy_filter").model), "time_by_part", branch=0)
    on = subject(mixtral)
    state = hook_state(mixtral)

    def break_off(*_: Any) -> None:
        raise ValueError("no way")

    broken = mixtral.model.layers[2].register_forward_pre_hook(break_off)
    with pytest.raises(ModelError, match="the model failed in the analysis: ValueError: no way"):
        ask(on, "time_by_part", branch=0)
    broken.remove()
    assert hook_state(mixtral) == state


def test_a_text_that_ends_in_the_middle_is_measured_up_to_there(zoo_model: ZooModel) -> None:
    model = zoo_model("mixtral").model
    own, model.generation_config.eos_token_id = model.generation_config.eos_token_id, IDS[8]
    try:
        assert ask(subject(model), "time_by_part", branch=0).steps == 3
        with pytest.raises(UsageError, match="the sequence ends too early to measure a step"):
            ask(subject(model, [*IDS[:3], *IDS[8:]]), "time_by_part", branch=0)
    finally:
        model.generation_config.eos_token_id = own
