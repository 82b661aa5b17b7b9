"""Which tokens a step holds, whatever way the model is called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moetui.engine.caches import returned_cache
from moetui.engine.inputs import TokenInputs
from moetui.engine.interventions import plan
from moetui.engine.zoo import build
from moetui.routing import NO_EXPERT, Phase, SiteFlag
from moetui.routing.interventions import BanExperts, ScaleExperts, Scope
from tests.engine.watched import Watched, ids, onto, table


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


@pytest.mark.parametrize("form", ["bool", "additive", "by_head"])
@torch.no_grad()
def test_padding_in_a_mask_of_four_dimensions(form: str, model: Any) -> None:
    flat = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]], dtype=torch.bool)
    allowed: Any = (flat[:, None, None, :] & torch.ones(6, 6, dtype=torch.bool).tril()).expand(2, 1, 6, 6)
    if form == "additive":
        allowed = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    elif form == "by_head":
        allowed = allowed.expand(2, model.config.num_attention_heads, 6, 6)
    seen: list[torch.Tensor] = []
    with Watched(model) as watched:
        watched.capture.set_functions({0: lambda context, _, *routing: (seen.append(places(context)), routing)[1]})
        model.model(input_ids=ids(2, 6), attention_mask=allowed)
    (step,) = watched.steps
    assert step.pad.tolist() == [False] * 6 + [True] * 2 + [False] * 4
    assert step.position.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, 0, 1, 2, 3] == seen[0].tolist()


def places(context: Any) -> torch.Tensor:
    return context.step.positions("decoder", 12, torch.device("cpu"))


@pytest.mark.parametrize("past", [5, torch.tensor(5)], ids=["number", "tensor"])
def test_tokens_cached_before_count_and_those_to_come_do_not(past: Any) -> None:
    real = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    rows = torch.ones(2, 9, dtype=torch.bool).tril(5)
    attention = (real[:, None, None, :] & rows).float().log()  # two new tokens after five; room for nine
    inputs = TokenInputs("decoder", shape=(2, 2), attention=attention, past=past)
    for _ in range(2):
        assert inputs.place() is not None
        assert inputs.place().tolist() == [[5, 6], [3, -1]]
    # A window that has moved on has the new tokens last.
    inputs = TokenInputs("decoder", shape=(1, 1), attention=torch.ones(1, 1, 1, 4, dtype=torch.bool), past=past)
    inputs.positions = torch.tensor([[5]])
    assert inputs.place().tolist() == [[5]]
    # One that says of each token alone whether it is padding, of the new ones or of all.
    for flat in (real[:, 5:7], real[:, :7]):
        inputs = TokenInputs("decoder", shape=(2, 2), attention=flat, past=past)
        inputs.positions = torch.tensor([[5, 6], [3, 0]])
        assert inputs.place().tolist() == [[5, 6], [3, -1]]
    inputs = TokenInputs("decoder", shape=(1, 2), attention=torch.ones(1, 2, dtype=torch.bool), past=past)
    assert inputs.place().tolist() == [[5, 6]]
    # Of other tokens.
    assert TokenInputs("decoder", shape=(1, 3), attention=attention, past=past).place() is None


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
        model(input_ids=ids(1, 1), **onto(model, out))
    assert [step.phase for step in watched.steps] == [Phase.PREFILL, Phase.DECODE]
    assert [step.position.tolist() for step in watched.steps] == [[0], [1]]


def test_an_output_is_not_asked_for_names_that_it_does_not_hold() -> None:
    class Output:
        def __init__(self, **held: Any) -> None:
            vars(self).update(held)

        @property
        def past_key_values(self) -> Any:
            raise AssertionError("newer versions warn on the terminal here")

    assert returned_cache(Output(cache=None)) is None
    assert returned_cache(Output()) is None
    assert returned_cache(Output(cache=(cache := object()))) is cache
    assert returned_cache(Output(past_key_values=cache)) is cache
    assert returned_cache((1, 2)) is None


@torch.no_grad()
def test_a_second_turn_on_the_same_cache(model: Any) -> None:
    turns = ids(1, 5), ids(1, 3, seed=1)
    with Watched(model) as watched:
        first = model(input_ids=turns[0], use_cache=True)
        logits = first.logits[:, -1].log_softmax(-1)
        model(input_ids=turns[1], **onto(model, first))
    second = watched.steps[1]
    assert second.phase is Phase.PREFILL
    assert second.position.tolist() == [5, 6, 7]
    assert second.logprob[0] == pytest.approx(float(logits[0, turns[1][0, 0]]), rel=1e-4)


@torch.no_grad()
def test_tokens_on_another_cache_of_equal_length_are_no_continuation(model: Any) -> None:
    with Watched(model) as watched:
        model(input_ids=ids(1, 5), use_cache=True)
        other = returned_cache(model(input_ids=ids(1, 5, seed=2), use_cache=True))
        first = returned_cache(model(input_ids=ids(1, 5), use_cache=True))
        model(input_ids=ids(1, 1), **onto(model, other))
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
def test_a_modality_s_router_may_choose_more_experts_than_its_own_number(zoo_model: Any) -> None:
    def first_three(context: Any, logits: Any, indices: torch.Tensor, weights: torch.Tensor) -> Any:
        return torch.arange(3).expand(len(indices), 3), torch.full((len(indices), 3), 0.25)

    built = zoo_model("ernie4_5_vl_moe")
    kinds = torch.tensor([[0, 0, 1, 1, 0, 1]])
    with Watched(built.model) as watched:
        sites = watched.capture.sites
        watched.capture.set_functions({site.index: first_three for site in sites})
        built.model(input_ids=ids(1, 6), moe_mm_token_type_ids=kinds)
    (step,) = watched.steps
    for site in sites:
        here = kinds[0].numpy() == ("vision" in site.name)
        np.testing.assert_array_equal(step.flags[:, site.index] & SiteFlag.FORCED > 0, here)
        assert site.top_k < 3
        assert (step.indices[here, site.index] == [0, 1, 2]).all()
        assert step.weights is not None
        assert (step.weights[here, site.index] == 0.25).all()
        assert (step.indices[~here, site.index] == NO_EXPERT).all()


@torch.no_grad()
def test_what_is_done_to_some_tokens_of_a_modality_is_marked_on_them(zoo_model: Any) -> None:
    built = zoo_model("ernie4_5_vl_moe")
    inputs = built.inputs(2, 6, padding="left")
    kinds = inputs["moe_mm_token_type_ids"] = torch.tensor([[0, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 0]])
    with Watched(built.model) as watched:
        built.model(**inputs)
        sites, number = watched.capture.sites, watched.capture.sites[0].num_experts
        scope = Scope(positions=(2, 4))
        chain = [BanExperts((0,), scope), ScaleExperts(tuple(range(1, number)), 0.0, scope)]
        watched.capture.set_functions(plan(chain, lambda: watched.capture.handles).functions)
        built.model(**inputs)
    bare, step = watched.steps
    inside = (step.position >= 2) & (step.position < 4)
    assert step.pad.sum() == 2
    for site in sites:
        here = kinds.reshape(-1).numpy() == ("vision" in site.name)
        changed = here & inside
        for flag in (SiteFlag.FORCED, SiteFlag.DROPPED):
            np.testing.assert_array_equal(step.flags[:, site.index] & flag > 0, changed, err_msg=site.name)
        assert (step.indices[changed, site.index] == NO_EXPERT).all()
        np.testing.assert_array_equal(step.indices[~here, site.index], NO_EXPERT)
        if site.layer == 1:  # behind that one the others' routing is another
            kept = here & ~inside
            np.testing.assert_array_equal(step.indices[kept, site.index], bare.indices[kept, site.index])


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
