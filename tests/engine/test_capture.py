"""Which tokens a step holds, whatever way the model is called; and that nothing the capture does can hurt a run."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import CompileConfig

from moetui.engine import Capture, CaptureOptions
from moetui.engine.zoo import BuiltModel, build
from moetui.routing import NO_EXPERT, ModelError, Phase, SiteFlag, Step, UnsupportedError
from moetui.routing.events import FindingRaised
from tests.engine.interception import hook_state


class Watched:
    """A capture, its steps and its events."""

    def __init__(self, model: nn.Module, options: CaptureOptions | None = None, **arguments: Any) -> None:
        self.steps: list[Step] = []
        self.events: list[Any] = []
        self.capture = Capture(model, options, on_step=self.steps.append, on_event=self.events.append, **arguments)

    def __enter__(self) -> Watched:
        self.capture.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.capture.close()

    @property
    def findings(self) -> list[Any]:
        return [event.finding for event in self.events if isinstance(event, FindingRaised)]


@pytest.fixture(scope="module")
def mixtral() -> BuiltModel:
    return build("mixtral")


@pytest.fixture
def model(mixtral: BuiltModel) -> Any:
    before = hook_state(mixtral.model)
    yield mixtral.model
    assert hook_state(mixtral.model) == before


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, 500, shape, generator=torch.Generator().manual_seed(seed))


def table(steps: list[Step], name: str, batch: int) -> np.ndarray[Any, Any]:
    """A column of all steps, a row a sequence."""
    return np.concatenate([getattr(step, name).reshape(batch, -1) for step in steps], 1)


@torch.no_grad()
def test_padding_at_the_right(model: Any) -> None:
    tokens = ids(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    with Watched(model) as watched:
        logits = model(input_ids=tokens, attention_mask=mask).logits.log_softmax(-1)
    (step,) = watched.steps
    assert step.phase is Phase.PREFILL
    assert step.position.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, -1, -1]
    assert step.pad.tolist() == [False] * 10 + [True] * 2
    assert step.sequence.tolist() == [0] * 6 + [1] * 6
    # Each token's own probability, and the likeliest tokens after each sequence's last real one.
    expected = np.full((2, 6), np.nan, np.float32)
    expected[:, 1:] = logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0].numpy()
    expected[1, 4:] = np.nan
    np.testing.assert_allclose(step.logprob.reshape(2, 6), expected, rtol=1e-4)
    known = (step.candidate_ids >= 0).any(-1)
    assert np.flatnonzero(known).tolist() == [5, 9]
    np.testing.assert_array_equal(step.candidate_ids[[5, 9]], logits[[0, 1], [5, 3]].topk(8).indices.numpy())


@torch.no_grad()
def test_the_first_real_token_behind_padding_has_no_probability(model: Any) -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    with Watched(model) as watched:
        model(input_ids=ids(1, 5), attention_mask=mask)
    assert np.isnan(watched.steps[0].logprob).tolist() == [True, True, True, False, False]


@torch.no_grad()
def test_embeddings_instead_of_ids(model: Any) -> None:
    tokens = ids(2, 4)
    with Watched(model) as watched:
        model(inputs_embeds=model.get_input_embeddings()(tokens))
    (step,) = watched.steps
    assert step.token_id.tolist() == [-1] * 8
    assert step.position.tolist() == [0, 1, 2, 3] * 2
    assert np.isnan(step.logprob).all()


@torch.no_grad()
def test_a_prompt_of_one_token_is_a_prompt(model: Any) -> None:
    with Watched(model) as watched:
        out = model(input_ids=ids(1, 1), use_cache=True)
        model(input_ids=ids(1, 1), past_key_values=out.past_key_values)
    assert [step.phase for step in watched.steps] == [Phase.PREFILL, Phase.DECODE]
    assert [step.position.tolist() for step in watched.steps] == [[0], [1]]


@torch.no_grad()
def test_a_second_turn_on_the_same_cache(model: Any) -> None:
    turns = ids(1, 5), ids(1, 3, seed=1)
    with Watched(model) as watched:
        first = model(input_ids=turns[0], use_cache=True)
        logits = first.logits[:, -1].log_softmax(-1)
        model(input_ids=turns[1], past_key_values=first.past_key_values)
    second = watched.steps[1]
    assert second.phase is Phase.PREFILL
    assert second.position.tolist() == [5, 6, 7]
    assert second.logprob[0] == pytest.approx(float(logits[0, turns[1][0, 0]]), rel=1e-4)


@torch.no_grad()
def test_tokens_on_another_cache_of_equal_length_are_no_continuation(model: Any) -> None:
    with Watched(model) as watched:
        model(input_ids=ids(1, 5), use_cache=True)
        other = model(input_ids=ids(1, 5, seed=2), use_cache=True).past_key_values
        first = model(input_ids=ids(1, 5), use_cache=True).past_key_values
        model(input_ids=ids(1, 1), past_key_values=other)
        del first
    assert np.isnan(watched.steps[-1].logprob).all()


def generate(model: Any, watched: Watched, tokens: torch.Tensor, **arguments: Any) -> torch.Tensor:
    with watched:
        return model.generate(tokens, max_new_tokens=6, min_new_tokens=6, do_sample=False, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 3},
        {"use_cache": True},
        {"prompt_lookup_num_tokens": 3},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_ways_to_generate(arguments: dict[str, Any], model: Any) -> None:
    tokens = ids(1, 4).repeat(1, 2)
    bare = model.generate(tokens, max_new_tokens=6, min_new_tokens=6, do_sample=False, **arguments)
    watched = Watched(model)
    out = generate(model, watched, tokens, **arguments)
    assert torch.equal(bare, out)
    with torch.no_grad():
        logprobs = model(out).logits.log_softmax(-1)[0]
    at: dict[int, int] = {}
    for step in watched.steps:
        for row in range(step.num_tokens):
            position, token = int(step.position[row]), int(step.token_id[row])
            at[position] = token
            if not np.isnan(step.logprob[row]) and token == out[0, position]:
                assert step.logprob[row] == pytest.approx(float(logprobs[position - 1, token]), abs=1e-3)
        assert (step.indices != NO_EXPERT).all()
    # A drafted token that was not taken is replaced by the one that was; the last one never went in.
    assert [at[position] for position in range(out.shape[1] - 1)] == out[0, :-1].tolist()
    assert sum(int((~np.isnan(step.logprob)).sum()) for step in watched.steps) >= 5


def test_without_a_cache_every_pass_is_the_whole_text(model: Any) -> None:
    watched = Watched(model)
    out = generate(model, watched, ids(1, 4), use_cache=False)
    assert [step.num_tokens for step in watched.steps] == [4, 5, 6, 7, 8, 9]
    assert {step.phase for step in watched.steps} == {Phase.PREFILL}
    assert watched.steps[-1].token_id.tolist() == out[0, :-1].tolist()


def test_an_assistant_is_another_model(model: Any) -> None:
    assistant = build("mixtral", seed=1).model
    bare = model.generate(ids(1, 6), max_new_tokens=6, do_sample=False)
    watched = Watched(model)
    with watched:
        out = model.generate(ids(1, 6), max_new_tokens=6, do_sample=False, assistant_model=assistant)
    assert torch.equal(bare, out)
    assert all(step.num_tokens > 1 for step in watched.steps[1:-1]), "drafts are checked several at a time"
    last = watched.steps[-1]
    assert last.position[0] >= 6
    assert not any(finding.severity == "error" for finding in watched.findings)


def test_beams_have_no_probabilities_of_another_beam(model: Any) -> None:
    watched = Watched(model)
    generate(model, watched, ids(1, 4), num_beams=3)
    decode = [step for step in watched.steps if step.phase is Phase.DECODE]
    assert decode
    for step in decode:
        assert step.sequence.tolist() == [0, 1, 2]
        assert np.isnan(step.logprob).all(), "rows are permuted between passes"
        assert (step.candidate_ids >= 0).all()


def test_what_follows_a_sequence_s_end_is_padding(model: Any) -> None:
    tokens = ids(2, 4)
    free = model.generate(tokens, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    settings = model.generation_config
    held, end = settings.eos_token_id, int(free[0, 5])
    assert end not in free[1], "the second sequence has to go on"
    for pad in (0, end):
        settings.eos_token_id, settings.pad_token_id = end, pad
        try:
            watched = Watched(model)
            with watched:
                out = model.generate(tokens, max_new_tokens=8, do_sample=False)
        finally:
            settings.eos_token_id, settings.pad_token_id = held, 0
        pads = table(watched.steps, "pad", 2)
        first = free[0].tolist().index(end, 4)
        assert out[0, first + 1 :].unique().tolist() == [pad]
        assert np.flatnonzero(pads[0]).tolist() == list(range(first + 1, pads.shape[1]))
        assert not pads[1].any()
        assert (table(watched.steps, "position", 2)[pads] == -1).all()


def test_an_encoder_runs_before_its_decoder(zoo_model: Any) -> None:
    built = zoo_model("switch_transformers")
    inputs = built.inputs(2, 6, padding="left")
    inputs.pop("decoder_input_ids")
    watched = Watched(built.model)
    with watched:
        out = built.model.generate(**inputs, max_new_tokens=3, min_new_tokens=3)
    assert [step.stack for step in watched.steps] == ["encoder", "decoder", "decoder", "decoder"]
    encoder, first = watched.steps[:2]
    assert encoder.token_id.tolist() == inputs["input_ids"].reshape(-1).tolist()
    assert encoder.pad.reshape(2, 6).tolist() == (inputs["attention_mask"] == 0).tolist()
    assert first.token_id.tolist() == out[:, 0].tolist()
    assert first.phase is Phase.PREFILL
    stacks = [site.stack for site in watched.capture.sites]
    passed = (encoder.indices != NO_EXPERT).any((0, 2)) | (encoder.flags & SiteFlag.DROPPED > 0).any(0)
    assert [stack for stack, here in zip(stacks, passed) if here] == ["encoder"] * stacks.count("encoder")


@torch.no_grad()
def test_tokens_over_capacity_are_dropped(zoo_model: Any) -> None:
    built = zoo_model("switch_transformers")
    routers = [module for module in built.model.modules() if hasattr(module, "expert_capacity")]
    capacities = [router.expert_capacity for router in routers]
    for router in routers:
        router.expert_capacity = 1
    try:
        with Watched(built.model) as watched:
            built.model(**built.inputs(1, 8))
    finally:
        for router, capacity in zip(routers, capacities):
            router.expert_capacity = capacity
    encoder = watched.steps[0]
    number = next(site.index for site in watched.capture.sites if site.stack == "encoder")
    dropped = encoder.flags[:, number] & SiteFlag.DROPPED > 0
    assert dropped.any()
    np.testing.assert_array_equal(dropped, (encoder.indices[:, number] == NO_EXPERT).all(-1))
    counts = np.bincount(encoder.indices[~dropped, number, 0])
    assert counts.max() == 1


@torch.no_grad()
def test_a_skipped_token_chose_the_class_behind_the_experts(zoo_model: Any) -> None:
    built = zoo_model("zaya")
    with Watched(built.model) as watched:
        biases = [module.balancing_biases for module in built.model.modules() if hasattr(module, "balancing_biases")]
        held = [bias.clone() for bias in biases]
        for bias in biases:
            bias[-1] += 10.0
        built.model(**built.inputs(1, 6))
        for bias, old in zip(biases, held):
            bias.copy_(old)
    (step,) = watched.steps
    site = watched.capture.sites[0]
    assert (step.indices[:, 0, 0] == site.num_experts).all()
    assert not (step.flags & SiteFlag.DROPPED).any()


@torch.no_grad()
def test_each_modality_has_its_own_router(zoo_model: Any) -> None:
    built = zoo_model("ernie4_5_vl_moe")
    model = built.model
    kinds = torch.tensor([[0, 0, 1, 1, 0, 1]])
    with Watched(model) as watched:
        model(input_ids=ids(1, 6), moe_mm_token_type_ids=kinds)
    (step,) = watched.steps
    for site in watched.capture.sites:
        passed = (step.indices[:, site.index] != NO_EXPERT).all(-1)
        image = "vision" in site.name
        np.testing.assert_array_equal(passed, (kinds[0] == int(image)).numpy())
        assert step.logits is not None
        assert np.isfinite(step.logits[passed, site.index]).all()


@torch.no_grad()
def test_rows_that_nothing_attributes_are_left_out_and_said(zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    block = built.model.model.layers[1].mlp
    original = type(block).forward

    def half(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        return torch.cat([original(self, hidden[:, :2]), hidden[:, 2:]], 1) if self is block else original(self, hidden)

    type(block).forward = half
    try:
        with Watched(built.model) as watched:
            built.model(input_ids=ids(1, 6))
    finally:
        type(block).forward = original
    (step,) = watched.steps
    assert (step.indices[:, 1] == NO_EXPERT).all()
    assert (step.indices[:, 0] != NO_EXPERT).all()
    assert [finding.site for finding in watched.findings if finding.kind == "rows_unattributed"] == ["L1"]


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
