"""Findings: what is raised, on what, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moetui.routing import NO_EXPERT, ModelInfo, SiteFlag, Step
from moetui.routing.diagnostics import DEFAULTS, DIAGNOSTICS, Thresholds, diagnose, new_findings
from moetui.routing.events import Finding
from moetui.routing.totals import RoutingTotals
from tests.routing.routing_cases import make_info, make_site, make_step, random_step, timeline_of

INFO = make_info(make_site(0, experts=8), make_site(1, experts=8))


def findings(info: ModelInfo, *steps: Step, thresholds: Thresholds = DEFAULTS) -> list[Finding]:
    totals = RoutingTotals(info.sites)
    totals.update(timeline_of(info, steps).snapshot())
    return diagnose(totals, thresholds)


def kinds(found: list[Finding]) -> list[tuple[str, str, str | None]]:
    return [(finding.kind, finding.severity, finding.site) for finding in found]


def routed(info: ModelInfo, indices: np.ndarray, first_weight: float = 0.5, spread: float = 0.0) -> Step:
    """Tokens with these experts at site 0, all experts in turn at the others."""
    count = indices.shape[0]
    table = np.zeros((count, len(info.sites), 2), np.uint16)
    table[:] = np.stack([np.arange(count) % 8, (np.arange(count) + 1) % 8], -1)[:, None, :]
    table[:, 0] = indices
    weights = np.broadcast_to([first_weight, 1 - first_weight], table.shape)
    logits = np.zeros((count, len(info.sites), 8))
    logits[:, 0, 0] = spread
    return make_step(info, table, weights, logits)


def even(count: int) -> np.ndarray:
    return np.stack([np.arange(count) % 8, (np.arange(count) + 3) % 8], -1)


def test_a_healthy_router_has_no_findings(rng: np.random.Generator) -> None:
    assert findings(INFO, random_step(INFO, 400, rng)) == []
    assert findings(INFO) == []


def test_dead_experts_come_as_one_finding_a_site() -> None:
    found = findings(INFO, routed(INFO, even(80) % 5))
    dead = [finding for finding in found if finding.kind == "dead_expert"]
    assert kinds(dead) == [("dead_expert", "warning", "L0")]
    assert dead[0].message == "L0: experts 5, 6, 7 got none of 80 tokens"
    assert "3 of 8" in dead[0].suggestion


def test_loads_that_interventions_made_are_not_laid_at_the_routers_door() -> None:
    step = routed(INFO, np.tile([0, 1], (80, 1)))
    own = findings(INFO, step)
    flags = np.zeros((80, 2), np.uint8)
    flags[:60, 0] = SiteFlag.FORCED
    moved = findings(INFO, replace(step, flags=flags))
    assert kinds(moved) == kinds(own)
    assert {finding.kind for finding in own} == {"dead_expert", "router_collapse", "load_imbalance"}
    for before, after in zip(own, moved):
        assert after.message == f"{before.message}; interventions moved 60 of 80 tokens"
        assert after.suggestion.startswith("Run without the interventions")
    assert "interventions" not in "".join(finding.message + finding.suggestion for finding in own)


def test_too_few_tokens_to_tell_is_no_warning() -> None:
    found = findings(INFO, routed(INFO, even(6)))
    assert kinds(found) == [("dead_expert", "info", None)]
    assert "too few tokens to tell (6 of 40)" in found[0].message


def test_collapse_by_load_by_mass_and_by_entropy() -> None:
    stuck = findings(INFO, routed(INFO, np.tile([2, 5], (60, 1))))
    assert ("router_collapse", "warning", "L0") in kinds(stuck)
    collapse = next(finding for finding in stuck if finding.kind == "router_collapse")
    assert "100% of the load on experts 2, 5" in collapse.message
    assert "60 tokens" in collapse.message
    # Every second choice differs, but one expert gets nearly all of the weight.
    second = np.stack([np.full(70, 7), np.arange(70) % 7], -1)
    by_mass = findings(INFO, routed(INFO, second, first_weight=0.96))
    collapse = next(finding for finding in by_mass if finding.kind == "router_collapse")
    assert "of the gate mass on expert 7" in collapse.message
    assert "of the load" not in collapse.message
    sure = findings(INFO, routed(INFO, even(80), spread=20.0))
    assert kinds(sure) == [("router_collapse", "warning", "L0")]
    assert "mean entropy 0.00 of 2.08 nats" in sure[0].message
    assert "z-loss" in sure[0].suggestion


def test_collapse_waits_for_enough_tokens() -> None:
    few = findings(INFO, routed(INFO, np.tile([2, 5], (7, 1)), spread=20.0))
    assert all(finding.severity == "info" for finding in few)


def test_sites_that_choose_nearly_all_experts_are_not_collapsed() -> None:
    info = make_info(make_site(0, experts=2, top_k=2))
    step = make_step(info, np.tile([0, 1], (50, 1)), np.full((50, 2), 0.5), np.zeros((50, 2)))
    assert findings(info, step) == []


def test_unknown_weights_accuse_nobody() -> None:
    step = replace(routed(INFO, even(80)), weights=None, logits=None)
    assert findings(INFO, step) == []


def test_load_imbalance() -> None:
    lopsided = np.concatenate([np.tile([0, 1], (45, 1)), even(32)])
    found = findings(INFO, routed(INFO, lopsided))
    assert ("load_imbalance", "warning", "L0") in kinds(found)
    assert ("load_imbalance", "warning", "L1") not in kinds(found)
    strict = findings(INFO, routed(INFO, lopsided), thresholds=Thresholds(imbalance_cv=5.0, imbalance_part=1.0))
    assert "load_imbalance" not in [finding.kind for finding in strict]


def test_non_finite_is_an_error_and_points_at_the_first_site() -> None:
    step = routed(INFO, even(48))
    flags = np.full((48, 2), SiteFlag.NON_FINITE, np.uint8)
    flags[0, 1] = 0
    found = findings(INFO, replace(step, flags=flags))
    assert kinds(found) == [("non_finite", "error", "L0"), ("non_finite", "error", "L1")]
    assert "48 tokens" in found[0].message
    assert "Look at L0 first" in found[1].suggestion


def test_silent_sites_are_those_whose_stack_ran() -> None:
    info = make_info(make_site(0), make_site(1), make_site(2, name="vision.L0", stack="vision"))
    table = np.full((30, 3, 2), NO_EXPERT)
    table[:, 0] = even(30) % 4
    found = findings(info, make_step(info, table))
    assert kinds(found) == [("site_silent", "warning", "L1")]


def test_a_site_that_text_does_not_reach_is_no_defect() -> None:
    info = make_info(make_site(0), make_site(1, name="L0.vision"))
    table = np.full((30, 2, 2), NO_EXPERT)
    table[:, 0] = even(30) % 4
    (found,) = findings(info, make_step(info, table))
    assert (found.kind, found.severity, found.site) == ("site_silent", "info", "L0.vision")
    assert "images or sound" in found.message


def test_dropped_tokens() -> None:
    flags = np.zeros((80, 2), np.uint8)
    flags[:10, 0] = SiteFlag.DROPPED
    indices = even(80).astype(np.uint16)
    indices[:10] = NO_EXPERT
    found = findings(INFO, replace(routed(INFO, indices), flags=flags))
    assert kinds(found) == [("dropped_tokens", "warning", "L0")]
    assert "10 of 80" in found[0].message


def test_only_news_is_raised() -> None:
    info = Finding("dead_expert", "info", "few")
    warning = Finding("dead_expert", "warning", "L0: …", site="L0")
    assert new_findings([], [info]) == [info]
    assert new_findings([info], [info, warning]) == [warning]
    assert new_findings([warning], [replace(warning, message="other numbers")]) == []
    graver = replace(warning, severity="error")
    assert new_findings([warning], [graver]) == [graver]
    assert new_findings([graver, warning], [warning]) == []


@pytest.mark.parametrize("kind", DIAGNOSTICS)
def test_every_finding_has_one_line_and_advice(kind: str) -> None:
    flags = np.full((80, 2), SiteFlag.NON_FINITE | SiteFlag.DROPPED, np.uint8)
    info = make_info(*INFO.sites, make_site(2, experts=8))
    table = np.full((80, 3, 2), NO_EXPERT)
    table[:, :2] = [0, 1]
    found = findings(info, make_step(info, table, flags=np.pad(flags, ((0, 0), (0, 1)))))
    mine = [finding for finding in found if finding.kind == kind]
    assert mine
    for finding in mine:
        assert finding.suggestion
        assert "\n" not in finding.message + finding.suggestion
