"""Models whose tensors lie on other devices than the host, or on several: what is captured, and that nobody waits.

Tests with ``device`` run on whatever accelerator this torch has; PyTorch's own simulated one will do, ``torch_openreg``
in its repository, which nobody publishes as a package.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moetui.debugger.memory import MemoryMeter
from moetui.engine import Capture
from moetui.engine.accelerators import accelerator
from moetui.engine.analyses.passes import forward
from moetui.engine.generation import Prompt, generate
from moetui.engine.inputs import TokenInputs
from moetui.engine.interventions import plan
from moetui.engine.load_errors import out_of_memory
from moetui.engine.loading import _build, _placement, load
from moetui.engine.models import LoadRequest, resolve
from moetui.engine.raw import RawStep
from moetui.engine.rewind import RandomState, kept_generators
from moetui.engine.transfer import Transfer
from moetui.engine.zoo import BuiltModel, build
from moetui.routing import Phase, Step, UsageError
from moetui.routing.events import Event, FindingRaised, GenerationSettings
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ExpertCapacity,
    ForceExperts,
    Intervention,
    RandomRouting,
    RouterNoise,
    RouterTemperature,
    ScaleExperts,
    Scope,
    SetTopK,
    SwapExperts,
    UniformRouting,
)
from tests.engine.waiting import Waits

CHAINS: list[tuple[Intervention, ...]] = [
    (),
    (ForceExperts((0, 3)),),
    (BanExperts((1, 2)),),
    (BanExperts((1,), Scope(positions=(1, 4))),),
    (ForceExperts((1, 2), Scope(phase=Phase.PREFILL)),),
    (BoostExperts((1,), 3.0),),
    (ScaleExperts((0, 1), 0.3),),
    (SetTopK(1),),
    (RouterTemperature(0.5),),
    (RouterNoise(0.7, seed=3),),
    (ExpertCapacity(0.8),),
    (SwapExperts(0, 1),),
    (UniformRouting(),),
    (BanExperts((1,)), RandomRouting(5)),
    (SwapExperts(0, 1), ForceExperts((2, 3))),
    (SwapExperts(0, 1), BanExperts((2, 3))),
    (UniformRouting(), SetTopK(1)),
]


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        *(("mixtral", chain) for chain in CHAINS),
        *((name, ()) for name in ("llama4", "jetmoe", "nllb_moe", "doge")),
    ],
    ids=lambda each: each if isinstance(each, str) else "+".join(item.name for item in each) or "nothing",
)
@torch.no_grad()
def test_no_hook_looks_at_values(name: str, chain: tuple[Intervention, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a site's rule and what an intervention needs are known, a pass is captured without one."""
    built = build(name)
    inputs = built.inputs(2, 9, padding="left")
    monkeypatch.setattr(RawStep, "on_host", False)  # gather it here, as if it lay elsewhere
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    events: list[Event] = []
    with Capture(built.model, on_event=events.append) as capture:
        capture.set_functions(plan(chain, lambda: capture.handles).functions)
        for _ in range(3):
            built.model(**inputs)
            capture.flush()
        with Waits() as waits:
            built.model(**inputs)
    assert waits.found == []
    assert not [event for event in events if isinstance(event, FindingRaised)]


def test_a_pass_on_several_devices_is_not_on_the_host() -> None:
    raw = RawStep(0, 0, None, 1)
    raw.note(0, 1, torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1))
    inputs = raw.inputs["decoder"] = TokenInputs("decoder", torch.zeros(1, 2), (1, 2))
    raw.logits = torch.zeros(1, 2, 8)
    assert raw.on_host
    raw.logits = raw.logits.to("meta")
    assert not raw.on_host
    raw.logits = None
    inputs.mask = torch.ones(1, 2, device="meta")
    assert not raw.on_host


@torch.no_grad()
def test_a_cache_that_counts_on_a_device_is_not_looked_at() -> None:
    """The values of a meta tensor cannot be had."""
    built = build("mixtral")

    class Cache:
        def get_seq_length(self) -> torch.Tensor:
            return torch.zeros((), dtype=torch.int64, device="meta")

    capture = Capture(built.model)
    raw, stream = RawStep(0, 0, None, 1), capture._streams[0]
    ids = torch.zeros(1, 2, dtype=torch.int64)
    stream.read((), {"input_ids": ids, "attention_mask": ids, "past_key_values": Cache()}, raw)
    past = raw.inputs["decoder"].past
    assert isinstance(past, torch.Tensor)
    assert past.is_meta


def test_a_model_whose_embeddings_are_offloaded_is_run() -> None:
    accelerate = pytest.importorskip("accelerate")
    settings = GenerationSettings(max_new_tokens=4)
    wanted = generate(build("mixtral").model, Prompt("", (5, 6, 7)), settings)
    model = build("mixtral").model
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert next(model.parameters()).is_meta
    assert generate(model, Prompt("", (5, 6, 7)), settings) == wanted
    with torch.no_grad():
        assert forward(model, (5, 6, 7), logits=1).shape[0] == 1


def test_a_model_goes_to_whatever_accelerator_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kind is none that the code names: the meta device stands for it."""
    made = [build("mixtral"), build("mixtral")]
    monkeypatch.setattr("moetui.engine.loading.build", lambda _: made.pop())
    found: list[torch.device | None] = [torch.device("meta")]
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: found[0])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: found[0] is not None)
    auto, cpu = LoadRequest("random:mixtral"), LoadRequest("random:mixtral", device="cpu")
    assert _placement(auto)["device_map"] == {"": "meta:0"}
    assert _placement(LoadRequest("x", device_map="auto"))["device_map"] == "auto"
    assert "device_map" not in _placement(cpu)
    assert next(_build(auto, resolve("random:mixtral")).model.parameters()).is_meta
    assert "all devices" in out_of_memory(auto, resolve("random:mixtral")).hint
    found[0] = None
    assert "device_map" not in _placement(auto)
    assert next(_build(auto, resolve("random:mixtral")).model.parameters()).device.type == "cpu"
    assert "all devices" not in out_of_memory(auto, resolve("random:mixtral")).hint


@pytest.fixture
def device() -> torch.device:
    found = accelerator()
    if found is None:
        pytest.skip("this torch has no accelerator")
    return found


def test_a_copy_off_an_accelerator_is_not_waited_for(device: torch.device) -> None:
    if device.type == "mps":
        pytest.skip("where torch hands on what was not computed yet")
    tensors = [torch.arange(6, device=device).view(2, 3), torch.ones(2, device=device), torch.zeros(1)]
    transfer = Transfer(tensors)
    assert len(transfer._events) == 1
    found = transfer.arrived()
    assert all(one.is_cpu and torch.equal(one, other.cpu()) for one, other in zip(found, tensors))


def test_generators_of_an_accelerator_are_kept_and_put_back(device: torch.device) -> None:
    torch.manual_seed(3)
    state = RandomState.now()
    with kept_generators():
        wanted = [torch.rand(4, device=device), torch.rand(4)]
    for own, other in zip((torch.rand(4, device=device), torch.rand(4)), wanted):
        assert torch.equal(own, other)
    state.set()
    assert torch.equal(torch.rand(4, device=device), wanted[0])


def test_an_accelerator_may_be_named_where_a_model_is_to_lie(device: torch.device) -> None:
    built = load(LoadRequest("random:mixtral", device=f"{device.type}:0")).model
    assert {parameter.device.type for parameter in built.parameters()} == {device.type}
    with pytest.raises(UsageError, match=f"there is no {device.type}:99"):
        load(LoadRequest("random:mixtral", device=f"{device.type}:99"))


def test_memory_is_that_of_the_accelerator(device: torch.device) -> None:
    meter = MemoryMeter(f"{device.type}:0", iter(range(9)).__next__)
    before = meter.megabytes()
    held = torch.zeros(10_000_000, dtype=torch.uint8, device=device)
    if device.type != "mps":
        assert 10.0 <= meter.megabytes() - before < 13.0
    del held


def placed(where: str, device: torch.device) -> BuiltModel:
    """A small Mixtral on one device, on two, or with the experts of its first layer, or all of them, on the host."""
    built = build("mixtral")
    model: Any = built.model
    model.set_attn_implementation("eager")
    layers = model.model.layers
    if where == "one":
        model.to(device)
    elif where == "two":
        accelerate = pytest.importorskip("accelerate")
        last = f"{device.type}:1" if torch.accelerator.device_count() > 1 else "cpu"
        # The embeddings lie beside the head, as where they share their weights: the inputs' device is not the cache's.
        plan = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), last)
        plan |= {f"model.layers.{n}": f"{device.type}:0" if n == 0 else last for n in range(len(layers))}
        accelerate.dispatch_model(model, plan, main_device=last, force_hooks=True)
    else:
        model.to(device)
        for layer in layers if where == "experts on the host" else layers[:1]:
            own = layer.mlp.to("cpu").forward
            layer.mlp.forward = lambda hidden, own=own: own(hidden.cpu()).to(hidden.device)
    return built


@pytest.mark.parametrize("where", ["one", "two", "experts on the host", "some experts on the host"])
@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("chain", [(), (RouterNoise(0.7, seed=3), BanExperts((1,)))], ids=["nothing", "noise"])
@torch.no_grad()
def test_captured_as_on_the_host(
    where: str, cache: str | None, chain: tuple[Intervention, ...], device: torch.device
) -> None:
    if where == "two" and cache and torch.accelerator.device_count() < 2:
        pytest.skip("accelerate keeps a static cache on one device")
    arguments: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "disable_compile": True}
    runs: list[tuple[torch.Tensor, list[Step]]] = []
    host = build("mixtral")
    host.model.set_attn_implementation("eager")  # type: ignore[operator]
    for built, at in ((host, torch.device("cpu")), (placed(where, device), device)):
        inputs = {name: value.to(at) for name, value in built.inputs(2, 8, padding="left").items()}
        steps: list[Step] = []
        with Capture(built.model, on_step=steps.append) as capture:
            capture.set_functions(plan(chain, lambda capture=capture: capture.handles).functions)
            model: Any = built.model
            out = model.generate(**inputs, **arguments, cache_implementation=cache)
            capture.flush()
        runs.append((out.cpu(), steps))
    (text, steps), (text_away, steps_away) = runs
    assert torch.equal(text, text_away)
    assert len(steps) == len(steps_away) == 4
    for step, away in zip(steps, steps_away):
        np.testing.assert_array_equal(step.indices, away.indices)
        np.testing.assert_array_equal(step.position, away.position)
        np.testing.assert_array_equal(step.token_id, away.token_id)
        assert step.weights is not None
        assert away.weights is not None
        np.testing.assert_allclose(step.weights, away.weights, atol=2e-3)
        np.testing.assert_allclose(step.logprob, away.logprob, atol=2e-3)
