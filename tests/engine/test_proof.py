"""Over every architecture: what is captured is what ran, and the model does not notice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from moetui.engine import Capture
from moetui.engine.zoo import buildable
from moetui.routing import NO_EXPERT, Phase, Step
from moetui.routing.events import Event, FindingRaised
from tests.engine.interception import captured, hook_state, intercepted

NOT_REACHED_BY_TEXT = ("vision",)
NEW_TOKENS = 4


def half(values: torch.Tensor) -> np.ndarray[Any, Any]:
    return values.detach().float().numpy().astype(np.float16)


LOOPED = {"inkling2_loop": (1, 2, 3)}
"""Layers that a pass goes through several times: what is shown, and what was intercepted, is the last time."""


def findings(events: list[Event]) -> list[Any]:
    return [event.finding for event in events if isinstance(event, FindingRaised)]


@pytest.mark.parametrize("name", buildable())
@torch.no_grad()
def test_what_is_captured_is_what_ran(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    model, inputs = built.model, built.inputs(2, 8, padding="left")
    before = hook_state(model)
    bare = model(**inputs).logits
    steps: list[Step] = []
    events: list[Event] = []
    with Capture(model, on_step=steps.append, on_event=events.append) as capture:
        modules = [module for handle in capture.handles for module in (handle.experts, handle.router)]
        with intercepted(modules) as truth:
            watched = model(**inputs).logits
    assert torch.equal(bare, watched), "the model noticed"
    assert torch.equal(bare, model(**inputs).logits), "something was left behind"
    assert hook_state(model) == before
    told = [(finding.kind, finding.site) for finding in findings(events) if finding.severity != "info"]
    assert told == [("site_repeated", f"L{layer}") for layer in LOOPED.get(name, ())]
    by_stack = {step.stack: step for step in steps}
    seen = 0
    for handle in capture.handles:
        site = handle.site
        if any(word in site.name for word in NOT_REACHED_BY_TEXT):
            continue
        seen += 1
        step = by_stack[site.stack]
        assert step.logits is not None
        if site.kind == "product_key":
            check_product_keys(handle, model, inputs, step)
            continue
        if id(handle.experts) in truth.calls or site.kind in ("dense", "parallel"):
            np.testing.assert_allclose(
                captured(step, site.index, site.num_classes), truth.dense(handle).float().numpy(), rtol=2e-3, atol=1e-4
            )
        logits = step.logits[:, site.index, : site.num_classes]
        np.testing.assert_array_equal(logits, half(truth.logits(handle)))
        if site.kind == "indexed":
            _, indices, weights = truth.calls[id(handle.experts)][:3]
            np.testing.assert_array_equal(step.weights[:, site.index, : weights.shape[1]], half(weights))
            if not site.zero_experts:
                np.testing.assert_array_equal(step.indices[:, site.index, : indices.shape[1]], indices.numpy())
    assert seen


def check_product_keys(handle: Any, model: nn.Module, inputs: dict[str, Any], step: Step) -> None:
    """The block's output, put together again from the captured routing."""
    block = handle.block
    kept: dict[str, Any] = {}
    hook = block.register_forward_hook(lambda _, args, output: kept.update(hidden=args[0], output=output[0]))
    model(**inputs)
    hook.remove()
    hidden = kept["hidden"].reshape(-1, kept["hidden"].shape[-1])
    indices = torch.from_numpy(step.indices[:, handle.site.index].astype(np.int64))
    assert step.weights is not None
    weights = torch.from_numpy(step.weights[:, handle.site.index].astype(np.float32))
    down, up = block.down_embed.weight[indices], block.up_embed.weight[indices]
    routed = ((block.act_fn((down * hidden[:, None]).sum(-1)) * weights)[..., None] * up).sum(1)
    always = block.down_proj(block.act_fn(block.gate_proj(hidden)) * block.up_proj(hidden))
    expected = kept["output"].reshape(hidden.shape)
    torch.testing.assert_close(always + routed, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", buildable())
def test_generation_is_bit_identical(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    if not built.can_generate:
        pytest.skip("it generates no text token by token")
    model, inputs = built.model, built.inputs(2, 8, padding="left")
    inputs.pop("decoder_input_ids", None)
    arguments = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    arguments |= {"output_logits": True, "return_dict_in_generate": True}
    bare = model.generate(**inputs, **arguments)
    steps: list[Step] = []
    with Capture(model, on_step=steps.append) as capture:
        watched = model.generate(**inputs, **arguments)
    assert torch.equal(bare.sequences, watched.sequences)
    assert all(torch.equal(a, b) for a, b in zip(bare.logits, watched.logits))
    decoder = [step for step in steps if step.stack == "decoder"]
    assert [step.phase for step in decoder] == [Phase.PREFILL] + [Phase.DECODE] * (NEW_TOKENS - 1)
    check_tokens(decoder, watched.sequences, inputs, built.is_encoder_decoder)
    check_probabilities(decoder, watched, capture)


STATIC_BREAKS = {"deepseek_v4": "transformers has no static cache for its compressed attention"}


@pytest.mark.parametrize("name", buildable())
def test_generation_on_a_static_cache_is_bit_identical(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    if not built.can_generate:
        pytest.skip("it generates no text token by token")
    model, inputs = built.model, built.inputs(2, 7, padding="left")
    inputs.pop("decoder_input_ids", None)
    arguments = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    arguments |= {"cache_implementation": "static", "output_logits": True, "return_dict_in_generate": True}
    if name in STATIC_BREAKS:
        with pytest.raises(KeyError):
            model.generate(**inputs, **arguments)
        pytest.skip(STATIC_BREAKS[name])
    bare = model.generate(**inputs, **arguments)
    steps: list[Step] = []
    with Capture(model, on_step=steps.append) as capture:
        watched = model.generate(**inputs, **arguments)
    assert torch.equal(bare.sequences, watched.sequences)
    assert all(torch.equal(a, b) for a, b in zip(bare.logits, watched.logits))
    decoder = [step for step in steps if step.stack == "decoder"]
    check_tokens(decoder, watched.sequences, inputs, built.is_encoder_decoder)
    check_probabilities(decoder, watched, capture)


def check_tokens(steps: list[Step], sequences: torch.Tensor, inputs: dict[str, Any], encoder_decoder: bool) -> None:
    """Ids are those that went in; positions count each sequence's own tokens."""
    batch = len(sequences)
    ids = np.concatenate([step.token_id.reshape(batch, -1) for step in steps], 1)
    np.testing.assert_array_equal(ids, sequences[:, :-1].numpy())
    positions = np.concatenate([step.position.reshape(batch, -1) for step in steps], 1)
    pads = np.concatenate([step.pad.reshape(batch, -1) for step in steps], 1)
    mask = np.ones_like(ids)
    if not encoder_decoder:
        given = inputs["attention_mask"].numpy()
        mask[:, : given.shape[1]] = given
    np.testing.assert_array_equal(pads, mask == 0)
    np.testing.assert_array_equal(positions, np.where(mask == 0, -1, mask.cumsum(1) - 1))


def check_probabilities(steps: list[Step], generated: Any, capture: Capture) -> None:
    """A token's probability and the candidates before it are those of the logits that it was chosen from."""
    batch = len(generated.sequences)
    for number, step in enumerate(steps):
        expected = generated.logits[number].float().log_softmax(-1)
        top = expected.topk(capture.options.candidates)
        ids = step.candidate_ids.reshape(batch, -1, capture.options.candidates)[:, -1]
        np.testing.assert_array_equal(ids, top.indices.numpy())
        found = step.candidate_logprobs.reshape(batch, -1, capture.options.candidates)[:, -1]
        np.testing.assert_allclose(found, top.values.numpy(), rtol=2e-3, atol=2e-3)
        if number:
            came = generated.sequences[:, len(generated.sequences[0]) - len(steps) + number - 1]
            before = generated.logits[number - 1].float().log_softmax(-1)
            wanted = before.gather(1, came[:, None])[:, 0].numpy()
            np.testing.assert_allclose(step.logprob, wanted, rtol=1e-4, atol=1e-4)


class StopError(Exception):
    pass


@pytest.mark.parametrize("name", buildable())
@torch.no_grad()
def test_a_pass_that_breaks_leaves_nothing_behind(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    model, inputs = built.model, built.inputs(1, 4)
    steps: list[Step] = []
    capture = Capture(model, on_step=steps.append)
    before = hook_state(model)
    called = [handle for handle in capture.handles if "vision" not in handle.site.name]
    for error in (StopError, KeyboardInterrupt):

        def break_off(*_: Any, error: type[BaseException] = error) -> None:
            raise error

        broken = called[-1].router.register_forward_hook(break_off)
        with capture, pytest.raises(error):
            model(**inputs)
        broken.remove()
        assert hook_state(model) == before
    assert not steps, "a pass that broke off was recorded"
    with capture:
        model(**inputs)
    assert steps
    assert hook_state(model) == before


@pytest.mark.parametrize("name", buildable())
@torch.no_grad()
def test_a_pass_that_stands_before_a_site_shows_what_is_recorded_of_it_later(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    steps: list[Step] = []
    events: list[Event] = []
    stood: list[tuple[Any, Any]] = []
    with Capture(built.model, on_step=steps.append, on_event=events.append) as capture:
        capture.gate = lambda context: stood.append((context.site, capture.so_far(context)))
        built.model(**built.inputs(2, 8, padding="left"))
        capture.flush()
        assert {site.name for site, _ in stood} == {
            site.name for site in capture.sites if not any(word in site.name for word in NOT_REACHED_BY_TEXT)
        }
    by_stack = {step.stack: step for step in steps}
    last = {site.index: place for place, (site, _) in enumerate(stood)}
    passed: dict[str, list[int]] = {}
    for place, (site, view) in enumerate(stood):
        before = passed.setdefault(site.stack, [])
        before.append(site.index)
        step, block, columns = by_stack[site.stack], view.routing(0, view.end), view.tokens(0, view.end)
        np.testing.assert_array_equal(columns.token_id, step.token_id)
        np.testing.assert_array_equal(columns.position, step.position)
        np.testing.assert_array_equal(columns.pad, step.pad)
        ahead = [each.index for each in view.sites if each.index not in before]
        assert (block.indices[:, ahead] == NO_EXPERT).all()
        # Of a site that is called again, the recording has the last call.
        here = [number for number in before if last[number] <= place]
        for kind in ("indices", "weights", "logits"):
            np.testing.assert_array_equal(getattr(block, kind)[:, here], getattr(step, kind)[:, here], err_msg=kind)
