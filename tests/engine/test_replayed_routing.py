"""The routing of a recording in force: every sequence gets its own, and what cannot be replayed is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moetui.debugger import MoEDebugger
from moetui.engine import Capture, CaptureOptions
from moetui.engine.interventions import plan, recorded_routing
from moetui.routing import NO_EXPERT, UnsupportedError
from moetui.routing.interventions import RandomRouting, ReplayRouting, Scope
from tests.engine.interception import intercepted
from tests.releases import since_5_24

ARCHITECTURES = (
    "qwen3_moe", "mixtral", "deepseek_v3", "gpt_oss", "longcat_flash", "zaya", "llama4", "jetmoe",
    "switch_transformers", "qwen3_next", "ernie4_5_vl_moe", "doge",
)  # fmt: skip

SEEN_AT_EXPERTS = ("indexed", "mask")
"""Kinds whose experts are called with their routing; of the others the logits tell what ran."""


class Recorded:
    """A debugger's timeline after some passes under other routing than the model's own, and the passes' logits."""

    def __init__(self, model: Any, *calls: dict[str, Any], changes: tuple[Any, ...] = (RandomRouting(3),)) -> None:
        with MoEDebugger(model) as debugger:
            debugger.interventions.set(changes)
            self.logits = [model(**inputs).logits for inputs in calls]
            self.view = debugger.timeline.snapshot()


def replayed(model: Any, routing: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """The logits under a recording's routing, and by site what the experts got, as dense weights."""
    with Capture(model) as capture:
        made = plan((ReplayRouting("x"),), lambda: capture.handles, {"x": routing})
        capture.set_functions(made.functions)
        modules = [module for handle in capture.handles for module in (handle.experts, handle.router)]
        with intercepted(modules) as truth:
            logits = model(**inputs).logits
        ran = {
            handle.site.index: truth.dense(handle)
            for handle in capture.handles
            if handle.site.kind in SEEN_AT_EXPERTS and id(handle.experts) in truth.calls
        }
    return logits, ran


def dense(view: Any, number: int, rows: np.ndarray[Any, Any], classes: int) -> torch.Tensor:
    """What a recording's tokens got at a site, as ``[T, classes]`` weights."""
    block = view.routing(view.first, view.end)
    indices = block.indices[rows, number].astype(np.int64)
    weights = np.where(indices == NO_EXPERT, 0, np.nan_to_num(block.weights[rows, number].astype(np.float32)))
    out = torch.zeros(len(rows), classes + 1)
    return out.scatter_add(1, torch.from_numpy(np.minimum(indices, classes)), torch.from_numpy(weights))[:, :classes]


@pytest.mark.parametrize("changes", [(), (RandomRouting(3),)], ids=["own", "random"])
@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_each_sequence_of_a_batch_gets_its_own_routing(name: str, changes: tuple[Any, ...], zoo_model: Any) -> None:
    built = zoo_model(name)
    model, inputs = built.model, built.inputs(2, 7, padding="left")
    recorded = Recorded(model, inputs, changes=changes)
    view = recorded.view
    logits, ran = replayed(model, recorded_routing(view), inputs)
    tokens = view.tokens(view.first, view.end)
    for site in view.sites:
        rows = np.flatnonzero(np.array(view.stacks)[tokens.stack] == site.stack)
        if site.index not in ran or "vision" in site.name:
            continue
        real = ~tokens.pad[rows]
        expected = dense(view, site.index, rows, site.num_classes)
        torch.testing.assert_close(ran[site.index].float()[real], expected[real], rtol=2e-3, atol=1e-4)
    real = ~torch.from_numpy(tokens.pad[np.array(view.stacks)[tokens.stack] == "decoder"]).reshape(logits.shape[:2])
    torch.testing.assert_close(logits[real], recorded.logits[0][real], rtol=1e-2, atol=1e-2)
    own = torch.allclose(logits[real], model(**inputs).logits[real], rtol=1e-2, atol=1e-2)
    assert own is not bool(changes), "the recording would show nothing"


@torch.no_grad()
def test_a_recording_of_ids_alone_skips_what_was_skipped(zoo_model: Any) -> None:
    built = zoo_model("zaya")
    model, inputs = built.model, built.inputs(2, 7, padding="left")
    biases = [module.balancing_biases for module in model.modules() if hasattr(module, "balancing_biases")]
    held = [bias.clone() for bias in biases]
    for bias in biases:
        bias[-1] += 10.0
    try:
        with MoEDebugger(model, options=CaptureOptions(weights=False, logits=False)) as debugger:
            recorded = model(**inputs).logits
            view = debugger.timeline.snapshot()
    finally:
        for bias, old in zip(biases, held):
            bias.copy_(old)
    assert (view.routing(0, view.end).indices == view.sites[0].num_experts).any()
    logits, _ = replayed(model, recorded_routing(view), inputs)
    real = ~torch.tensor(view.tokens(0, view.end).pad).reshape(2, 7)
    torch.testing.assert_close(logits[real], recorded[real], rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_sequences_that_a_recording_lacks_keep_their_own_routing_and_that_is_said(zoo_model: Any) -> None:
    built = zoo_model("qwen3_moe")
    model, inputs = built.model, built.inputs(1, 6)
    recorded = Recorded(model, inputs)
    both = {name: value.repeat(2, 1) for name, value in inputs.items()}
    told: list[Any] = []
    logits, _ = replayed(model, recorded_routing(recorded.view, on_finding=told.append), both)
    assert [(finding.kind, finding.severity) for finding in told] == [("replay_lacks_sequences", "warning")]
    assert "1 of the batch's 2 sequences" in told[0].message
    torch.testing.assert_close(logits[:1], recorded.logits[0], rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(logits[1:], model(**inputs).logits)
    told.clear()
    logits, _ = replayed(model, recorded_routing(recorded.view, sequence=0, on_finding=told.append), both)
    assert not told
    torch.testing.assert_close(logits, recorded.logits[0].repeat(2, 1, 1), rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_a_file_that_lacks_sequences_is_a_finding_of_the_run(zoo_model: Any, tmp_path: Path) -> None:
    built = zoo_model("qwen3_moe")
    model, path = built.model, str(tmp_path / "one.msgpack")
    with MoEDebugger(model) as debugger:
        debugger.record(path)
        model(**built.inputs(1, 6))
    with MoEDebugger(model) as debugger:
        debugger.interventions.set((ReplayRouting(path),))
        model(**built.inputs(2, 6))
        model(**built.inputs(2, 6))
        debugger.flush()
        assert [finding.kind for finding in debugger.findings] == ["replay_lacks_sequences"]


@torch.no_grad()
def test_a_site_of_some_of_the_tokens_keeps_its_own_routing_and_that_is_said(zoo_model: Any) -> None:
    built = zoo_model("ernie4_5_vl_moe")
    model, inputs = built.model, built.inputs(1, 6)
    inputs["moe_mm_token_type_ids"] = torch.tensor([[0, 0, 1, 1, 0, 1]])
    view = Recorded(model, inputs).view
    told: list[Any] = []
    logits, _ = replayed(model, recorded_routing(view, on_finding=told.append), inputs)
    assert {finding.kind for finding in told} == {"replay_unplaced"}
    assert [finding.site for finding in told] == [site.name for site in view.sites]
    assert torch.equal(logits, model(**inputs).logits)


@since_5_24
@torch.no_grad()
def test_sites_that_a_pass_goes_through_several_times_are_not_replayed(zoo_model: Any, tmp_path: Path) -> None:
    built = zoo_model("inkling2_loop")
    model, inputs, path = built.model, built.inputs(2, 7, padding="left"), str(tmp_path / "x.msgpack")
    bare = model(**inputs).logits
    with MoEDebugger(model) as debugger:
        debugger.record(path)
        model(**inputs)
    for known in (True, False):  # by the recording, or by this run
        with MoEDebugger(model) as debugger:
            if not known:
                model(**inputs)
                path = "y"
                view = debugger.timeline.snapshot()
                debugger.interventions.open_recordings({path: recorded_routing(view)})
            with pytest.raises(
                UnsupportedError, match="not possible at L1: a pass goes through it several times"
            ) as no:
                debugger.interventions.set((ReplayRouting(path),))
            assert not len(debugger.interventions)
            scope = Scope(sites=tuple(no.value.hint.removeprefix("leave it out: --sites ").split(",")))
            debugger.interventions.set((ReplayRouting(path, scope),))
            torch.testing.assert_close(model(**inputs).logits, bare, rtol=1e-2, atol=1e-2)
    told: list[Any] = []
    with Capture(model) as capture:  # nobody could know
        made = plan(
            (ReplayRouting("z"),), lambda: capture.handles, {"z": recorded_routing(view, on_finding=told.append)}
        )
        capture.set_functions({number: made.functions[number] for number in (1, 2, 3)})
        model(**inputs)
        assert [(finding.kind, finding.site) for finding in told] == [
            ("replay_unplaced", f"L{layer}") for layer in (1, 2, 3)
        ]
        assert torch.equal(model(**inputs).logits, bare)


@torch.no_grad()
def test_tokens_that_are_generated_follow_their_sequence(zoo_model: Any) -> None:
    built = zoo_model("qwen3_moe")
    model, inputs = built.model, built.inputs(2, 6, padding="left")
    arguments = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    with MoEDebugger(model) as debugger:
        debugger.interventions.set((RandomRouting(3),))
        random = model.generate(**inputs, **arguments)
        view = debugger.timeline.snapshot()
    with MoEDebugger(model) as debugger:
        debugger.interventions.open_recordings({"x": recorded_routing(view)})
        debugger.interventions.set((ReplayRouting("x"),))
        assert torch.equal(model.generate(**inputs, **arguments), random)
        again = debugger.timeline.snapshot()
    real = ~view.tokens(0, view.end).pad
    was, now = (each.routing(0, each.end).indices[real] for each in (view, again))
    np.testing.assert_array_equal(np.sort(was), np.sort(now))
