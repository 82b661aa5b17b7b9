"""Selection scores and the margins that follow from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moetui.routing import Selection, Site
from moetui.routing import scores as routing_scores
from moetui.routing.metrics import margins, router_margin, selection_scores, site_margin
from moetui.routing.step import NO_EXPERT
from tests.routing.routing_cases import make_site


def chooser(index: int = 0, *, experts: int = 8, top_k: int = 2, **rule: object) -> Site:
    site = make_site(index, experts=experts, top_k=top_k)
    return replace(site, selection=Selection(**rule))  # type: ignore[arg-type]


def test_a_bias_is_added_to_the_scores() -> None:
    logits = np.log([1.0, 1.0, 3.0, 4.0]).astype(np.float32)  # a sigmoid of 0.5, 0.5, 0.75, 0.8
    site = chooser(experts=4, scoring="sigmoid", bias=(0.5, 0.0, 0.0, -0.2))
    scores, left_out = selection_scores(logits, site)
    np.testing.assert_allclose(scores, [1.0, 0.5, 0.75, 0.6], atol=1e-6)
    assert not left_out.any()
    assert router_margin(logits, site) == pytest.approx(0.15)  # E2 over E3, not E3 over E2
    assert router_margin(logits, chooser(experts=4, scoring="identity", bias=(9.0, 0, 0, 0))) == pytest.approx(
        np.log(4 / 3)
    )


@pytest.mark.parametrize(
    ("group_score", "stay", "margin"),
    [("max", [0, 1, 4, 5], 2.5 - 2.4), ("top2", [2, 3, 4, 5], 2.4 - 2.0)],
)
def test_only_the_best_groups_are_eligible(group_score: str, stay: list[int], margin: float) -> None:
    logits = np.array([4.0, -9.0, 2.0, 1.9, 2.5, 2.4, 0.0, 1.0], np.float32)
    site = chooser(scoring="identity", groups=4, eligible=2, group_score=group_score)
    scores, left_out = selection_scores(logits, site)
    np.testing.assert_array_equal(scores, logits)
    assert np.flatnonzero(~left_out).tolist() == stay
    assert router_margin(logits, site) == pytest.approx(margin)
    assert site_margin(logits[None, None], [site])[0, 0] == pytest.approx(margin)


def test_where_no_eligible_expert_is_left_there_is_no_margin() -> None:
    site = chooser(top_k=4, scoring="identity", groups=4, eligible=2)
    logits = np.arange(16, dtype=np.float32).reshape(2, 8)
    assert np.isnan(router_margin(logits, site)).all()
    assert router_margin(logits, replace(site, top_k=3)).tolist() == [1, 1]


@pytest.mark.parametrize(
    "site",
    [
        replace(make_site(0, experts=8), selection_bias=True),
        replace(make_site(0, experts=8), groups=4),
        chooser(),
        chooser(scoring="softmax_top_k"),
        chooser(scoring="identity", groups=4, eligible=2, group_score="unknown"),
        chooser(scoring="sigmoid", bias=(0.1, 0.2)),
        chooser(scoring="sigmoid", groups=3, eligible=1),
        chooser(scoring="sigmoid", groups=0),
        chooser(scoring="sigmoid", groups=-8, eligible=1),
        chooser(scoring="sigmoid", groups=4, eligible=5),
        chooser(scoring="sigmoid", groups=8, eligible=4, group_score="top2"),
    ],
)
def test_what_is_not_known_and_what_makes_no_sense_has_no_margin(site: Site) -> None:
    logits = np.arange(24, dtype=np.float16).reshape(3, 1, 8)
    assert np.isnan(selection_scores(logits[:, 0], site)[0]).all()
    assert np.isnan(site_margin(logits, [site])).all()
    indices = np.array([[[7, 6]]] * 3, np.uint16)
    found = routing_scores.routing_scores(indices, None, logits, np.zeros((3, 1), np.uint8), [site])
    assert np.isnan(found.margin).all()
    assert not np.isnan(found.entropy).any()


def test_a_row_with_a_nan_has_no_margin_and_leaves_the_others_theirs() -> None:
    logits = np.arange(24, dtype=np.float32).reshape(3, 8)
    logits[1, 0] = np.nan  # in a group that would be left out
    for bias in (None, (0.1,) * 8):
        site = chooser(scoring="sigmoid", bias=bias, groups=4, eligible=2)
        assert np.isnan(router_margin(logits, site)).tolist() == [False, True, False]


def test_sites_alike_but_for_their_bias_keep_it_each(rng: np.random.Generator) -> None:
    rule = {"scoring": "sigmoid", "groups": 4, "eligible": 2, "group_score": "top2"}
    sites = [chooser(index, bias=tuple(rng.normal(size=8).tolist()), **rule) for index in range(3)]
    sites[1] = replace(make_site(1, experts=8), groups=1)
    sites += [chooser(3, bias=tuple(rng.normal(size=8).tolist()), **rule), chooser(4, **rule)]
    logits = rng.normal(size=(40, 5, 8)).astype(np.float16)
    together = site_margin(logits, sites)
    for site in sites:
        np.testing.assert_array_equal(together[:, site.index], router_margin(logits[:, site.index], site))
    np.testing.assert_array_equal(together[:, 1], margins(logits[:, 1], 2))
    assert not np.array_equal(together[:, 0], together[:, 3])
    indices = np.full((40, 5, 2), NO_EXPERT, np.uint16)
    indices[:] = 1
    found = routing_scores.routing_scores(indices, None, logits, np.zeros((40, 5), np.uint8), sites)
    assert found.margin == pytest.approx(together.mean(-1), rel=1e-3)
