"""Totals over a timeline and the document of ``stats --json``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.routing import NO_EXPERT, Phase, SiteFlag, TimelineView, empty_view, metrics, totals
from moetui.routing.events import Finding
from moetui.routing.interventions import BanExperts, ForceExperts, Scope
from moetui.routing.stats import compute_stats
from moetui.routing.totals import RoutingTotals
from tests.routing.routing_cases import make_info, make_site, make_step, random_step, timeline_of

KEYS = [
    "model",
    "architecture",
    "prompt",
    "text",
    "tokens",
    "steps",
    "sites",
    "num_experts",
    "top_k",
    "ids_only",
    "load_imbalance",
    "fairness_index",
    "coefficient_of_variation",
    "max_violation",
    "average_entropy",
    "avg_experts_per_token",
    "dead_experts",
    "tokens_per_second",
    "per_site",
    "findings",
    "interventions",
    "complete",
]
INFO = make_info(make_site(0), make_site(1, experts=3), make_site(2, experts=6, top_k=1, scoring="sigmoid"))


def same(a: RoutingTotals, b: RoutingTotals) -> None:
    for name in ("tokens", "routed", "loads", "dropped", "forced", "non_finite", "gate_mass", "mean_entropy"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), nan_ok=True), name
    assert a.stack_tokens == b.stack_tokens


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_totals_add_up_however_they_are_cut(counts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = [random_step(INFO, count, rng, index=number, marks=True) for number, count in enumerate(counts)]
    timeline = timeline_of(INFO, steps[:1])
    piecewise = RoutingTotals(INFO.sites)
    for step in steps[1:]:
        while not piecewise.update(timeline.snapshot(), limit=7):
            pass
        timeline.append(step)
    piecewise.update(timeline.snapshot())
    view = timeline.snapshot()
    whole = RoutingTotals(INFO.sites)
    assert whole.update(view)
    same(piecewise, whole)
    columns, block = view.tokens(0, view.end), view.routing(0, view.end)
    keep = ~columns.pad
    assert whole.tokens.sum() == keep.sum()
    assert (whole.loads == metrics.loads(block.indices, INFO.sites, keep)).all()
    entropy = np.where(
        (metrics.passed(block.indices, block.flags) & keep[:, None]),
        metrics.site_entropy(block.logits, INFO.sites),
        np.nan,
    )
    for site in INFO.sites:
        known = entropy[:, site.index][~np.isnan(entropy[:, site.index])]
        mean = known.mean() if known.size else np.nan
        assert whole.mean_entropy[site.index] == pytest.approx(mean, abs=1e-5, nan_ok=True)


def test_totals_follow_a_bounded_timeline_and_a_replay(rng: np.random.Generator) -> None:
    steps = [random_step(INFO, 10, rng, index=number) for number in range(6)]
    bounded, unbounded = timeline_of(INFO, steps[:2], max_tokens=25), timeline_of(INFO, steps[:2])
    kept = RoutingTotals(INFO.sites)
    for step in steps[2:]:
        kept.update(bounded.snapshot())
        bounded.append(step)
        unbounded.append(step)
    kept.update(bounded.snapshot())
    assert bounded.snapshot().first == 40
    whole = RoutingTotals(INFO.sites)
    whole.update(unbounded.snapshot())
    same(kept, whole)  # the whole run, though the timeline holds its end only
    late = RoutingTotals(INFO.sites)
    late.update(bounded.snapshot())
    assert (late.start, late.end, late.tokens.sum()) == (40, 60, 20)
    earlier = timeline_of(INFO, steps[:3]).snapshot()
    kept.update(earlier)
    again = RoutingTotals(INFO.sites)
    again.update(earlier)
    same(kept, again)


def test_totals_of_one_branch(rng: np.random.Generator) -> None:
    steps = [random_step(INFO, 10, rng), random_step(INFO, 4, rng, index=1, branch=1)]
    view = timeline_of(INFO, steps).snapshot()
    branch = RoutingTotals(INFO.sites, line=((1, None),))
    branch.update(view)
    alone = RoutingTotals(INFO.sites)
    alone.update(timeline_of(INFO, steps[1:]).snapshot())
    same(branch, alone)


def test_document_by_hand() -> None:
    info = make_info(make_site(0, experts=4), make_site(1, experts=3))
    prefill = make_step(
        info,
        [[0, 1, 0, 1], [0, 2, 0, 1], [3, 3, 2, 2]],
        weights=[[0.5, 0.5, 0.25, 0.75], [0.25, 0.75, 0.5, 0.5], [1, 1, 1, 1]],
        logits=np.zeros((3, 2, 4)),
        pad=np.array([False, False, True]),
    )
    decode = make_step(
        info, [[0, 1, 0, 1]], [[0.5, 0.5, 0.5, 0.5]], np.zeros((1, 2, 4)), index=1, phase=Phase.DECODE, duration=20.0
    )
    force = ForceExperts((0, 1), Scope(layers=(1,), positions=(3, None), phase=Phase.DECODE))
    view = timeline_of(info, [prefill, decode]).snapshot()
    stats = compute_stats(view, info, prompt="p", text="t", interventions=[force, BanExperts((2,))], complete=False)
    assert list(stats) == KEYS
    assert json.loads(json.dumps(stats, allow_nan=False)) == stats
    assert (stats["tokens"], stats["steps"], stats["sites"]) == (3, 2, 2)
    assert (stats["prompt"], stats["text"], stats["complete"], stats["ids_only"]) == ("p", "t", False, False)
    first, second = stats["per_site"]
    assert first["loads"] == [3, 2, 1, 0]
    assert second["loads"] == [3, 3, 0]
    assert sum(first["loads"]) == stats["tokens"] * 2
    assert first["gate_mass"] == [1.25, 1.0, 0.75, 0.0]
    assert list(first) == ["site", "layer", "loads", "gate_mass", "fairness_index", "entropy"]
    assert first["fairness_index"] == pytest.approx(36 / (4 * 14))
    assert first["entropy"] == pytest.approx(np.log(4), abs=1e-3)
    assert stats["average_entropy"] == pytest.approx((np.log(4) + np.log(3)) / 2, abs=1e-3)
    assert stats["load_imbalance"] == pytest.approx((3 / 1.5 + 3 / 2) / 2)
    assert stats["max_violation"] == pytest.approx(stats["load_imbalance"] - 1)
    assert stats["coefficient_of_variation"] == pytest.approx((np.std([3, 2, 1, 0]) / 1.5 + np.std([3, 3, 0]) / 2) / 2)
    assert stats["avg_experts_per_token"] == 2.0
    assert stats["dead_experts"] == [[0, 3], [1, 2]]
    assert stats["tokens_per_second"] == pytest.approx(50.0)
    assert stats["interventions"] == [
        {"name": "force", "experts": [0, 1], "scope": {"layers": [1], "positions": [3, None], "phase": "decode"}},
        {"name": "ban", "experts": [2], "scope": {}},
    ]


def test_unknown_is_null_never_zero() -> None:
    info = make_info()
    stats = compute_stats(timeline_of(info, [make_step(info, [[0, 1, 0, 1]], duration=float("nan"))]).snapshot(), info)
    assert stats["ids_only"]
    assert stats["average_entropy"] is None
    assert stats["tokens_per_second"] is None
    assert stats["per_site"][0]["gate_mass"] is None
    assert stats["per_site"][0]["loads"] == [1, 1, 0, 0]
    empty = compute_stats(empty_view(info), info)
    assert json.loads(json.dumps(empty, allow_nan=False)) == empty
    assert empty["tokens"] == 0
    assert empty["fairness_index"] is None
    assert empty["avg_experts_per_token"] is None
    assert empty["dead_experts"] == []
    assert not empty["ids_only"]
    nothing = compute_stats(empty_view(make_info_without_sites()), make_info_without_sites())
    assert nothing["sites"] == nothing["top_k"] == 0


def make_info_without_sites():  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(make_info(), sites=())


def test_each_stack_counts_its_own_tokens(rng: np.random.Generator) -> None:
    info = make_info(
        make_site(0, layer=1, name="encoder.L1", stack="encoder"),
        make_site(1, layer=1),
        make_site(2, layer=1, name="x"),
    )
    steps = [
        random_step(info, 7, rng, stack="encoder"),
        make_step(
            info,
            [[NO_EXPERT] * 2 + [0, 1] + [1, 2]],
            phase=Phase.DECODE,
            index=1,
            weights=np.full(6, 0.5),
            logits=np.zeros(12),
        ),
    ]
    stats = compute_stats(timeline_of(info, steps).snapshot(), info)
    assert stats["tokens"] == 8
    assert [sum(site["loads"]) for site in stats["per_site"]] == [14, 2, 2]
    assert stats["avg_experts_per_token"] == 2.0
    dead = stats["dead_experts"]
    assert [1, 3] in dead
    assert dead == sorted(dead)
    assert len({tuple(pair) for pair in dead}) == len(dead)  # a pair of two sites of layer 1 is there once


def test_dropped_tokens_count_as_routed() -> None:
    info = make_info(make_site(0, top_k=1))
    step = make_step(info, [[0], [NO_EXPERT]], flags=[[0], [SiteFlag.DROPPED]])
    stats = compute_stats(timeline_of(info, [step]).snapshot(), info)
    assert stats["avg_experts_per_token"] == 0.5


def test_findings_of_built_in_kinds_are_made_anew(rng: np.random.Generator) -> None:
    view = timeline_of(INFO, [random_step(INFO, 200, rng)]).snapshot()
    old = Finding("dead_expert", "warning", "L0: expert 3 got none of 40 tokens")
    torn = Finding("trace_incomplete", "warning", "the file has no end", "record again")
    found = compute_stats(view, INFO, findings=[old, torn])["findings"]
    assert found == [
        {
            "kind": "trace_incomplete",
            "severity": "warning",
            "message": "the file has no end",
            "suggestion": "record again",
            "site": None,
        }
    ]


@pytest.mark.parametrize("entropy", [True, False])
def test_counting_side_by_side_is_counting_one_after_the_other(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, entropy: bool
) -> None:
    monkeypatch.setattr(totals, "_MAX_CHUNK", 64)
    view = timeline_of(INFO, [random_step(INFO, 700, rng)]).snapshot()
    at_once, by_and_by = (RoutingTotals(INFO.sites, entropy=entropy) for _ in range(2))
    assert at_once.update(view)
    while not by_and_by.update(view, 32):  # as large as the pieces that threads take
        pass
    for name in ("tokens", "routed", "loads", "dropped", "forced", "non_finite", "gate_mass", "mean_entropy", "end"):
        np.testing.assert_array_equal(getattr(at_once, name), getattr(by_and_by, name), err_msg=name)
    assert at_once.stack_tokens == by_and_by.stack_tokens
    assert np.isnan(at_once.mean_entropy).all() == (not entropy)


def test_reading_goes_in_chunks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    view = timeline_of(INFO, [random_step(INFO, 300, rng)]).snapshot()
    whole = compute_stats(view, INFO)
    asked = []

    class Watched:
        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
            return getattr(view, name)

        def routing(self, start: int, stop: int):  # type: ignore[no-untyped-def]
            asked.append(stop - start)
            return view.routing(start, stop)

    monkeypatch.setattr(totals, "_MAX_CHUNK", 64)
    watched: TimelineView = Watched()  # type: ignore[assignment]
    assert compute_stats(watched, INFO)["per_site"][0]["loads"] == whole["per_site"][0]["loads"]
    assert max(asked) <= 64
    assert sum(asked) == 300
    assert totals.chunk_tokens([make_site(number, experts=512, top_k=8) for number in range(100)]) < 4096
