"""The query language: what parses, what it means, and that it agrees with a slow reading of its definition."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from moetui.routing import NO_EXPERT, Phase, QueryError, SiteFlag, TimelineView, empty_view
from moetui.routing.query import complete, match_all, parse
from moetui.routing.query.tree import Member, Text
from tests.routing import query_cases
from tests.routing.routing_cases import make_info, make_site, make_step, random_step, timeline_of

INFO = make_info(
    make_site(0, experts=6), make_site(1, experts=4), make_site(2, experts=6, top_k=1, layer=1, name="L1.b")
)


def random_view(seed: int, *, has_logits: bool = True, has_weights: bool = True) -> TimelineView:
    rng = np.random.default_rng(seed)
    shapes = [(0, 9), (0, 1), (1, 3), (0, 1), (1, 1)]
    places = [np.arange(9), np.array([9]), np.arange(5, 8), np.array([10]), np.array([8])]
    return timeline_of(
        INFO,
        [
            random_step(
                INFO,
                count,
                rng,
                index=number,
                branch=branch,
                marks=True,
                position=place.astype(np.int32),
                has_logits=has_logits,
                has_weights=has_weights,
            )
            for number, ((branch, count), place) in enumerate(zip(shapes, places))
        ],
    ).snapshot()


# Examples of each way to write a term, as in the help.
FORMS = {
    "layer:3": "layer == 3",
    "layer:2-5,7": "layer in (2-5, 7)",
    "expert:5": "5 in topk",
    "-expert:5": "5 not in topk",
    "layer=3": "layer:3",
    "site:L3": "site == L3",
    "site:encoder.L3": 'site == "encoder.L3"',
    "entropy>1.2": "1.2 < entropy",
    "entropy:>1.2": "entropy > 1.2",
    "not forced": "!forced",
    "forced dropped": "forced and dropped",
    "forced && dropped || nan": "(forced dropped) or nan",
    "not not forced": "forced",
    "token:foo": '"foo"',
    "token:<b>": '"<b>"',
    "token:don't": '"don\'t"',
    'token : "foo"': '"foo" in token',
    "text ~ '^a'": 'token ~ "^a"',
    "phase:decode": "PHASE == decode",
    "flip vs 1": "flip:1",
    "weight<0.4 expert:5": "weight[5] < 0.4 and expert:5",
    "layer not in (1, 2)": "not layer:1,2",
    "branch != 1": "-branch:1",
    "logp < -2": "-2 > logp",
    "phase:decode,prefill": "phase in (decode, prefill)",
    'token in ("a", " b")': 'token == "a" or token == " b"',
}


@pytest.mark.parametrize("form", FORMS)
def test_two_ways_of_writing_are_one_tree(form: str) -> None:
    left, right = parse(form), parse(FORMS[form])
    if "weight" in form:
        assert set(left.tree.terms) == set(right.tree.terms)  # type: ignore[union-attr]
    else:
        assert left == right


@settings(max_examples=300, deadline=None)
@given(query_cases.text)
def test_the_canonical_form_parses_to_the_same_tree(text: str) -> None:
    query = parse(text)
    assert parse(str(query)) == query
    assert str(parse(str(query))) == str(query)


@given(st.text(max_size=30))
@example("a\\\"b'\n\t\x00\udce2…")
def test_any_text_can_be_searched_for(text: str) -> None:
    for node in (Text(text, "contains"), Text(text, "equals")):
        assert parse(str(node)).tree == node


SIGNS = (
    'layer : 3 - ( ) not or and in vs flip token ~ "a " \' < == weight [ ] , 1e9 1e999 . expert topk ! forced \\ é ² ٣'
)
nonsense = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*SIGNS.split(" "), " "]), max_size=14).map("".join),
    st.lists(st.sampled_from(SIGNS.split(" ")), max_size=9).map(" ".join),
)


@settings(max_examples=500, deadline=None)
@given(nonsense)
def test_nonsense_raises_query_errors_only(text: str) -> None:
    problem = None
    try:
        query = parse(text)
    except QueryError as error:
        problem = error
    if problem is None:
        assert parse(str(query)) == query
    else:
        assert 0 <= problem.position <= len(text)
        assert problem.message
        assert "\n" not in problem.hint


WRONG = {
    "entorpy < 3": (0, "entropy"),
    "layer:3 foo": (8, 'token:"foo"'),
    "entropy <": (9, "entropy < 0.5"),
    "layer:": (6, "layer:3"),
    "(layer:3": (8, "close it with )"),
    "layer:3)": (7, ""),
    'token:"foo': (6, 'close it with "'),
    "phase:decoding": (6, "prefill"),
    "layer:5-2": (6, "2-5"),
    "layer:1.5": (6, ""),
    "entropy:1.2": (8, "entropy<1.2"),
    "entropy": (0, "entropy < 1"),
    "1 < 2": (0, "entropy < 0.5"),
    "and forced": (0, ""),
    "forced and": (10, "layer:3"),
    "forced:3": (7, "write forced"),
    "flip vs mian": (8, "main"),
    "token < 3": (6, 'token:"foo"'),
    'token ~ "("': (8, 'token:"…"'),
    'token ~ "(a+)+"': (8, "single characters"),
    'token ~ "a*a*a*a*"': (8, "at most 3"),
    r'token ~ "(a)\1"': (8, "write the text out"),
    'token ~ "(?=a)"': (8, "plain groups"),
    "weight[x] < 1": (7, "weight[5]"),
    "layer:3,,4": (8, "layer:2,3"),
    "phase < 3": (6, "phase:"),
    "layer @ 3": (6, "quotes"),
    "(" * 200 + "forced": (40, ""),
    "3 in layer": (5, "topk"),
}


@pytest.mark.parametrize("text", WRONG)
def test_errors_say_where_and_what_instead(text: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text, {"main": 0})
    position, hint = WRONG[text]
    assert caught.value.position == position
    assert hint in caught.value.hint


# Of a model with the layers 0 and 1, the sites L0, L1 and L1.b, six experts at most, and one branch.
MISSING = {
    "layer == 99": ("no layer 99", "0 to 1", 0),
    "entropy < 1 layer:0,9": ("no layer 9", "0 to 1", 20),
    "layer:5-9": ("no layer 5-9", "0 to 1", 6),
    "not layer != 7": ("no layer 7", "0 to 1", 4),
    "layer > 1": ("layer > 1 is true of no layer", "0 to 1", 0),
    "0.2 < layer < 0.9": ("is true of no layer", "0 to 1", 0),
    "layer == -1": ("is true of no layer", "0 to 1", 0),
    "site:l1": ("no site 'l1'", "did you mean 'L1'?", 5),
    "site == QQ": ("no site 'QQ'", "sites: L0, L1, L1.b", 8),
    "site:3": ("no site 3", "0 to 2", 5),
    "forced expert:6": ("no expert 6", "0 to 5", 14),
    "9 in topk": ("no expert 9", "0 to 5", 0),
    "0.1 < weight[7]": ("no expert 7", "0 to 5", 13),
    "first >= 6": ("is true of no expert", "0 to 5", 0),
    "stack:encoder": ("no stack 'encoder'", "decoder", 6),
    "flip vs without-3": ("no branch 'without-3'", "by its number", 8),
    "branch:mian": ("no branch 'mian'", "did you mean 'main'?", 7),
}


@pytest.mark.parametrize("text", MISSING)
def test_what_the_model_does_not_have_is_refused_where_the_model_is_known(text: str) -> None:
    message, hint, position = MISSING[text]
    with pytest.raises(QueryError) as caught:
        parse(text, {"main": 0}, INFO.sites)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.position == position
    if "branch" not in message:
        parse(text, {"main": 0})  # of an unknown model anything may be asked


@pytest.mark.parametrize(
    "text",
    [
        "layer:0-9",
        "layer >= 1",
        "layer != 1",
        "-1 < layer < 7",
        "site:L1.b,L0",
        "layer < expert",
        "5 in topk",
        "first:0",
        "stack:decoder",
        "weight[5] > 2",
        "position:99999",
        "flip vs 3",
        "branch:7",
        "not layer > 0",
    ],
)
def test_what_the_model_has_or_may_come_to_have_is_taken(text: str) -> None:
    assert parse(text, {"main": 0}, INFO.sites) == parse(text)


def test_branches_that_are_to_come() -> None:
    query = parse("flip vs 3 or branch:0 or branch in (7, 1-5)", {"main": 0})
    assert query.coming_branches({"main": 0}) == [3, 7]


def test_length_is_bounded() -> None:
    for text in ("x" * 3000, 'token:"' + "x" * 300 + '"', 'token ~ "' + "x" * 300 + '"'):
        with pytest.raises(QueryError, match="longer than"):
            parse(text)
    parse("not " * 400 + "forced")
    parse(" ".join(["layer:3"] * 200))


def test_patterns_cannot_run_away() -> None:
    text = "a" * 200 + "b"
    info = make_info(make_site(0))
    view = timeline_of(info, [make_step(info, [0, 1], vocabulary={0: text})]).snapshot()
    bad = 0
    for pattern in (
        "(a|a)" * 30 + "c",
        "a?" * 30 + "c",
        "(a|aa)+c",
        "(a*)*c",
        "((a)?)*c",
        "a{1,60}" * 5 + "c",
        "a*a*a*c",
        "(a|a)(a|a)(a|a)c",
    ):
        start = time.process_time()
        try:
            parse(f'token ~ "{pattern}"').match(view, 0, 1)
        except QueryError:
            bad += 1
        assert time.process_time() - start < 1.0
    assert bad == 6


@settings(max_examples=250, deadline=None)
@given(query_cases.text, st.integers(0, 3), st.booleans(), st.booleans())
@example("-forced", 0, True, True)
@example("layer:1 -expert:2", 0, True, True)
@example("phase:decode (forced or -expert:2)", 1, True, True)
@example("nan or inf", 2, True, False)
def test_matching_agrees_with_the_definition(text: str, seed: int, has_logits: bool, has_weights: bool) -> None:
    view = random_view(seed, has_logits=has_logits, has_weights=has_weights)
    slow, query = query_cases.Slow(view), parse(text)
    expected = [slow.match(query.tree, token) for token in range(view.end)]
    found = query.match(view, 0, view.end)
    assert found.tolist() == expected
    assert query.match(view, 3, 11).tolist() == expected[3:11]
    sites = query.match_sites(view, 0, view.end)
    for token, site in np.ndindex(sites.shape):
        passed = [other.index for other in view.sites if slow.passed(token, other.index)]
        holds = site in passed and slow.beside(query.tree, token, site, passed)
        assert sites[token, site] == (holds and expected[token])
    for token in (0, 5, view.end - 1):
        told = query.explain(view, token)
        assert told.holds == (query_cases.Slow._match(slow, query.tree, token))
        assert told.words
        assert told.site == (
            next(iter(np.flatnonzero(sites[token])), -1) if query.site_level and expected[token] else told.site
        )


def test_pieces_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    view = random_view(7)
    queries = [parse(text) for text in ("load_cv > 0.5", "flip vs 0", "entropy > 0.8 expert:1", "forced or nan", "")]
    whole = [query.match(view, 0, view.end).tolist() for query in queries]
    monkeypatch.setattr("moetui.routing.query.language.chunk_tokens", lambda sites: 4)
    assert [query.match(view, 0, view.end).tolist() for query in queries] == whole


def test_load_cv_looks_back_64_tokens(rng: np.random.Generator) -> None:
    view = timeline_of(INFO, [random_step(INFO, 150, rng, marks=True)]).snapshot()
    slow, query = query_cases.Slow(view), parse("load_cv > 0.4")
    assert query.match(view, 100, 140).tolist() == [slow.match(query.tree, token) for token in range(100, 140)]


def one_token(**more: object) -> TimelineView:
    info = make_info(make_site(0), make_site(1))
    values = {
        "indices": [[[0, 1], [2, 3]]],
        "weights": [[[0.75, 0.25], [0.6, 0.4]]],
        "logits": np.zeros((1, 2, 4)),
        "vocabulary": {0: " garden"},
    } | more
    return timeline_of(info, [make_step(info, **values)]).snapshot()  # type: ignore[arg-type]


def holds(text: str, view: TimelineView) -> bool:
    return bool(parse(text).match(view, 0, 1)[0])


def test_terms_hold_together_at_one_site() -> None:
    view = one_token()
    assert holds("layer:0 expert:1", view)
    assert not holds("layer:0 expert:2", view)
    assert holds("expert:1 or expert:9", view)
    assert not holds("expert:1 expert:2", view)  # of different sites
    assert holds("(expert:1 layer:0) or nan", view)


def test_negated_terms_hold_at_every_site() -> None:
    view = one_token()
    assert not holds("-expert:1", view)
    assert holds("-expert:9", view)
    assert holds("layer:1 -expert:1", view)
    assert holds("not (layer:1 expert:1)", view)
    assert not holds("not (layer:0 expert:1)", view)
    assert holds("-forced", one_token(indices=np.full((1, 2, 2), NO_EXPERT)))


def test_a_negated_term_beside_others_holds_at_every_site_that_they_are_asked_at() -> None:
    view = one_token()
    assert not holds("expert:2 -expert:0", view)  # expert 2 at one site, but expert 0 at the other
    assert not holds("weight<0.3 -expert:2", view)
    assert holds("expert:2 -expert:5", view)
    assert holds("layer:1 expert:2 -expert:0", view)
    assert holds("site:L1 -expert:0", view)
    assert holds("layer != 0 -expert:0", view)
    assert not holds("layer:0,1 -expert:0", view)
    assert not holds("(-expert:0 or -expert:2) expert:3", view)


@settings(max_examples=150, deadline=None)
@given(query_cases.text, query_cases.text, st.integers(0, 3))
@example("not expert:0", "entropy > 0.1", 0)
@example("not expert:0 or not expert:1", "entropy > 0.1", 0)
@example("not weight < 0.5", "expert:2", 0)
def test_one_more_term_never_lets_more_tokens_match(text: str, added: str, seed: int) -> None:
    fields = parse(added).fields
    assume(not fields & {"pad", "layer", "site"})  # padding has to be asked for; a place says where the rest is asked
    view = random_view(seed)
    wide = parse(text).match(view, 0, view.end)
    narrow = parse(f"({text}) {added}").match(view, 0, view.end)
    assert not (narrow & ~wide).any()


def test_weight_is_of_the_expert_beside_it() -> None:
    view = one_token()
    assert holds("weight<0.3", view)
    assert not holds("expert:0 weight<0.3", view)
    assert holds("expert:1 weight<0.3", view)
    assert holds("0.5 < weight[2] < 0.65", view)
    assert not holds("weight[2] > 0.65", view)
    assert not holds("expert:0 expert:1 weight<0.3", view)  # of each of them
    assert not holds("expert:0 -weight<0.3", view)  # expert 1 has less
    assert not holds("-(weight[3] > 0.1) layer:0", view)  # expert 3 was not chosen there: unknown, not small


def test_unknown_matches_nothing() -> None:
    bare = one_token(weights=None, logits=None)
    for text in (
        "entropy < 9",
        "not entropy < 9",
        "weight < 9",
        "not weight < 9",
        "margin > -9",
        "logp < 0",
        "not logp < 0",
    ):
        assert not holds(text, bare)
    assert holds("expert:1", bare)
    assert holds("first:0", bare)


def test_text_as_it_is_and_as_it_is_drawn() -> None:
    view = one_token()
    for text in (
        "token:gard",
        'token:" gard"',
        "token:·garden",
        'token == " garden"',
        "token:GARD or token:gard",
        '"garden"',
    ):
        assert holds(text, view)
    assert not holds("token:Garden", view)
    assert not holds('token == "garden"', view)


def test_marks() -> None:
    view = one_token(flags=[[SiteFlag.FORCED, SiteFlag.NON_FINITE]], logits=[[[0, 0, 0, 0], [np.inf, 0, 0, 0]]])
    assert holds("forced layer:0", view)
    assert not holds("forced layer:1", view)
    assert holds("inf", view)
    assert not holds("nan", view)
    unseen = one_token(flags=[[0, SiteFlag.NON_FINITE]])  # the number itself was not kept
    assert holds("nan", unseen)
    assert holds("inf", unseen)


def test_padding_is_matched_on_request_only() -> None:
    view = one_token(pad=np.array([True]), position=np.array([-1], np.int32))
    assert not holds("", view)
    assert not holds("-forced", view)
    assert holds("pad", view)
    assert not holds("-pad", view)


def test_flip_against_a_branch() -> None:
    info = make_info(make_site(0))
    steps = [
        make_step(info, [[0, 1], [0, 1], [0, 1]]),
        make_step(info, [[1, 0], [2, 1]], index=1, branch=3, position=np.array([1, 2], np.int32)),
        make_step(info, [[2, 1]], index=2, branch=3, position=np.array([3], np.int32)),
    ]
    view = timeline_of(info, steps).snapshot()
    assert parse("flip vs 0").match(view, 0, 6).tolist() == [False] * 4 + [True, False]
    assert parse("-(flip vs 0) branch:3").match(view, 0, 6).tolist() == [False] * 3 + [True, False, False]
    assert parse("flip vs late", {"late": 3}).match(view, 0, 6).tolist() == [False, False, True, False, False, False]
    told = parse("flip vs 0").explain(view, 4)
    assert told.words == "experts 1, 2 here, 0, 1 in branch 0"


def test_explanations_are_what_a_breakpoint_shows() -> None:
    logits = np.zeros((1, 2, 4))
    logits[0, 1] = [8, 0, 0, 0]
    view = one_token(logits=logits)
    told = parse("entropy < 0.4 and layer == 1").explain(view, 0)
    assert told.holds
    assert told.site == 1
    assert [term.holds for term in told.terms] == [True, True]
    assert told.words == "entropy = 0.009049, layer = 1"
    missed = parse("entropy < 0.001 or token:x").explain(view, 0)
    assert not missed.holds
    assert missed.site == -1
    assert [term.holds for term in missed.terms] == [False, False]
    assert 'token = "·garden"' in missed.words
    evil = one_token(vocabulary={0: "\x1b[31m"})
    assert "\x1b" not in parse("token:x").explain(evil, 0).words
    assert (
        parse("phase:decode weight[0] > 0.5 forced").explain(view, 0).words
        == "phase = decode, weight[0] = 0.75, not forced"
    )
    assert parse("logp < 0").explain(view, 0).terms[0].holds is None
    with pytest.raises(IndexError):
        parse("forced").explain(view, 1)


def test_a_number_alone_is_looked_at_where_that_is_asked_for() -> None:
    view = random_view(1)
    token = view.end - 1
    for text, shown in {
        "logp": "logp = ",
        "entropy": "entropy = ",
        "weight[1] margin": "weight[1]",
        "3 < id": "id = ",
    }.items():
        query = parse(text, None, INFO.sites, values=True)
        assert parse(str(query), None, INFO.sites, values=True) == query
        assert shown in query.explain(view, token).words
        assert query.conditional == ("<" in text)
    here = parse("entropy and layer:1", None, INFO.sites, values=True).explain(view, token)
    everywhere = parse("entropy", None, INFO.sites, values=True).explain(view, token)
    assert (here.site, everywhere.site) == (1, -1)
    assert here.terms[0].values.split(" = ")[1] in everywhere.words
    unknown = parse("entropy", None, INFO.sites, values=True).explain(random_view(1, has_logits=False), token)
    assert (unknown.holds, unknown.words) == (False, "entropy unknown")
    for text in ("entropy", "weight[1]", "layer:1 prob", "3"):
        with pytest.raises(QueryError):
            parse(text, None, INFO.sites)
    with pytest.raises(QueryError, match="compared with nothing"):
        parse("3", None, INFO.sites, values=True)


def test_needs_tell_what_is_read() -> None:
    light = parse("token:foo phase:decode logp < -3")
    assert not light.site_level
    assert not light.needs.routing
    assert light.needs.text
    assert parse("expert:3 forced").needs.routing
    assert not parse("expert:3 forced").needs.weights
    assert parse("weight < 0.3").needs.weights
    assert parse("entropy < 0.3").needs.logits
    assert parse("flip vs 0").needs.history


def test_light_queries_do_not_read_routing() -> None:
    view = random_view(0)

    class Light:
        def __getattr__(self, name: str) -> object:
            assert name != "routing"
            return getattr(view, name)

    assert parse("phase:decode or id:3").match(Light(), 0, view.end).any()  # type: ignore[arg-type]


def test_empty_views_and_queries() -> None:
    view = empty_view(INFO)
    for text in ("", "entropy < 1 layer:0", "forced or nan", "flip vs 0", "load_cv < 1", "token:x"):
        assert parse(text).match(view, 0, 10).shape == (0,)
        assert parse(text).match_sites(view, 0, 10).shape == (0, 3)
    assert str(parse("  ")) == ""
    assert holds("", one_token())
    bounded = timeline_of(
        INFO, [random_step(INFO, 5, np.random.default_rng(0), index=n) for n in range(3)], 5
    ).snapshot()
    assert parse("index:11").match(bounded, 0, 99).tolist() == [False, True, False, False, False]


def words(text: str, cursor: int | None = None) -> list[str]:
    return [
        found.text for found in complete(text, len(text) if cursor is None else cursor, INFO, {"main": 0, "what if": 1})
    ]


def test_completion() -> None:
    assert words("ent") == ["entropy"]
    assert "layer:" in words("")
    assert words("forced and la") == ["layer:"]
    assert words("layer:") == ["0", "1"]
    assert words("site:L1") == ["L1.b"]
    assert words("phase:d") == ["decode"]
    assert words("layer:0,") == ["0", "1"]
    assert words("flip vs m") == ["main"]
    assert words("expert:") == ["0", "1", "2", "3", "4", "5"]
    assert words('token:"ent') == []
    assert words("ent < 3", 3) == ["entropy"]
    found = complete("forced ent", 10)[0]
    assert ("forced ent"[: found.start] + found.text, found.stop) == ("forced entropy", 10)
    assert found.help


@given(st.text(max_size=20), st.integers(-3, 25))
def test_completion_never_fails(text: str, cursor: int) -> None:
    for found in complete(text, cursor, INFO):
        assert 0 <= found.start <= found.stop <= len(text)


def test_members_are_whole_numbers() -> None:
    assert parse("layer:2,4-6").tree == Member("layer", ((2.0, 2.0), (4.0, 6.0)))
    assert str(parse("layer:2,4-6")) == "layer:2,4-6"
    assert str(parse("entropy:0.5-1")) == "entropy:0.5-1"
    assert make_step(INFO, np.zeros((1, 3, 2)), phase=Phase.DECODE).num_tokens == 1


def test_several_queries_at_once_are_each_by_itself() -> None:
    view = random_view(7)
    texts = [
        "entropy < 1.2",
        "pad",
        "expert:1 and margin > 0.1",
        "7 in topk",
        'token:"a"',
        "nan or dropped",
        "load_cv > 0.4",
    ]
    queries = [parse(text) for text in texts]
    alone = [query.match(view, 2, view.end).tolist() for query in queries]
    assert [found.tolist() for found in match_all(queries, view, 2, view.end)] == alone
    assert [found.tolist() for found in match_all(queries[::-1], view, 2, view.end)] == alone[::-1]
    assert match_all([], view, 0, view.end) == []
