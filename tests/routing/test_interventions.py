"""Interventions as values: their scope, and what a script sees of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from moetui.routing import Phase, UsageError
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ForceExperts,
    Intervention,
    ReplayRouting,
    RouterNoise,
    Scope,
    SetTopK,
    as_dict,
    checked,
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


def test_an_arrays_numbers_become_pythons_own() -> None:
    experts = np.array([3, 1])
    given: Any = [BanExperts(experts, Scope(layers=range(2, 4))), RouterNoise(np.float32(0.5), experts[0])]
    given.append(ReplayRouting(Path("x.msgpack")))
    wanted = (BanExperts((3, 1), Scope(layers=(2, 3))), RouterNoise(0.5, 3), ReplayRouting("x.msgpack"))
    assert checked(given) == wanted
    assert repr(checked(given)) == repr(wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (BanExperts((3,)), "is no list of interventions"),
        (None, "None is no list of interventions"),
        ("ban 3", "'b' is no intervention"),
        ([[BanExperts((3,))]], "is no intervention"),
        ([BanExperts], "is no intervention"),
        ([BanExperts(3)], "experts of ban must be whole numbers, not 3"),
        ([BanExperts("3")], "experts of ban must be whole numbers, not '3'"),
        ([BanExperts((True, False))], "experts of ban must be whole numbers"),
        ([SetTopK(1.5)], "k of top_k must be a whole number, not 1.5"),
        ([RouterNoise(1.0, "a")], "seed of noise must be a whole number, not 'a'"),
        ([BoostExperts((1,), "2")], "bias of boost must be a number, not '2'"),
        ([ReplayRouting(3)], "source of replay must be a name, not 3"),
        ([BanExperts((1,), {"layers": (1,)})], "is no scope"),
        ([BanExperts((1,), Scope(layers=3))], "layers of a scope must be whole numbers, not 3"),
        ([BanExperts((1,), Scope(sites="L3"))], "sites of a scope must be names, not 'L3'"),
        ([BanExperts((1,), Scope(phase="decode"))], "a scope's phase is Phase"),
        ([BanExperts((1,), Scope(positions=3))], r"positions of a scope are \(start, stop\), not 3"),
        ([BanExperts((1,), Scope(positions=(5, 2)))], r"no token has a position in \(5, 2\)"),
        ([BanExperts((1,), Scope(positions=(-3, None)))], "no token has a position in"),
    ],
)
def test_what_is_none_of_theirs_is_refused_in_words(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked(given)
