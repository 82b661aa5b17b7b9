"""Tensors come off a device as they were, whatever their types, shapes and strides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.engine import Capture
from moetui.engine.caches import returned_cache
from moetui.engine.transfer import Transfer, only_host, packed, unpacked
from moetui.engine.zoo import build
from moetui.routing import NO_EXPERT, Step
from tests.engine.watched import onto

DTYPES = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float32, torch.float16, torch.bfloat16]
cuda = pytest.mark.cuda


@st.composite
def tensors(draw: st.DrawFn) -> list[torch.Tensor]:
    out = []
    for _ in range(draw(st.integers(1, 8))):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        values = torch.randint(0, 2, [*shape, 2], generator=torch.Generator().manual_seed(len(out))).to(dtype)
        out.append(values[..., draw(st.sampled_from([0, slice(None), slice(1, 2)]))])
    return out


@settings(max_examples=200, deadline=None)
@given(given_tensors=tensors())
def test_what_is_packed_comes_out_as_it_was(given_tensors: list[torch.Tensor]) -> None:
    buffer, contents = packed(dict(enumerate(given_tensors)))
    assert buffer.dtype == torch.uint8
    found = unpacked(buffer, contents)
    assert sorted(found) == list(range(len(given_tensors)))
    for number, tensor in enumerate(given_tensors):
        assert found[number].dtype == tensor.dtype
        assert torch.equal(found[number], tensor)


def test_what_is_on_the_host_stays_as_it_is() -> None:
    given_tensors = [torch.arange(3), torch.ones(2, 2)]
    found = Transfer(given_tensors).arrived()
    assert all(one is other for one, other in zip(given_tensors, found))


def test_passes_are_looked_through_where_tensors_could_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert only_host(model)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not only_host(model)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=cuda)])
def test_off_a_gpu(device: str) -> None:
    given_tensors = [torch.arange(6, device=device).view(2, 3), torch.ones(2, device=device, dtype=torch.bfloat16)]
    given_tensors.append(torch.zeros(1))
    found = Transfer(given_tensors).arrived()
    assert all(tensor.is_cpu for tensor in found)
    assert all(torch.equal(one.cpu(), other) for one, other in zip(given_tensors, found))


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=cuda), pytest.param(torch.bfloat16, marks=cuda)])
@torch.no_grad()
def test_a_model_on_a_gpu(dtype: torch.dtype) -> None:
    built = build("mixtral")
    model = built.model.to("cuda", dtype)
    inputs = {name: value.cuda() for name, value in built.inputs(2, 8, padding="left").items()}
    arguments = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    bare = model.generate(**inputs, **arguments)
    steps: list[Step] = []
    with Capture(model, on_step=steps.append) as capture:
        watched = model.generate(**inputs, **arguments)
        capture.flush()
    assert torch.equal(bare, watched)
    ids = np.concatenate([step.token_id.reshape(2, -1) for step in steps], 1)
    np.testing.assert_array_equal(ids, bare[:, :-1].cpu().numpy())
    assert all((step.indices != NO_EXPERT).all() for step in steps)
    assert all(np.isfinite(step.logprob).all() for step in steps[1:])
    assert {site.scoring for site in capture.sites} == {"softmax"}


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=cuda)])
@torch.no_grad()
def test_the_generating_thread_never_waits_for_the_gpu(device: str) -> None:
    """torch raises where handing a pass over would wait for the device."""
    from moetui.engine.raw import RawStep
    from moetui.engine.recorder import Recorder

    model = build("mixtral").model.to(device)
    ids = torch.randint(5, 500, (2, 1), device=device)
    taken: list[RawStep] = []
    put = Recorder.put
    with Capture(model, on_step=lambda _: None) as capture:
        cache = returned_cache(model(input_ids=ids.repeat(1, 4)))
        capture.flush()
        Recorder.put = lambda self, raw: taken.append(raw)
        try:
            model(input_ids=ids, **onto(model, cache), attention_mask=torch.ones(2, 5, device=device))
        finally:
            Recorder.put = put
        recorder = capture._recorder
        assert recorder is not None
        torch.cuda.set_sync_debug_mode("error")
        try:
            recorder.put(taken[0])
        finally:
            torch.cuda.set_sync_debug_mode("default")
