"""Analyses against computations of another kind, and models that are afterwards as they were before."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moetui.engine import Capture, find_sites
from moetui.engine.analyses import ANALYSES, find_analysis, run_analysis
from moetui.engine.analyses.passes import at_rest
from moetui.engine.analyses.replacement import chosen, neutral
from moetui.engine.analyses.subject import Subject
from moetui.engine.interventions import plan
from moetui.engine.texts import TokenTexts
from moetui.engine.zoo import build, tokenizer
from moetui.routing import NO_EXPERT, ModelError, Step, Timeline, UnsupportedError, UsageError
from moetui.routing.events import Branch
from moetui.routing.interventions import ForceExperts, ScaleExperts
from tests.engine.interception import hook_state, intercepted

MAIN = ["mixtral", "qwen3_moe", "deepseek_v3", "olmoe", "gpt_oss"]
IDS = torch.randint(5, 60, (12,), generator=torch.Generator().manual_seed(0)).tolist()
ZooModel = Callable[[str], Any]


def subject(model: Any, ids: list[int] = IDS, words: Any = None) -> Subject:
    """A model through which one sequence went."""
    steps: list[Step] = []
    with Capture(model, on_step=steps.append) as capture, torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    timeline = Timeline(capture.info)
    for step in steps:
        timeline.append(step)
    return Subject(model, words, capture.handles, timeline.snapshot())


def ask(on: Subject, name: str, **arguments: Any) -> Any:
    return run_analysis(find_analysis(name, arguments), on, arguments)


@torch.no_grad()
def passed(model: Any, ids: list[int]) -> tuple[Tensor, Any]:
    """Log-probabilities ``[T, V]`` and the interception of one plain pass."""
    modules = [module for handle in find_sites(model) for module in (handle.router, handle.experts)]
    with intercepted(modules) as seen:
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    return logits.double().log_softmax(-1), seen


def test_registered_arguments_are_those_of_the_functions() -> None:
    for name, analysis in ANALYSES.items():
        module = __import__(f"moetui.engine.analyses.{name}", fromlist=[name])
        _, *parameters = inspect.signature(getattr(module, name)).parameters.values()
        needed = {each.name for each in parameters if each.default is each.empty}
        assert needed == set(analysis.required)
        assert {each.name for each in parameters} - needed == set(analysis.optional)


@pytest.mark.parametrize(
    ("name", "arguments", "message", "hint"),
    [
        ("token_impct", {}, "there is no analysis token_impct", "did you mean token_impact?"),
        ("ablation", {"branch": 0, "site": 0}, "ablation needs expert", "it takes branch, site, expert, sequence"),
        ("expert_similarity", {"site": 0, "layer": 1}, "expert_similarity takes no layer", None),
    ],
)
def test_a_wrong_call_is_refused(name: str, arguments: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        find_analysis(name, arguments)
    assert caught.value.message == message
    assert hint is None or caught.value.hint == hint


@pytest.mark.parametrize("name", MAIN)
def test_token_impact(zoo_model: ZooModel, name: str) -> None:
    model = zoo_model(name).model
    on = subject(model)
    places, token = [3, 4], 40
    state = hook_state(model)
    found = ask(on, "token_impact", branch=0, positions=places, replacement=str(token))
    assert hook_state(model) == state
    changed = [token if place in places else own for place, own in enumerate(IDS)]
    one, seen = passed(model, IDS)
    two, other = passed(model, changed)
    later = list(range(5, len(IDS)))
    differences = [float(two[place - 1, IDS[place]] - one[place - 1, IDS[place]]) for place in later]
    assert found.logprob == pytest.approx(np.mean(differences), abs=1e-4)
    divergence = sum(math.exp(p) * (p - q) for p, q in zip(one[-1].tolist(), two[-1].tolist()))
    assert found.divergence == pytest.approx(divergence, abs=1e-4)
    assert [text for text, _ in found.before] == [f"‹{index}›" for index in one[-1].topk(5).indices.tolist()]
    assert [share for _, share in found.after] == pytest.approx(two[-1].exp().topk(5).values.tolist(), abs=1e-4)
    assert found.replacement == f"‹{token}›"
    assert len(on.handles) == found.changed.size
    for handle in on.handles:
        number = handle.site.index
        before, after = seen.dense(handle), other.dense(handle)
        moved = [set(before[t].nonzero()[:, 0].tolist()) != set(after[t].nonzero()[:, 0].tolist()) for t in later]
        assert found.changed[number] == pytest.approx(np.mean(moved))
        for row, place in enumerate(places):
            own = {int(e): w for e, w in zip(found.indices[row, number], found.weights[row, number]) if e != NO_EXPERT}
            assert own == pytest.approx({e: float(after[place, e]) for e in after[place].nonzero()[:, 0].tolist()})


def test_replacing_the_last_token_has_no_later_ones(zoo_model: ZooModel) -> None:
    found = ask(subject(zoo_model("mixtral").model), "token_impact", branch=0, positions=[11], replacement="40")
    assert math.isnan(found.logprob)
    assert np.isnan(found.changed).all()
    assert found.divergence > 0
    same = ask(subject(zoo_model("mixtral").model), "token_impact", branch=0, positions=[2], replacement=str(IDS[2]))
    assert (same.logprob, same.divergence, same.before) == (0, 0, same.after)
    assert not same.changed.any()


def test_replacements() -> None:
    words = tokenizer()
    texts = TokenTexts(words)
    first = words("some words", add_special_tokens=False).input_ids[0]
    known = texts.text(first)
    assert texts.texts(chosen(words, known, 3)) == [known] * 3
    plain = neutral(words, None, ())
    again = neutral(words, None, (plain,))
    assert again != plain
    for wrong, message in (("", "empty"), ("many words here and there, too many by far", "tokens, its place wants")):
        with pytest.raises(UsageError, match=message):
            chosen(words, wrong, 1)
    assert chosen(None, "12", 2) == (12, 12)
    assert chosen(None, "12 7", 2) == (12, 7)
    for wrong in ("twelve", "1 2 3", "-4"):
        with pytest.raises(UsageError, match="token id"):
            chosen(None, wrong, 2)
    config = build("gemma4").config  # what it says of tokens, it says of its text model
    assert neutral(None, config, ()) == config.get_text_config().pad_token_id
    with pytest.raises(UsageError, match="no neutral token"):
        neutral(None, None, ())


@pytest.mark.parametrize("name", MAIN)
@torch.no_grad()
def test_router_decomposition(zoo_model: ZooModel, name: str) -> None:
    model = zoo_model(name).model
    on = subject(model)
    state = hook_state(model)
    position, handle = 7, on.handles[-1]
    found = ask(on, "router_decomposition", branch=0, position=position, site=handle.site.index)
    assert hook_state(model) == state
    # The stream by the layers' own modules, called again: nothing of the analysis' bookkeeping is used.
    kept: dict[str, Tensor] = {}
    hooks = [model.get_input_embeddings().register_forward_hook(lambda _, __, out: kept.update(embedding=out))]
    for number, layer in enumerate(model.model.layers[: handle.site.layer + 1]):
        kind = "experts" if any(each.site.layer == number for each in on.handles) else "mlp"
        for key, module in ((f"L{number} attention", layer.self_attn), (f"L{number} {kind}", layer.mlp)):
            hooks.append(module.register_forward_hook(lambda _, __, out, key=key: kept.update({key: out})))
    _, seen = passed(model, IDS)
    for hook in hooks:
        hook.remove()
    norm = model.model.layers[handle.site.layer].post_attention_layernorm
    router = dict(handle.router.named_parameters())
    rows = {key: (out[0] if isinstance(out, tuple) else out)[0, position].double() for key, out in kept.items()}
    rows.pop(f"L{handle.site.layer} experts")
    stream = sum(rows.values())
    rms = (stream.square().mean() + norm.variance_epsilon).sqrt()
    expected = {key: (router["weight"].double() @ (norm.weight * row)) / rms for key, row in rows.items()}
    if "bias" in router:
        expected["router bias"] = router["bias"].double()
    assert found.parts == tuple(expected)
    np.testing.assert_allclose(found.contributions, torch.stack(list(expected.values())), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, seen.logits(handle)[position], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.contributions.sum(0), found.logits, rtol=1e-3, atol=1e-4)


def test_a_stream_that_is_no_sum_is_refused(zoo_model: ZooModel) -> None:
    on = subject(zoo_model("zaya").model)
    with pytest.raises(UnsupportedError, match="layer 0 does not just add to the residual stream"):
        ask(on, "router_decomposition", branch=0, position=3, site=1)


class Odd(nn.Module):
    """A router's stand-in that gives other logits than its weight makes of its input."""

    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.weight, self.own = router.weight, [router]
        self.top_k, self.num_experts = router.top_k, router.num_experts

    def forward(self, hidden: Tensor) -> Any:
        logits, weights, indices = self.own[0](hidden)
        return logits * 1.05, weights, indices


def test_a_sum_that_misses_the_logits_is_refused(zoo_model: ZooModel) -> None:
    model = zoo_model("mixtral").model
    block = model.model.layers[1].mlp
    router = block.gate
    block.gate = Odd(router)
    try:
        with pytest.raises(UnsupportedError, match="the parts' sum misses the router's output by up to 0"):
            ask(subject(model), "router_decomposition", branch=0, position=3, site=1)
    finally:
        block.gate = router


@pytest.mark.parametrize("name", MAIN)
@torch.no_grad()
def test_expert_similarity(zoo_model: ZooModel, name: str) -> None:
    model = zoo_model(name).model
    on = subject(model)
    experts = on.handles[0].experts
    flat = torch.cat([each.reshape(8, -1) for each in (experts.gate_up_proj, experts.down_proj)], 1).double()
    found = ask(on, "expert_similarity", site=0)
    np.testing.assert_allclose(found, _cosines(flat), atol=1e-6)
    assert found.dtype == np.float32
    hidden = passed(model, IDS)[1].calls[id(experts)][0]
    one = torch.ones(len(hidden), 1)
    outputs = [experts(hidden, torch.full((len(hidden), 1), e), one) for e in range(8)]
    mean = np.mean([_cosines(torch.stack([each[t] for each in outputs]).double()) for t in range(len(hidden))], 0)
    np.testing.assert_allclose(ask(on, "expert_similarity", site=0, by="outputs", branch=0), mean, atol=1e-5)


def _cosines(rows: Tensor) -> Any:
    return torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1).numpy()


def test_similarity_in_pieces_and_of_an_empty_expert(zoo_model: ZooModel, monkeypatch: pytest.MonkeyPatch) -> None:
    on = subject(zoo_model("mixtral").model)
    whole = ask(on, "expert_similarity", site=2)
    monkeypatch.setattr("moetui.engine.analyses.expert_similarity._CHUNK", 8 * 37)
    np.testing.assert_allclose(ask(on, "expert_similarity", site=2), whole, atol=1e-6)
    experts = on.handles[2].experts
    held = [each.detach().clone() for each in experts.parameters()]
    try:
        with torch.no_grad():
            for each in experts.parameters():
                each[5] = 0
                each[6] = each[1]
        found = ask(on, "expert_similarity", site=2)
        assert np.isnan(found[5]).all()
        assert found[1, 6] == pytest.approx(1)
    finally:
        with torch.no_grad():
            for each, own in zip(experts.parameters(), held):
                each.copy_(own)


def test_similarity_of_other_kinds(zoo_model: ZooModel) -> None:
    nested = subject(zoo_model("dbrx").model)
    found = ask(nested, "expert_similarity", site=0, by="outputs", branch=0)
    np.testing.assert_allclose(np.diagonal(found), 1, atol=1e-5)
    assert np.abs(found - np.eye(8)).max() < 0.99
    on = subject(zoo_model("jetmoe").model)
    block = on.handles[1].block
    rows = [
        torch.cat([w[e].flatten() for w in (block.input_linear.weight, block.output_linear.weight)]) for e in range(8)
    ]
    expected = _cosines(torch.stack(rows).detach().double())
    np.testing.assert_allclose(ask(on, "expert_similarity", site=1), expected, atol=1e-6)
    with pytest.raises(UnsupportedError, match="single experts cannot be run at L0"):
        ask(on, "expert_similarity", site=0, by="outputs", branch=0)
    model = zoo_model("switch_transformers").model
    handles = find_sites(model)
    found = ask(Subject(model, None, handles, on.view), "expert_similarity", site=0)
    rows = [torch.cat([w.flatten() for w in e.parameters()]) for e in handles[0].experts.children()]
    np.testing.assert_allclose(found, _cosines(torch.stack([row.detach().double() for row in rows])), atol=1e-6)
    with pytest.raises(UnsupportedError, match="not kept by expert"):
        ask(Subject(model, None, find_sites(zoo_model("doge").model), on.view), "expert_similarity", site=0)


@pytest.mark.parametrize("name", [*MAIN, "jetmoe"])
def test_ablation(zoo_model: ZooModel, name: str) -> None:
    model = zoo_model(name).model
    on = subject(model)
    handle = on.handles[1]
    one, seen = passed(model, IDS)
    dense = seen.dense(handle)
    expert = int((dense[:-1] != 0).sum(0).argmax())
    found = ask(on, "ablation", branch=0, site=1, expert=expert)
    used = [place for place in range(len(IDS) - 1) if dense[place, expert] != 0]
    assert found.positions.tolist() == used
    assert found.uses == len(used) + (dense[len(IDS) - 1, expert] != 0)
    assert found.changes.any()
    # An expert whose last projection is zero adds nothing, whatever its weight.
    weights = dict(handle.block.named_parameters())
    last = [weights[key] for key in weights if "shared" not in key and ("down" in key or "output" in key)]
    assert last
    held = [each.detach().clone() for each in last]
    try:
        with torch.no_grad():
            for each in last:
                each[expert] = 0
        two = passed(model, IDS)[0]
    finally:
        with torch.no_grad():
            for each, own in zip(last, held):
                each.copy_(own)
    changes = [float(two[place, IDS[place + 1]] - one[place, IDS[place + 1]]) for place in used]
    np.testing.assert_allclose(found.changes, changes, atol=1e-4)
    assert found.mean == pytest.approx(np.mean(changes), abs=1e-4)
    assert found.error == pytest.approx(np.std(changes, ddof=1) / len(used) ** 0.5, abs=1e-4)
    assert found.note == "computed in float32"
    with pytest.raises(UsageError, match=f"{handle.site.name} has no expert 8"):
        ask(on, "ablation", branch=0, site=1, expert=8)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "jetmoe", "llama4"])
@torch.no_grad()
def test_an_analysis_changes_what_is_in_force(name: str, zoo_model: ZooModel) -> None:
    model = zoo_model(name).model
    on = subject(model)
    slots = min(handle.site.top_k for handle in on.handles)
    force = plan((ForceExperts((0, 3)[:slots]),), lambda: on.handles).functions
    silence = plan((ScaleExperts((0,), 0.0),), lambda: on.handles).functions[1]

    def forced_and_silenced(context: Any, logits: Any, indices: Any, weights: Any) -> Any:
        return silence(context, logits, *force[1](context, logits, indices, weights))

    with Capture(model) as capture:
        capture.set_functions(force)
        with capture.muted():
            found = ask(on, "ablation", branch=0, site=1, expert=0)
            before = passed(model, IDS)[0]
        capture.set_functions({**force, 1: forced_and_silenced})
        with capture.muted():
            after = passed(model, IDS)[0]
    places = range(len(IDS) - 1)
    assert found.positions.tolist() == list(places), "every token is sent there"
    changes = [float(after[place, IDS[place + 1]] - before[place, IDS[place + 1]]) for place in places]
    assert any(changes)
    np.testing.assert_allclose(found.changes, changes, atol=1e-5)


def test_what_cannot_be_analysed_is_said(zoo_model: ZooModel) -> None:
    on = subject(zoo_model("mixtral").model)
    with pytest.raises(UsageError, match="there is no site 4"):
        ask(on, "expert_similarity", site=4)
    with pytest.raises(UsageError, match="positions must lie between 0 and 11"):
        ask(on, "token_impact", branch=0, positions=[3, 12])
    with pytest.raises(UsageError, match="position must lie"):
        ask(on, "router_decomposition", branch=0, position=12, site=0)
    with pytest.raises(UsageError, match="branch 3 has no tokens"):
        ask(on, "ablation", branch=3, site=0, expert=0)
    with pytest.raises(UsageError, match="the model has no token 99999"):
        ask(on, "token_impact", branch=0, positions=[3], replacement="99999")
    encoding = zoo_model("switch_transformers").model
    with pytest.raises(UnsupportedError, match="an encoder reads the prompt"):
        ask(Subject(encoding, None, find_sites(encoding), on.view), "ablation", branch=0, site=0, expert=0)
    classifier = zoo_model("openai_privacy_filter").model
    with pytest.raises(UnsupportedError, match="later tokens have a part"):
        ask(subject(classifier), "router_decomposition", branch=0, position=3, site=0)
    with pytest.raises(UnsupportedError, match="no probabilities of next tokens"):
        ask(subject(classifier), "token_impact", branch=0, positions=[3], replacement="40")


def test_the_model_is_afterwards_as_it_was(zoo_model: ZooModel) -> None:
    model = zoo_model("mixtral").model
    on = subject(model)
    held = [each.clone() for each in (*model.parameters(), *model.buffers())]
    grads = [each.requires_grad for each in model.parameters()]
    state, random = hook_state(model), torch.get_rng_state()
    model.model.layers[1].train()
    try:
        trained = [module.training for module in model.modules()]
        for name, arguments in (
            ("token_impact", {"positions": [2], "replacement": "9"}),
            ("router_decomposition", {"position": 5, "site": 3}),
            ("ablation", {"site": 0, "expert": 1}),
            ("expert_similarity", {"site": 1, "by": "outputs"}),
        ):
            ask(on, name, branch=0, **arguments)
        assert [module.training for module in model.modules()] == trained
    finally:
        model.eval()
    assert hook_state(model) == state
    assert torch.equal(torch.get_rng_state(), random)
    assert [each.requires_grad for each in model.parameters()] == grads
    assert all(each.grad is None for each in model.parameters())
    assert all(torch.equal(own, each) for own, each in zip(held, (*model.parameters(), *model.buffers())))


def test_a_pass_that_breaks_leaves_nothing_either(zoo_model: ZooModel) -> None:
    model = zoo_model("olmoe").model
    on = subject(model)
    state = hook_state(model)

    def break_off(*_: Any) -> None:
        raise ValueError("no\nway")

    broken = model.model.layers[2].register_forward_pre_hook(break_off)
    for name, arguments in (
        ("token_impact", {"positions": [2], "replacement": "9"}),
        ("router_decomposition", {"position": 5, "site": 3}),
        ("expert_similarity", {"site": 3, "by": "outputs"}),
    ):
        with pytest.raises(ModelError, match="the model failed in the analysis: ValueError: no way"):
            ask(on, name, branch=0, **arguments)
    broken.remove()
    assert hook_state(model) == state


def test_what_modules_keep_between_passes_is_put_back(zoo_model: ZooModel) -> None:
    model = zoo_model("mixtral").model
    rotary = model.model.rotary_emb
    kept, rotary.rope_deltas = rotary.inv_freq, 3
    try:
        with at_rest(model):
            rotary.rope_deltas, rotary.left_over = 4, 1
            rotary.register_buffer("inv_freq", kept + 1, persistent=False)
        assert rotary.rope_deltas == 3
        assert not hasattr(rotary, "left_over")
        assert rotary.inv_freq is kept
    finally:
        del rotary.rope_deltas


def test_sequences_of_branches(zoo_model: ZooModel) -> None:
    model = zoo_model("mixtral").model
    steps: list[Step] = []
    with Capture(model, on_step=steps.append) as capture, torch.no_grad():
        for branch, ids in ((0, [7, 8, 9, 10]), (1, [11, 12]), (2, [13])):
            capture.branch = branch
            start = {0: 0, 1: 2, 2: 3}[branch]
            places = torch.arange(start, start + len(ids))[None]
            model(input_ids=torch.tensor([ids]), position_ids=places)
        capture.branch = 4
        for ids in ([20, 21, 22], [30, 31]):
            model(input_ids=torch.tensor([ids, ids[::-1]]))
    timeline = Timeline(capture.info)
    for step in steps:
        timeline.append(step)
    branches = (Branch(0, 0, "run 0"), Branch(1, 0, "a", 0, 2), Branch(2, 0, "b", 1, 3), Branch(3, 0, "c", 0, 3))
    on = Subject(model, None, capture.handles, timeline.snapshot(), branches)
    assert on.ids(0, 0) == [7, 8, 9, 10]
    assert on.ids(1, 0) == [7, 8, 11, 12]
    assert on.ids(2, 0) == [7, 8, 11, 13]
    assert on.ids(3, 0) == [7, 8, 9], "nothing of its own has gone through the model"
    assert on.ids(4, 1) == [31, 30], "a model that its owner runs: the newest passes"
    short = Timeline(capture.info, max_tokens=8)
    for step in steps:
        short.append(step)
    late = Subject(model, None, capture.handles, short.snapshot(), branches)
    for branch in (1, 2):
        with pytest.raises(UsageError, match="not held any more"):
            late.ids(branch, 0)
