"""Interventions as values: their scope, and what a script sees of them."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from moetui.routing import Phase
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ForceExperts,
    Intervention,
    ReplayRouting,
    Scope,
    SetTopK,
    as_dict,
    dict_words,
)
from tests.routing.routing_cases import make_site


def test_a_scope_holds_the_sites_that_it_names() -> None:
    third = make_site(1, layer=3, name="L3.attention")
    assert Scope().holds_site(third)
    assert Scope(layers=(3,)).holds_site(third)
    assert not Scope(layers=(2,)).holds_site(third)
    assert not Scope(layers=()).holds_site(third)
    assert Scope(sites=("L3.attention",)).holds_site(third)
    assert not Scope(layers=(3,), sites=("L3",)).holds_site(third)


def test_every_kind_has_a_name_of_its_own() -> None:
    names = [kind.name for kind in get_args(Intervention)]
    assert len(set(names)) == len(names)


def test_as_plain_values() -> None:
    assert as_dict(ForceExperts((0, 3))) == {"name": "force", "experts": [0, 3], "scope": {}}
    scope = Scope(layers=(2, 3), sites=("L2",), positions=(4, None), phase=Phase.PREFILL)
    assert as_dict(BoostExperts((1,), -0.5, scope)) == {
        "name": "boost",
        "experts": [1],
        "bias": -0.5,
        "scope": {"layers": [2, 3], "sites": ["L2"], "positions": [4, None], "phase": "prefill"},
    }
    for intervention in (SetTopK(1, scope), ReplayRouting("a.msgpack")):
        assert json.loads(json.dumps(as_dict(intervention))) == as_dict(intervention)


@pytest.mark.parametrize(
    ("intervention", "words"),
    [
        (ForceExperts((0, 3)), "force, experts 0, 3"),
        (BanExperts((5,), Scope(layers=(2, 3, 4))), "ban, experts 5, layers 2-4"),
        (
            BanExperts((5,), Scope(positions=(3, None), phase=Phase.DECODE)),
            "ban, experts 5, positions 3-, phase decode",
        ),
        (BanExperts((5,), Scope(positions=(3, 9))), "ban, experts 5, positions 3-8"),
    ],
)
def test_a_plain_intervention_is_put_in_words(intervention: Intervention, words: str) -> None:
    assert dict_words(json.loads(json.dumps(as_dict(intervention)))) == words
