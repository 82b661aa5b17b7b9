"""However a model is called, watched and left again: nothing that the capture does can hurt a run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import CompileConfig

from moetui.engine import Capture, CaptureOptions
from moetui.engine.zoo import build
from moetui.routing import NO_EXPERT, ModelError, SiteFlag, Step, UnsupportedError, UsageError
from moetui.routing.events import FindingRaised
from tests.engine.interception import hook_state
from tests.engine.watched import Watched, ids


def test_the_base_model_alone(model: Any) -> None:
    with Watched(model) as watched, torch.no_grad():
        model.model(input_ids=ids(1, 3))
    (step,) = watched.steps
    assert step.token_id.tolist() == ids(1, 3)[0].tolist()
    assert (step.candidate_ids == -1).all()


def test_an_interrupted_pass_does_not_swallow_the_next(model: Any) -> None:
    stop = model.model.layers[2].register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with Watched(model) as watched, torch.no_grad():
        with pytest.raises(KeyboardInterrupt):
            model(input_ids=ids(1, 3))
        stop.remove()
        model.model(input_ids=ids(1, 4))
        model(input_ids=ids(1, 5))
    assert [step.num_tokens for step in watched.steps] == [4, 5]


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.3])
@torch.no_grad()
def test_what_the_hooks_take_is_measured_at_any_sample_rate(model: Any, rate: float) -> None:
    with Capture(model, CaptureOptions(sample_rate=rate)) as capture:
        for _ in range(10):
            model(input_ids=ids(1, 3))
        assert capture.hook_ns > 0
        assert capture.put_ns > 0


def test_a_wrapper_around_the_model(model: Any) -> None:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner(*args, **kwargs)

    with Watched(Wrapper(model)) as watched, torch.no_grad():
        watched.capture.model(ids(1, 3))
        model.generate(ids(1, 3), max_new_tokens=2)
    assert [step.token_id.tolist()[:3] for step in watched.steps[:2]] == [ids(1, 3)[0].tolist()] * 2
    assert watched.capture.sites[0].name == "L0"


@torch.no_grad()
def test_tuples_instead_of_named_outputs(model: Any) -> None:
    with Watched(model) as watched:
        logits = model(input_ids=ids(1, 3), return_dict=False)[0]
    np.testing.assert_array_equal(watched.steps[0].candidate_ids[-1], logits[0, -1].topk(8).indices.numpy())


@torch.inference_mode()
def test_inference_mode(model: Any) -> None:
    with Watched(model) as watched:
        model(input_ids=ids(1, 3))
    assert len(watched.steps) == 1


@torch.no_grad()
def test_half_precision() -> None:
    model = build("mixtral").model.to(torch.bfloat16)
    with Watched(model) as watched:
        model(input_ids=ids(1, 24))
    (step,) = watched.steps
    assert step.logits is not None
    assert step.weights is not None
    assert np.isfinite(step.logits).all()
    np.testing.assert_allclose(step.weights.astype(np.float32).sum(-1), 1, atol=0.02)
    assert {site.scoring for site in watched.capture.sites} == {"softmax"}


def checkpoint(model: Any, options: dict[str, bool] | None) -> None:
    """Recompute in the backward pass what was not kept, or keep it all; transformers 5.23 gave both another name."""
    word = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if options is None:
        getattr(model, f"{word}_checkpointing_disable")()
    else:
        getattr(model, f"{word}_checkpointing_enable")(options)


def test_training_counts_every_token_once() -> None:
    model = build("mixtral").model
    tokens = ids(2, 5)

    def gradients(checkpointing: dict[str, bool] | None) -> dict[str, torch.Tensor]:
        model.zero_grad()
        if checkpointing is not None:
            checkpoint(model, checkpointing)
        model.train()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        model.eval()
        checkpoint(model, None)
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    for checkpointing in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        bare = gradients(checkpointing)
        with Watched(model) as watched:
            seen = gradients(checkpointing)
        assert [step.num_tokens for step in watched.steps] == [10]
        assert all(torch.equal(bare[name], seen[name]) for name in bare)
    model.zero_grad()


def test_a_checkpoint_is_recomputed_with_the_same_routing() -> None:
    model = build("mixtral").model
    calls: list[bool] = []

    def swap(context: Any, logits: Any, indices: torch.Tensor, weights: torch.Tensor) -> Any:
        calls.append(context.step is None)
        return indices.flip(-1), weights

    checkpoint(model, {"use_reentrant": False})
    model.train()
    with Watched(model) as watched:
        watched.capture.set_functions({1: swap})
        model(input_ids=ids(1, 4), labels=ids(1, 4), use_cache=False).loss.backward()
    model.eval()
    checkpoint(model, None)
    model.zero_grad()
    assert calls == [False, True]
    (step,) = watched.steps
    forced = step.flags & SiteFlag.FORCED > 0
    assert forced[:, 1].all()
    assert not forced[:, [0, 2, 3]].any()


@torch.no_grad()
@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_offloaded_weights(place: str, tmp_path: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    model = build("mixtral").model
    tokens = ids(1, 6)
    bare = model(input_ids=tokens).logits
    if place == "cpu":
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        accelerate.disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    before = hook_state(model)
    with Watched(model) as watched:
        seen = model(input_ids=tokens).logits
    assert hook_state(model) == before
    assert torch.equal(bare, seen)
    assert (watched.steps[0].indices != NO_EXPERT).all()
    assert {site.scoring for site in watched.capture.sites} == {"softmax"}


def test_a_compiled_model_is_refused_with_a_reason(model: Any) -> None:
    with pytest.raises(UnsupportedError, match="compiled"):
        Capture(torch.compile(model), on_step=lambda _: None)
    inner = model.model.layers[0]
    inner.compile()
    try:
        with pytest.raises(UnsupportedError, match=r"model\.layers\.0 is compiled"):
            Capture(model, on_step=lambda _: None)
    finally:
        inner._compiled_call_impl = None


def test_generation_that_compiles_is_captured_step_by_step() -> None:
    compiling = CompileConfig(backend="eager", fullgraph=False, mode=None)
    compiling._compile_all_devices = True
    arguments = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "cache_implementation": "static"}
    plain = build("mixtral").model.generate(ids(1, 4), **arguments)
    model = build("mixtral").model
    watched = Watched(model)
    with watched:
        out = model.generate(ids(1, 4), compile_config=compiling, **arguments)
    assert torch.equal(plain, out)
    assert [(step.index, step.position.tolist()) for step in watched.steps] == [
        (0, [0, 1, 2, 3]), (1, [4]), (2, [5]), (3, [6]),
    ]  # fmt: skip
    assert all((step.indices != NO_EXPERT).all() for step in watched.steps)
    assert all(np.isfinite(step.logprob).all() for step in watched.steps[1:])
    with pytest.raises(UnsupportedError, match="the model is compiled"):
        watched.capture.attach()


def test_a_model_without_routers_is_refused() -> None:
    with pytest.raises(ModelError, match="no router"):
        Capture(nn.Linear(2, 2), on_step=lambda _: None)


@torch.no_grad()
def test_a_hook_that_breaks_ends_the_capture_not_the_run(model: Any) -> None:
    tokens = ids(1, 4)
    bare = model(input_ids=tokens).logits

    def broken(*_: Any) -> Any:
        raise RuntimeError("boom")

    before = hook_state(model)
    with Watched(model) as watched:
        watched.capture.set_functions({1: broken})
        assert torch.equal(model(input_ids=tokens).logits, bare)
        assert hook_state(model) == before, "hooks stayed on"
        assert not watched.capture.attached
        assert torch.equal(model(input_ids=tokens).logits, bare)
    (finding,) = [finding for finding in watched.findings if finding.kind == "capture_failed"]
    assert "boom" in finding.message


@torch.no_grad()
def test_a_reader_that_breaks_loses_its_step_alone(model: Any) -> None:
    steps: list[Step] = []
    findings: list[Any] = []

    def read(step: Step) -> None:
        if step.index == 0:
            raise RuntimeError("boom")
        steps.append(step)

    with Capture(model, on_step=read, on_event=findings.append):
        model(input_ids=ids(1, 3))
        model(input_ids=ids(1, 3))
    assert [step.index for step in steps] == [1]
    assert [event.finding.kind for event in findings if isinstance(event, FindingRaised)] == ["step_lost"]


@torch.no_grad()
def test_a_slow_reader_is_waited_for_and_loses_nothing(model: Any) -> None:
    go_on = threading.Event()
    steps: list[int] = []

    def read(step: Step) -> None:
        go_on.wait(10)
        steps.append(step.index)

    with Capture(model, CaptureOptions(queue=3), on_step=read) as capture:
        runner = threading.Thread(target=lambda: [model(input_ids=ids(1, 2)) for _ in range(8)])
        runner.start()
        runner.join(0.5)
        assert runner.is_alive(), "the model ran ahead of a full queue"
        go_on.set()
        runner.join(20)
        assert capture.flush(20)
        assert steps == list(range(8))


@torch.no_grad()
def test_steps_are_sampled_by_number(model: Any) -> None:
    with Watched(model, CaptureOptions(sample_rate=0.25)) as watched:
        for _ in range(9):
            model(input_ids=ids(1, 2))
    assert [step.index for step in watched.steps] == [0, 3, 7]
    assert watched.capture.steps == 9


@torch.no_grad()
def test_layers_that_are_not_kept_have_no_hooks(model: Any) -> None:
    with Watched(model, CaptureOptions(layers=(1, 2))) as watched:
        assert not model.model.layers[0].mlp.experts._forward_pre_hooks
        model(input_ids=ids(1, 3))
    (step,) = watched.steps
    assert [(step.indices[:, number] != NO_EXPERT).all() for number in range(4)] == [False, True, True, False]
    assert not [finding for finding in watched.findings if finding.kind == "site_silent"]


@pytest.mark.parametrize("layers", [(99,), (1, -1)])
def test_layers_without_a_router_are_refused(layers: tuple[int, ...], model: Any) -> None:
    with pytest.raises(UsageError, match=f"layer {layers[-1]} has no router") as raised:
        Capture(model, CaptureOptions(layers=layers))
    assert raised.value.hint == "layers with routers: 0-3"


@torch.no_grad()
def test_ids_alone(model: Any) -> None:
    with Watched(model, CaptureOptions(logits=False, weights=False, candidates=0)) as watched:
        assert not model.model.layers[0].mlp.gate._forward_hooks
        model(input_ids=ids(1, 3))
    (step,) = watched.steps
    assert step.logits is None
    assert step.weights is None
    assert step.candidate_ids.shape == (3, 0)


@torch.no_grad()
def test_a_function_sees_the_routers_logits_even_when_they_are_not_kept(model: Any) -> None:
    seen: list[Any] = []

    def look(context: Any, logits: Any, indices: Any, weights: Any) -> Any:
        seen.append((logits, context.call.args, context.step.positions("decoder", 3, indices.device).tolist()))
        return indices, weights

    with Watched(model, CaptureOptions(logits=False)) as watched:
        watched.capture.set_functions({2: look})
        model(input_ids=ids(1, 3))
    (logits, args, positions) = seen[0]
    assert logits.shape == (3, 8)
    assert args[0].shape[-1] == 64
    assert positions == [0, 1, 2]
    assert not (watched.steps[0].flags & SiteFlag.FORCED).any()


@torch.no_grad()
def test_a_gate_sees_every_site_and_a_pause_is_no_part_of_the_time(model: Any) -> None:
    names: list[str] = []

    def gate(context: Any) -> None:
        names.append(context.site.name)
        context.step.stood(10**9)

    with Watched(model) as watched:
        watched.capture.gate = gate
        model(input_ids=ids(1, 3))
    assert names == ["L0", "L1", "L2", "L3"]
    assert watched.steps[0].duration < 0, "four seconds that did not pass were taken off"


@torch.no_grad()
def test_two_threads_do_not_mix(model: Any) -> None:
    tokens = [ids(1, 3), ids(1, 7, seed=1)]
    barrier = threading.Barrier(2)

    def run(number: int) -> None:
        barrier.wait()
        with torch.no_grad():
            for _ in range(5):
                model(input_ids=tokens[number])

    with Watched(model) as watched:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(step.num_tokens for step in watched.steps) == [3] * 5 + [7] * 5
    assert all((step.indices != NO_EXPERT).all() for step in watched.steps)


@torch.no_grad()
def test_muted_passes_are_not_there(model: Any) -> None:
    with Watched(model) as watched:
        model(input_ids=ids(1, 3))
        with watched.capture.muted():
            model(input_ids=ids(1, 4))
        model(input_ids=ids(1, 5))
    assert [(step.index, step.num_tokens) for step in watched.steps] == [(0, 3), (1, 5)]


@torch.no_grad()
def test_a_pass_that_another_one_broke_into_is_not_shown_in_part(model: Any) -> None:
    layer = model.model.layers[1]
    within: list[bool] = []

    def run_another(*_: Any) -> None:
        if not within:
            within.append(True)
            model(input_ids=ids(1, 4))

    hook = layer.register_forward_hook(run_another)
    with Watched(model) as watched:
        model(input_ids=ids(1, 3))
        model(input_ids=ids(1, 5))
    hook.remove()
    assert [step.num_tokens for step in watched.steps] == [4, 5]


@torch.no_grad()
def test_attaching_again_goes_on_counting(model: Any) -> None:
    watched = Watched(model)
    for _ in range(2):
        with watched.capture:
            watched.capture.attach()
            model(input_ids=ids(1, 3))
    assert [step.index for step in watched.steps] == [0, 1]


@torch.no_grad()
def test_a_site_called_twice_in_a_pass_is_said(model: Any) -> None:
    layer = model.model.layers[1]
    block, original = layer.mlp, layer.mlp.forward
    twice = layer.register_forward_hook(lambda *_: None)
    block.forward = lambda hidden: original(original(hidden))
    try:
        with Watched(model) as watched:
            model(input_ids=ids(1, 3))
    finally:
        del block.forward
        twice.remove()
    assert [finding.site for finding in watched.findings if finding.kind == "site_repeated"] == ["L1"]
    assert (watched.steps[0].indices != NO_EXPERT).all()


@torch.no_grad()
def test_tokens_taken_in_pieces_are_put_together(model: Any) -> None:
    layer = model.model.layers[1]
    block, original = layer.mlp, layer.mlp.forward
    with Watched(model) as whole:
        model(input_ids=ids(1, 6))
    block.forward = lambda hidden: torch.cat([original(hidden[:, :2]), original(hidden[:, 2:])], 1)
    try:
        with Watched(model) as pieces:
            model(input_ids=ids(1, 6))
    finally:
        del block.forward
    np.testing.assert_array_equal(whole.steps[0].indices, pieces.steps[0].indices)
    np.testing.assert_array_equal(whole.steps[0].logits[:, 1], pieces.steps[0].logits[:, 1])


FORKED = """
import os, torch
from moetui.engine import Capture
from moetui.engine.zoo import build
torch.set_num_threads(1)
model = build("mixtral").model
seen = []
with Capture(model, on_step=seen.append) as capture, torch.no_grad():
    model(input_ids=torch.tensor([[5, 6]]))
    child = os.fork()
    if not child:
        for _ in range(600):
            model(input_ids=torch.tensor([[5]]))
        assert capture.flush()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    model(input_ids=torch.tensor([[7]]))
print(status, len(seen))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_model_in_a_forked_child_does_not_wait_for_a_recorder_that_is_not_there() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("0 2\n", "")
