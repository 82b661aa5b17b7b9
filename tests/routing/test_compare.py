"""Two runs side by side: alignment, divergence, agreement and distances."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.routing import NO_EXPERT, ModelInfo, Step, TimelineView, UsageError, empty_view, scores
from moetui.routing.compare import align, compare, first_routing
from tests.routing.routing_cases import make_info, make_site, make_step, random_step, timeline_of

INFO = make_info(make_site(0), make_site(1, experts=3), make_site(2, experts=4, top_k=1))


def view_of(*steps: Step, info: ModelInfo = INFO) -> TimelineView:
    return timeline_of(info, steps).snapshot()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_a_run_is_identical_with_itself(seed: int, has_logits: bool, has_weights: bool) -> None:
    rng = np.random.default_rng(seed)
    more = {"has_logits": has_logits, "has_weights": has_weights, "marks": True}
    view = view_of(*[random_step(INFO, count, rng, index=number, **more) for number, count in enumerate((7, 1, 4))])
    found = compare(view, view)
    assert found.identical
    assert found.first_token is None
    assert found.flips == 0
    assert found.tokens == found.same_tokens == found.common_prefix
    assert found.sites == found.prefix_sites
    for site in found.sites:
        if site.tokens:
            assert site.same_set == site.same_top1 == site.jaccard == 1.0
        assert site.load_shift in (0.0, None)
        assert site.kl in (None, pytest.approx(0.0, abs=1e-5))
        assert (site.kl is None) == (not has_logits or site.kl is None)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["identical"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_numbers_agree_with_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, 12).astype(np.int32)
    others = np.where(rng.random(12) < 0.3, 7, ids).astype(np.int32)
    one = random_step(INFO, 12, rng, marks=True, token_id=ids, pad=np.zeros(12, np.bool_))
    two = random_step(INFO, 12, rng, marks=True, token_id=others, pad=np.zeros(12, np.bool_))
    found = compare(view_of(one), view_of(two), top=5)
    same = ids == others
    prefix = int(np.argmin(same)) if not same.all() else 12
    assert found.common_prefix == prefix
    assert found.same_tokens == int(same.sum())
    flips = []
    for site in INFO.sites:
        agreed, jaccard = [], []
        routed = 0
        for token in range(12):
            a, b = (set(step.indices[token, site.index].tolist()) - {NO_EXPERT} for step in (one, two))
            passed = all(bool(part) or step.flags[token, site.index] & 2 for part, step in ((a, one), (b, two)))
            if not passed:
                continue
            routed += 1
            agreed.append(a == b)
            jaccard.append(len(a & b) / len(a | b) if a | b else 1.0)
            if a != b:
                margin = float(scores.margins(one.logits[token, site.index, : site.num_classes], site.top_k))  # type: ignore[index]
                flips.append((-1.0 if np.isnan(margin) else margin, token, site.index, a - b, b - a))
        mine = found.sites[site.index]
        assert mine.tokens == routed
        assert mine.same_set == pytest.approx(np.mean(agreed))
        assert mine.jaccard == pytest.approx(np.mean(jaccard))
        assert mine.flips == len(agreed) - sum(agreed)
    assert found.flips == len(flips)
    assert found.other_token_flips == sum(not same[flip[1]] for flip in flips)
    ranked = sorted(flips, key=lambda flip: (-flip[0], flip[1], flip[2]))
    for listed, counts in ((found.top_flips, same), (found.prefix_flips, np.arange(12) < prefix)):
        expected = [flip for flip in ranked if counts[flip[1]]][:5]
        told = [(flip.a, flip.site, set(flip.lost), set(flip.gained)) for flip in listed]
        assert told == [(token, INFO.sites[site].name, lost, gained) for _, token, site, lost, gained in expected]
        assert all(flip.same_token == (flip.a < prefix) for flip in listed)


def test_distances_by_hand() -> None:
    info = make_info(make_site(0, experts=2, top_k=1))
    logits = np.log([[0.5, 0.5], [0.75, 0.25]])
    one = make_step(info, [[0]], [[1.0]], logits[:1])
    two = make_step(info, [[1]], [[1.0]], logits[1:])
    found = compare(view_of(one, info=info), view_of(two, info=info)).sites[0]
    assert found.kl == pytest.approx(0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25), abs=1e-3)
    assert found.l1 == pytest.approx(0.5, abs=1e-3)
    assert found.entropy_a == pytest.approx(np.log(2), abs=1e-3)
    assert found.entropy_shift == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25) - np.log(2), abs=1e-3)
    assert (found.loads_a, found.loads_b, found.load_shift) == ((1, 0), (0, 1), 1.0)
    assert (found.same_top1, found.same_set, found.jaccard, found.flips) == (0.0, 0.0, 0.0, 1)
    masked = make_step(info, [[0]], [[1.0]], [[0.0, -np.inf]])
    assert np.isfinite(compare(view_of(one, info=info), view_of(masked, info=info)).sites[0].kl or np.nan)


def test_unknown_distributions_are_none() -> None:
    info = make_info(make_site(0))
    one, two = make_step(info, [[0, 1]], logits=np.zeros((1, 4))), make_step(info, [[1, 0]])
    found = compare(view_of(one, info=info), view_of(two, info=info)).sites[0]
    assert (found.kl, found.l1, found.entropy_shift) == (None, None, None)
    assert found.same_set == 1.0
    assert found.same_top1 == 0.0  # without weights, the model's slot order


def test_divergence_of_tokens_and_of_routing() -> None:
    info = make_info(make_site(0), make_site(1))
    words = {0: "Once", 1: " lived", 2: " found", 3: " a"}
    one = make_step(
        info, [[0, 1, 0, 1], [0, 1, 0, 1], [2, 3, 2, 3]], token_id=np.array([0, 1, 3], np.int32), vocabulary=words
    )
    two = make_step(
        info, [[1, 0, 0, 1], [0, 1, 2, 1], [2, 3, 2, 3]], token_id=np.array([0, 2, 3], np.int32), vocabulary=words
    )
    found = compare(view_of(one, info=info), view_of(two, info=info))
    assert found.aligned == "tokens"
    assert found.first_token is not None
    assert (found.first_token.a, found.first_token.text_a, found.first_token.text_b) == (1, " lived", " found")
    assert found.first_token.sites == ()
    assert found.first_routing is not None
    assert (found.first_routing.position, found.first_routing.sites) == (1, ("L1",))
    assert (found.tokens, found.same_tokens, found.common_prefix) == (3, 2, 1)
    assert [site.same_set for site in found.prefix_sites] == [1.0, 1.0]
    assert [site.same_set for site in found.sites] == [1.0, pytest.approx(2 / 3)]
    assert not found.identical


@pytest.mark.parametrize("seed", range(6))
def test_the_first_other_experts_are_looked_for_while_the_text_is_the_same(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moetui.routing.compare.runs.chunk_tokens", lambda sites: 8)
    rng = np.random.default_rng(seed)
    one = random_step(INFO, 40, rng, token_id=np.arange(40, dtype=np.int32), pad=np.zeros(40, np.bool_))
    flips = int(rng.integers(0, 40))
    indices = one.indices.copy()
    indices[flips:, 0] = indices[flips:, 0, ::-1] if seed == 0 else (indices[flips:, 0] + 1) % 4
    two = replace(one, indices=indices)
    a, b = view_of(one), view_of(two)
    assert first_routing(a, b, align(a, b)) == compare(a, b).first_routing
    assert (first_routing(a, b, align(a, b)) is None) == (seed == 0), "the order of a choice is no other choice"
    parted = replace(two, token_id=np.where(np.arange(40) >= flips, 99, two.token_id).astype(np.int32))
    assert first_routing(a, view_of(parted), align(a, view_of(parted))) is None


def test_alignment_of_lengths_padding_and_restarts() -> None:
    info = make_info(make_site(0, top_k=1))
    long = make_step(info, [0] * 5)
    short = make_step(
        info,
        [0] * 4,
        position=np.array([-1, 0, 1, 2], np.int32),
        pad=np.array([True, False, False, False]),
        token_id=np.array([9, 0, 1, 2], np.int32),
    )
    pairing = align(view_of(long, info=info), view_of(short, info=info))
    assert pairing.a.tolist() == [0, 1, 2]
    assert pairing.b.tolist() == [1, 2, 3]
    assert (pairing.only_a, pairing.only_b) == (2, 0)
    assert pairing.prefix.all()
    twice = view_of(
        make_step(info, [0] * 2), make_step(info, [0] * 2, index=1, token_id=np.array([0, 5], np.int32)), info=info
    )
    again = align(twice, twice)
    assert again.a.tolist() == again.b.tolist() == [0, 1, 2, 3]
    other = align(twice, view_of(make_step(info, [0] * 2), make_step(info, [0] * 2, index=1), info=info))
    assert other.prefix.tolist() == [True, True, True, False]  # the second prompt has a prefix of its own


def test_a_fork_meets_the_branch_that_it_left() -> None:
    info = make_info(make_site(0, top_k=1))
    steps = [
        make_step(info, [0, 1, 2, 3]),
        make_step(
            info, [2, 1], index=1, branch=1, position=np.array([2, 3], np.int32), token_id=np.array([2, 8], np.int32)
        ),
    ]
    view = view_of(*steps, info=info)
    found = compare(view, view, line_a=((0, None),), line_b=((1, None),))
    assert (found.tokens, found.only_a, found.only_b) == (2, 2, 0)
    assert found.common_prefix == 1
    assert found.first_token is not None
    assert (found.first_token.a, found.first_token.b) == (3, 5)
    assert found.sites[0].same_set == 0.5


def test_stacks_are_paired_by_name(rng: np.random.Generator) -> None:
    info = make_info(make_site(0, stack="encoder", name="encoder.L0"), make_site(1, name="L0", layer=0))
    encoder, decoder = random_step(info, 4, rng, stack="encoder"), random_step(info, 3, rng, index=1)
    one, two = (
        view_of(encoder, decoder, info=info),
        view_of(replace(decoder, index=0), replace(encoder, index=1), info=info),
    )
    found = compare(one, two)
    assert found.identical
    assert [site.tokens for site in found.sites] == [4, 3]


def test_tokens_of_unknown_routing_are_not_taken_for_the_same(rng: np.random.Generator) -> None:
    step = random_step(INFO, 5, rng)
    lost = step.indices.copy()
    lost[3, 1] = NO_EXPERT
    torn, nothing = replace(step, indices=lost), replace(step, indices=np.full_like(lost, NO_EXPERT))
    found = compare(view_of(step), view_of(torn))
    assert (found.routing_unknown, found.first_routing, found.identical) == (1, None, False)
    assert found.to_dict()["routing_unknown"] == 1
    assert compare(view_of(torn), view_of(torn)).identical  # a layer that did not run in either
    assert not compare(view_of(step), view_of(nothing)).identical
    assert not compare(view_of(nothing), view_of(nothing)).identical


def test_unknown_ids_are_aligned_by_position() -> None:
    step = make_step(INFO, np.zeros((3, 6)), token_id=np.full(3, -1, np.int32))
    found = compare(view_of(step), view_of(step))
    assert found.aligned == "position"
    assert found.identical
    told = found.to_dict()
    assert (told["tokens"], told["same_tokens"], told["common_prefix"]) == (3, None, None)


def test_sites_are_paired_by_name_and_shape(rng: np.random.Generator) -> None:
    more = make_info(make_site(0, name="L9"), make_site(1, layer=0), make_site(2, experts=4, name="L2", top_k=1))
    found = compare(view_of(random_step(INFO, 3, rng)), view_of(random_step(more, 3, rng), info=more))
    assert [site.site for site in found.sites] == ["L0", "L2"]
    assert found.sites_only_a == ("L1",)
    assert found.sites_only_b == ("L9",)
    assert not found.identical
    strange = make_info(make_site(0, name="other"))
    with pytest.raises(UsageError, match="no site in common: L0, L1, L2 here, other there"):
        compare(view_of(random_step(INFO, 3, rng)), view_of(random_step(strange, 3, rng), info=strange))
    larger = make_info(make_site(0, experts=64))
    with pytest.raises(UsageError, match="L0 has 4 experts here and 64 there"):
        compare(view_of(random_step(INFO, 3, rng)), view_of(random_step(larger, 3, rng), info=larger))


def test_pieces_do_not_change_the_result(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.arange(60, dtype=np.int32)
    others = np.where(np.isin(ids, (31, 40)), 99, ids).astype(np.int32)
    one, two = (view_of(random_step(INFO, 60, rng, marks=True, token_id=each)) for each in (ids, others))
    whole = compare(one, two, top=7).to_dict()
    monkeypatch.setattr("moetui.routing.compare.runs.chunk_tokens", lambda sites: 8)
    pieces = compare(one, two, top=7).to_dict()
    for mine, theirs in zip(
        pieces.pop("sites") + pieces.pop("prefix_sites"), whole.pop("sites") + whole.pop("prefix_sites")
    ):
        for key, value in mine.items():
            assert value == (pytest.approx(theirs[key]) if isinstance(value, float) else theirs[key]), key
    assert pieces == whole


def test_tokens_stand_side_by_side_with_their_probabilities(rng: np.random.Generator) -> None:
    ids = np.array([5, 6, 7, 8, 9], np.int32)
    logprob = np.log(np.array([np.nan, 0.5, 0.25, 0.125, 1.0], np.float32))
    names = {int(number): f"t{number}" for number in range(12)}
    common = {"vocabulary": names, "pad": np.zeros(5, np.bool_), "logprob": logprob}
    one = random_step(INFO, 5, rng, token_id=ids, **common)
    other = replace(one, token_id=np.array([5, 6, 7, 1, 2], np.int32))
    found = compare(view_of(one), view_of(other), side_by_side=3)
    assert [(pair.position, pair.text_a, pair.text_b) for pair in found.side_by_side] == [
        (1, "t6", "t6"),
        (2, "t7", "t7"),
        (3, "t8", "t1"),
    ]
    assert [pair.prob_a for pair in found.side_by_side] == pytest.approx([0.5, 0.25, 0.125])
    assert [pair.same_token for pair in found.side_by_side] == [True, True, False]
    assert [pair.sites for pair in found.side_by_side] == [0, 0, 0]
    assert compare(view_of(one), view_of(one)).side_by_side[0].prob_a is None, "nobody predicted the first token"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0.0, 0.05, 1.0]))
def test_the_probability_that_moved_is_never_more_than_the_whole_distributions_say(
    seed: int, listed: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(4, 6)) * 2
    steps, whole = [], []
    for values in (scores, scores + noise * rng.normal(size=(4, 6))):
        p = np.exp(values) / np.exp(values).sum(1, keepdims=True)
        order = np.argsort(-p, axis=1)[:, :listed]
        lists = {
            "candidate_ids": order.astype(np.int32),
            "candidate_logprobs": np.log(np.take_along_axis(p, order, 1)).astype(np.float16),
        }
        steps.append(random_step(INFO, 4, rng, token_id=np.arange(4, dtype=np.int32), pad=np.zeros(4, np.bool_)))
        steps[-1] = replace(steps[-1], **lists)
        whole.append(p)
    found = compare(view_of(steps[0]), view_of(steps[1]))
    distance = 0.5 * np.abs(whole[0] - whole[1]).sum(1)
    for pair, real in zip(found.side_by_side, distance):
        assert pair.moved is not None
        assert pair.moved <= real + 5e-3
        if listed == 6:
            assert pair.moved == pytest.approx(real, abs=5e-3)
        if not noise:
            assert pair.moved == 0.0
    assert found.probability_moved == pytest.approx(np.mean([pair.moved for pair in found.side_by_side]))


def test_empty_runs(rng: np.random.Generator) -> None:
    empty, some = empty_view(INFO), view_of(random_step(INFO, 3, rng))
    assert compare(empty, empty).identical
    found = compare(some, empty)
    assert (found.tokens, found.only_a, found.identical) == (0, 3, False)
    json.dumps(found.to_dict(), allow_nan=False)
