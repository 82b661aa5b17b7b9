"""Distributions, entropies and margins from router logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moetui.routing import NO_EXPERT, SiteFlag, scores
from tests.routing.routing_cases import make_info, make_site, make_step

halves = st.one_of(st.floats(-30, 30, width=16), st.sampled_from([np.nan, np.inf, -np.inf, 65504.0, -65504.0]))
rows = arrays(np.float16, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=halves)
SCORINGS = ("softmax", "softmax_top_k", "sigmoid", "sqrt_softplus", "unknown")


def test_by_hand() -> None:
    site = make_site(experts=4)
    even = scores.probabilities(np.zeros(4), site)
    assert even.tolist() == [0.25] * 4
    assert scores.router_entropy(np.zeros(4, np.float16), site) == pytest.approx(np.log(4))
    assert scores.router_entropy(np.array([100, 0, 0, 0], np.float16), site) == pytest.approx(0, abs=1e-6)
    given_ = make_site(experts=2, logits_form="probabilities", scoring="unknown")
    assert scores.probabilities(np.array([3.0, 1.0]), given_).tolist() == [0.75, 0.25]
    sigmoid = make_site(experts=2, scoring="sigmoid")
    assert scores.probabilities(np.array([0.0, np.log(3.0)]), sigmoid).tolist() == pytest.approx([0.4, 0.6])
    assert scores.margins(np.array([5.0, 1.0, 3.0, 2.5]), 2) == 0.5


def test_masked_classes_have_no_probability() -> None:
    site = make_site(experts=3)
    masked = np.array([1.0, 1.0, -np.inf], np.float16)
    assert scores.probabilities(masked, site).tolist() == [0.5, 0.5, 0.0]
    assert scores.router_entropy(masked, site) == pytest.approx(np.log(2))
    assert np.isinf(scores.margins(masked, 2))


@pytest.mark.parametrize("scoring", SCORINGS)
def test_overflow_and_nan_are_unknown_as_a_whole(scoring: str) -> None:
    site = make_site(experts=3, scoring=scoring)
    for bad in (np.nan, np.inf):
        row = np.array([1.0, bad, 2.0], np.float16)
        assert np.isnan(scores.probabilities(row, site)).all()
        assert np.isnan(scores.router_entropy(row, site))
    assert np.isnan(scores.probabilities(np.full(3, -np.inf), site)).all()


@given(rows, st.sampled_from(SCORINGS), st.sampled_from(["logits", "probabilities"]))
def test_entropy_agrees_with_its_definition(values: np.ndarray, scoring: str, form: str) -> None:
    site = make_site(experts=values.shape[1], scoring=scoring, logits_form=form)
    spread = scores.probabilities(values, site)
    known = ~np.isnan(spread)
    assert (known.all(-1) == known.any(-1)).all()
    sums = spread[known.all(-1)].sum(-1)
    assert sums == pytest.approx(np.ones_like(sums), abs=1e-3)
    fast, slow = scores.router_entropy(values, site), scores.entropy(spread)
    assert (np.isnan(fast) == np.isnan(slow)).all()
    assert fast[~np.isnan(fast)] == pytest.approx(slow[~np.isnan(slow)], abs=1e-3)
    assert (fast[~np.isnan(fast)] <= np.log(values.shape[1]) + 1e-3).all()
    assert (fast[~np.isnan(fast)] >= 0).all()


@given(rows, st.sampled_from(SCORINGS), st.sampled_from(["logits", "probabilities"]))
def test_confidence_is_the_largest_probability_to_the_bit(values: np.ndarray, scoring: str, form: str) -> None:
    site = make_site(experts=values.shape[1], scoring=scoring, logits_form=form)
    largest = scores.probabilities(values, site).max(-1)
    np.testing.assert_array_equal(scores.router_confidence(values, site), largest)


@given(rows, st.integers(0, 6))
def test_margin_agrees_with_sorting(values: np.ndarray, k: int) -> None:
    found = scores.margins(values, k)
    for row, margin in zip(values.astype(np.float64), found):
        if k < 1 or k >= row.size or np.isnan(row).any():
            assert np.isnan(margin)
            continue
        ordered = np.sort(row)[::-1]
        with np.errstate(invalid="ignore"):
            expected = ordered[k - 1] - ordered[k]
        assert margin == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_half_floats_by_their_bits() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for halves in (every, every[np.isfinite(every)]):  # with infinities and NaN, and without
        wide = scores.widen(halves)
        assert wide.dtype == np.float32
        expected = halves.astype(np.float32)
        assert np.array_equal(wide, expected, equal_nan=True)
        assert np.array_equal(np.signbit(wide), np.signbit(expected))
        strided = np.tile(halves, (4, 1))[:, ::2]
        assert np.array_equal(scores.widen(strided), strided.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("scale", [0.1, 4.0, 15.9, 16.1, 300.0])
def test_entropy_is_exact_for_small_logits_and_large_ones(rng: np.random.Generator, scale: float) -> None:
    site = make_site(experts=64)
    logits = (rng.uniform(-1, 1, (500, 64)) * scale).astype(np.float16)
    values = logits.astype(np.float64)
    shares = np.exp(values - values.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    exact = -(shares * np.log(shares, where=shares > 0, out=np.zeros_like(shares))).sum(-1)
    np.testing.assert_allclose(scores.router_entropy(logits, site), exact, atol=1e-6, rtol=0)
    np.testing.assert_allclose(scores.router_entropy(logits, site, roughly=True), exact, atol=1e-5, rtol=0)


def test_sites_of_different_kinds_in_one_block(rng: np.random.Generator) -> None:
    sites = (
        make_site(0, experts=4),
        make_site(1, experts=6, scoring="sigmoid"),
        make_site(2, experts=4),
        make_site(3, experts=6, scoring="unknown"),
    )
    logits = rng.normal(size=(5, 4, 6)).astype(np.float16)
    found = scores.site_entropy(logits, sites)
    margin, certainty = scores.site_margin(logits, sites), scores.site_confidence(logits, sites)
    for site in sites:
        own = logits[:, site.index, : site.num_classes]
        expected = scores.entropy(scores.probabilities(own, site))
        assert found[:, site.index] == pytest.approx(expected, abs=1e-3, nan_ok=True)
        assert margin[:, site.index] == pytest.approx(scores.margins(own, 2))
        highest = scores.probabilities(own, site).max(-1)
        assert certainty[:, site.index] == pytest.approx(highest, nan_ok=True)
    assert np.isnan(scores.site_entropy(None, sites, 3)).all()


def test_blocks_do_not_change_the_result(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = (make_site(0), make_site(1))
    logits = rng.normal(size=(50, 2, 4)).astype(np.float16)
    whole = scores.site_entropy(logits, sites)
    monkeypatch.setattr(scores, "_BLOCK", 20)
    assert scores.site_entropy(logits, sites).tolist() == whole.tolist()


def test_means_are_over_the_sites_a_token_passed() -> None:
    info = make_info()
    indices = [[[0, 1], [NO_EXPERT] * 2], [[NO_EXPERT] * 2, [0, 1]], [[NO_EXPERT] * 2] * 2]
    logits = np.zeros((3, 2, 4))
    logits[1, 0] = 100.0, 0, 0, 0
    flags = np.zeros((3, 2))
    flags[1, 0] = SiteFlag.DROPPED  # it passed the router, which had an opinion, and got no expert
    found = scores.token_scores(make_step(info, indices, logits=logits, flags=flags), info.sites)
    assert found.entropy[0] == pytest.approx(np.log(4), rel=2**-13)
    assert found.entropy[1] == pytest.approx(np.log(4) / 2, rel=2**-13)
    assert np.isnan(found.entropy[2])
    assert found.confidence[1] == (1 + 0.25) / 2


def test_scores_of_tokens_have_13_significant_bits() -> None:
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38]
    values = np.array([1 + 2**-12, 1 + 2**-13, 1 + 2**-14, 3e-5, *special], np.float32)
    rounded = scores._rounded(values)
    assert rounded[:3].tolist() == [1 + 2**-12, 1 + 2**-12, 1.0]
    assert rounded[3] == pytest.approx(3e-5, rel=2**-13)
    assert rounded[4:8].tolist() == [0.0, 0.0, np.inf, -np.inf]
    assert np.isnan(rounded[8])
    assert not (rounded.view(np.uint32) & 0x7FF).any()


def test_confidence_without_logits_is_a_share_of_the_gate_mass() -> None:
    info = make_info(make_site(0))
    step = make_step(info, [[0, 1], [0, NO_EXPERT], [0, 1]], weights=[[0.5, 1.5], [0.5, np.nan], [np.nan, np.nan]])
    found = scores.token_scores(step, info.sites)
    assert found.confidence.tolist() == pytest.approx([0.75, 1.0, np.nan], nan_ok=True)
    assert np.isnan(found.entropy).all()
    assert np.isnan(found.margin).all()
    bare = scores.token_scores(make_step(info, [[0, 1]]), info.sites)
    assert np.isnan(bare.confidence).all()
