"""Loads and the measures of their evenness: worked by hand, and by their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moetui.routing import NO_EXPERT, metrics
from tests.routing.routing_cases import make_site

SITES = (make_site(0), make_site(1, experts=3))
counts = arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=st.integers(0, 10**12))


def test_loads_leave_out_what_is_no_expert() -> None:
    indices = np.array([[[0, 1], [2, 3]], [[0, NO_EXPERT], [2, 1]], [[3, 3], [0, 0]]], np.uint16)
    keep = np.array([True, True, False])
    # Expert 3 is none at the second site, which has three: a zero-expert, which does nothing.
    assert metrics.loads(indices, SITES, keep).tolist() == [[2, 1, 0, 0], [0, 1, 2, 0]]
    assert metrics.loads(indices, SITES).sum() == 5 + 5
    assert metrics.loads(indices[:0], SITES).tolist() == [[0] * 4, [0] * 4]


def test_gate_mass_knows_what_it_does_not_know() -> None:
    indices = np.array([[[0, 1]], [[0, 2]]], np.uint16)
    weights = np.array([[[0.75, np.nan]], [[np.nan, 0.25]]], np.float16)
    mass = metrics.gate_mass(indices, weights, SITES[:1])
    assert mass[0, [0, 2, 3]].tolist() == [0.75, 0.25, 0.0]
    assert np.isnan(mass[0, 1])  # got a token, but no known weight
    unknown = metrics.gate_mass(indices, None, SITES[:1])
    assert np.isnan(unknown[0, :3]).all()
    assert unknown[0, 3] == 0


def test_measures_by_hand() -> None:
    load = np.array([4, 2, 1, 1])
    assert metrics.load_imbalance(load) == 2.0
    assert metrics.max_violation(load) == 1.0
    assert metrics.jain_fairness(load) == pytest.approx(64 / (4 * 22))
    assert metrics.coefficient_of_variation(load) == pytest.approx(np.std(load) / 2)
    assert metrics.max_share(load) == 0.5
    assert metrics.shares(load).tolist() == [0.5, 0.25, 0.125, 0.125]


def test_even_and_one_sided_loads() -> None:
    for experts in (1, 2, 8, 64):
        even, one = np.full(experts, 7), np.eye(experts, dtype=int)[0] * 7
        assert metrics.jain_fairness(even) == pytest.approx(1.0)
        assert metrics.jain_fairness(one) == pytest.approx(1 / experts)
        assert metrics.load_imbalance(one) == pytest.approx(experts)
        assert metrics.coefficient_of_variation(even) == pytest.approx(0.0)
        assert metrics.coefficient_of_variation(one) == pytest.approx(np.sqrt(experts - 1))


def test_nothing_counted_is_unknown() -> None:
    for measure in (
        metrics.load_imbalance,
        metrics.jain_fairness,
        metrics.coefficient_of_variation,
        metrics.max_violation,
        metrics.max_share,
    ):
        assert np.isnan(measure(np.zeros((2, 4)))).all()
        assert np.isnan(measure(np.full(3, np.nan)))
        assert np.isnan(measure(np.zeros((2, 0)))).all()
    assert np.isnan(metrics.shares(np.zeros(3))).all()


def test_experts_that_a_site_has_not_do_not_count_as_idle() -> None:
    load = metrics.by_site(np.array([[5, 5, 5, 5], [5, 5, 5, 0]]), SITES)
    assert metrics.jain_fairness(load).tolist() == pytest.approx([1.0, 1.0])
    assert metrics.load_imbalance(load).tolist() == pytest.approx([1.0, 1.0])


@given(counts)
def test_laws_of_evenness(load: np.ndarray) -> None:
    experts = load.shape[-1]
    known = load.sum(-1) > 0
    jain, cv = metrics.jain_fairness(load), metrics.coefficient_of_variation(load)
    peak = metrics.load_imbalance(load)
    assert (np.isnan(jain) == ~known).all()
    assert (np.isnan(cv) == ~known).all()
    jain, cv, peak = jain[known], cv[known], peak[known]
    assert ((jain >= 1 / experts - 1e-9) & (jain <= 1 + 1e-9)).all()
    assert ((peak >= 1 - 1e-9) & (peak <= experts + 1e-9)).all()
    assert jain == pytest.approx(1 / (1 + cv**2))  # Jain's index and the CV say the same
    assert metrics.max_share(load)[known] * experts == pytest.approx(peak)
    mixed = np.random.default_rng(0).permutation(load, axis=-1)
    assert metrics.jain_fairness(mixed)[known] == pytest.approx(jain)
    assert metrics.jain_fairness(load * 3)[known] == pytest.approx(jain)


def test_dead_experts_say_whether_enough_was_seen() -> None:
    load = np.array([[9, 0, 3, 0], [1, 1, 1, 0]])
    dead = metrics.dead_experts(load, np.array([6, 2]), SITES)
    assert [(found.site, found.experts, found.tokens, found.enough) for found in dead] == [(0, (1, 3), 6, False)]
    assert metrics.tokens_needed(SITES[0]) == 20
    assert metrics.tokens_needed(SITES[1]) == 15
    assert metrics.dead_experts(load, np.array([20, 2]), SITES)[0].enough
    assert metrics.dead_experts(np.zeros((2, 4)), np.array([0, 0]), SITES) == []


def test_domain_specialization() -> None:
    share = metrics.domain_specialization(np.array([[3, 1], [0, 0]]), np.array([4, 0]))
    assert share[0].tolist() == [0.75, 0.25]
    assert np.isnan(share[1]).all()


@given(st.integers(0, 6), st.data())
def test_loads_agree_with_counting(count: int, data: st.DataObject) -> None:
    ids = st.sampled_from([0, 1, 2, 3, 4, NO_EXPERT])
    indices = data.draw(arrays(np.uint16, (count, 2, 2), elements=ids))
    keep = data.draw(arrays(np.bool_, count))
    weights = data.draw(arrays(np.float16, (count, 2, 2), elements=st.sampled_from([0.25, 0.5, np.nan])))
    expected = np.zeros((2, 4), np.int64)
    mass = np.zeros((2, 4))
    for token, site, slot in np.ndindex(count, 2, 2):
        expert = int(indices[token, site, slot])
        if keep[token] and expert < SITES[site].num_experts:
            expected[site, expert] += 1
            mass[site, expert] += np.nan_to_num(weights[token, site, slot])
    assert (metrics.loads(indices, SITES, keep) == expected).all()
    assert np.nan_to_num(metrics.gate_mass(indices, weights, SITES, keep)) == pytest.approx(mass)
