"""Measures of tokens together and in a row, and of serving: worked by hand and against slow counting."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moetui.routing import NO_EXPERT, metrics
from moetui.routing.metrics import Placement
from tests.routing.routing_cases import make_info, make_site, make_step, timeline_of

choices = arrays(
    np.uint16, st.tuples(st.integers(0, 30), st.just(2)), elements=st.sampled_from([0, 1, 2, 3, NO_EXPERT])
)


def test_ranked_puts_the_largest_weight_first_and_the_unknown_last() -> None:
    indices = np.array([[[0, 1, NO_EXPERT], [4, 5, 6]]], np.uint16)
    weights = np.array([[[0.25, 0.75, np.nan], [np.nan, np.nan, 0.1]]], np.float16)
    assert metrics.ranked(indices, weights).tolist() == [[[1, 0, NO_EXPERT], [6, 4, 5]]]
    assert metrics.ranked(indices, None).tolist() == indices.tolist()
    assert metrics.first_choices(indices, weights).tolist() == [[1, 6]]


def test_previous_tokens_keeps_sequences_branches_and_runs_apart() -> None:
    info = make_info(make_site(0, top_k=1))
    steps = [
        # A batch of two rows, prefilled together and padded on the left.
        make_step(
            info,
            [0] * 4,
            sequence=np.array([0, 0, 1, 1], np.int16),
            position=np.array([0, 1, -1, 0], np.int32),
            pad=np.array([False, False, True, False]),
        ),
        make_step(info, [0] * 2, sequence=np.array([0, 1], np.int16), position=np.array([2, 1], np.int32), index=1),
        make_step(info, [0] * 2, position=np.array([0, 1], np.int32), index=2),  # a new prompt on the same branch
        make_step(info, [0], position=np.array([2], np.int32), index=3, branch=1),
        make_step(info, [0], position=np.array([2], np.int32), index=4),
    ]
    view = timeline_of(info, steps).snapshot()
    assert metrics.previous_tokens(view.tokens(0, view.end)).tolist() == [-1, 0, -1, -1, 1, 3, -1, 6, -1, 7]


def test_repetition_by_hand() -> None:
    indices = np.array([0, 0, 1, NO_EXPERT, 1], np.uint16).reshape(5, 1, 1)
    previous = np.array([-1, 0, 1, 2, 3])
    assert metrics.repetition(indices, previous).tolist() == [0.5]  # pairs with a token that got none do not count
    assert np.isnan(metrics.repetition(indices, np.full(5, -1))).all()
    pair = np.array([[[0, 1]], [[1, 2]], [[3, 0]]], np.uint16)
    assert metrics.repetition(pair, np.array([-1, 0, 1])).tolist() == [0.0]
    assert metrics.repetition(pair, np.array([-1, 0, 1]), depth=2).tolist() == [0.5]


def test_repetition_by_chance() -> None:
    assert metrics.repetition_chance(8) == pytest.approx(1 / 8)
    assert metrics.repetition_chance(8, 2) == pytest.approx(1 - 6 / 8 * 5 / 7)
    assert metrics.repetition_chance(2, 2) == 1.0
    rng = np.random.default_rng(1)
    indices = np.argsort(rng.random((20_000, 1, 8)), axis=-1)[:, :, :2].astype(np.uint16)
    previous = np.arange(-1, 19_999)
    assert metrics.repetition(indices, previous)[0] == pytest.approx(1 / 8, abs=0.01)
    assert metrics.repetition(indices, previous, 2)[0] == pytest.approx(metrics.repetition_chance(8, 2), abs=0.01)


@given(choices, choices)
def test_overlap_counts_shared_experts(a: np.ndarray, b: np.ndarray) -> None:
    count = min(len(a), len(b))
    a, b = a[:count], b[:count]
    expected = [len((set(x) & set(y)) - {NO_EXPERT}) for x, y in zip(a.tolist(), b.tolist())]
    assert metrics.overlap(a, b).tolist() == expected
    assert metrics.set_sizes(a).tolist() == [len(set(x) - {NO_EXPERT}) for x in a.tolist()]


def test_saturation() -> None:
    early = np.array([[[0, 1]], [[2, 3]], [[0, 1]]], np.uint16)
    final = np.array([[[1, 0]], [[2, 0]], [[NO_EXPERT, NO_EXPERT]]], np.uint16)
    assert metrics.saturation(early, final).tolist() == [0.75]
    assert metrics.saturation(early, final, np.array([True, False, True])).tolist() == [1.0]
    assert np.isnan(metrics.saturation(early[2:], final[2:])).all()


@given(choices)
def test_coactivation_agrees_with_counting(indices: np.ndarray) -> None:
    sets = [set(row) - {NO_EXPERT} for row in indices.tolist()]
    table = metrics.coactivation(indices, 4)
    for i in range(4):
        holders = [row for row in sets if i in row]
        for j in range(4):
            if holders:
                assert table[i, j] == pytest.approx(sum(j in row for row in holders) / len(holders))
            else:
                assert np.isnan(table[i, j])


def test_adjacent_coactivation_counts_neighbouring_ranks_only() -> None:
    indices = np.array([[0, 1, 2], [0, 2, 1]], np.uint16)
    table = metrics.coactivation(indices, 4, adjacent=True)
    assert table[0].tolist() == [1.0, 0.5, 0.5, 0.0]
    assert table[1].tolist() == [0.5, 1.0, 1.0, 0.0]
    assert np.isnan(table[3]).all()


def test_vocabulary_specialization() -> None:
    ids = np.array([7] * 10 + [8] * 10 + [9] * 3 + [-1])
    first = np.array([0] * 10 + [1] * 5 + [2] * 5 + [3] * 3 + [0])
    assert metrics.vocabulary_specialization(first, ids, 4) == pytest.approx((1.0 + 0.5) / 2)
    assert metrics.vocabulary_specialization(first, ids, 4, occurrences=3) == pytest.approx((1.0 + 0.5 + 1.0) / 3)
    assert np.isnan(metrics.vocabulary_specialization(first, ids, 4, occurrences=11))
    assert np.isnan(metrics.vocabulary_specialization(first[:0], ids[:0], 4))
    table, met = metrics.first_choice_table(first, ids, 4)
    assert met.tolist() == [7, 8, 9]
    assert table[1].tolist() == [0, 5, 5, 0]


def slow_cache(indices: np.ndarray, size: int) -> tuple[int, int]:
    cache: OrderedDict[int, None] = OrderedDict()
    hits = lookups = 0
    for row in indices.tolist():
        experts = [expert for expert in dict.fromkeys(row) if expert != NO_EXPERT]
        hits += sum(expert in cache for expert in experts)
        lookups += len(experts)
        for expert in (expert for expert in row if expert != NO_EXPERT):
            cache[expert] = None
            cache.move_to_end(expert)
        while len(cache) > size:
            cache.popitem(last=False)
    return hits, lookups


@given(choices)
def test_cache_hits_agree_with_a_cache(indices: np.ndarray) -> None:
    rates = metrics.cache_hit_rates(indices, 4)
    for size in range(1, 5):
        hits, lookups = slow_cache(indices, size)
        if lookups:
            assert rates[size - 1] == pytest.approx(hits / lookups)
        else:
            assert np.isnan(rates[size - 1])


def test_cache_goes_on_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.argsort(np.random.default_rng(3).random((200, 6)), axis=-1)[:, :2].astype(np.uint16)
    whole = metrics.cache_hit_rates(indices, 6)
    monkeypatch.setattr(metrics.serving, "_CELLS", 50)
    assert metrics.cache_hit_rates(indices, 6).tolist() == whole.tolist()


def test_placement_by_hand() -> None:
    load = np.array([6, 2, 2, 2])
    assert metrics.placement_loads(load, Placement(((0, 1), (2, 3)))).tolist() == [8, 4]
    assert metrics.placement_imbalance(load, Placement(((0, 1), (2, 3)))) == pytest.approx(8 / 6)
    assert metrics.placement_imbalance(load, Placement(((0, 1, 2), (0, 3)))) == pytest.approx(7 / 6)
    assert metrics.contiguous_placement(5, 2) == Placement(((0, 1, 2), (3, 4)))
    assert np.isnan(metrics.placement_imbalance(np.zeros(4), Placement(((0, 1), (2, 3)))))
    with pytest.raises(ValueError, match="every expert"):
        metrics.placement_loads(load, Placement(((1,), (2, 3))))


@given(arrays(np.int64, st.integers(1, 16), elements=st.integers(0, 1000)), st.integers(1, 5), st.integers(0, 8))
def test_balanced_placement_places_everything(load: np.ndarray, devices: int, replicas: int) -> None:
    placement = metrics.balanced_placement(load, devices, replicas)
    assert len(placement.devices) == devices
    assert {expert for held in placement.devices for expert in held} == set(range(load.size))
    assert metrics.placement_loads(load, placement).sum() == pytest.approx(load.sum())


def test_balancing_and_replicas_help() -> None:
    load = np.array([40, 30, 1, 1, 1, 1, 20, 10])
    plain = metrics.placement_imbalance(load, metrics.contiguous_placement(8, 4))
    balanced = metrics.placement_imbalance(load, metrics.balanced_placement(load, 4))
    replicated = metrics.placement_imbalance(load, metrics.balanced_placement(load, 4, replicas=4))
    assert plain > balanced > replicated
