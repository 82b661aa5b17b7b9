"""The bare form: words, options, and what is said of wrong ones."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.console.bare import parse_bare, split
from moetui.console.commands import registry
from moetui.routing import UsageError

REGISTRY = registry()


def parsed(line: str) -> dict[str, object]:
    words = split(line)
    return parse_bare(REGISTRY.get(words[0].text), line, words[1:]).values


@settings(deadline=None)
@given(st.text(max_size=60))
def test_words_cover_the_line_and_nothing_between_them_is_text(line: str) -> None:
    words = split(line)
    edges = [0, *(edge for word in words for edge in (word.start, word.stop)), len(line)]
    assert edges == sorted(edges)
    assert not "".join(line[stop:start] for stop, start in zip(edges[::2], edges[1::2])).strip()
    assert all(word.stop > word.start for word in words)


@settings(deadline=None)
@given(st.lists(st.text(string.printable, max_size=12), max_size=5))
def test_quoted_words_come_back_as_they_were(texts: list[str]) -> None:
    escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    assert [word.text for word in split(" ".join(f'"{text}"' for text in escaped))] == texts


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=6),
    st.lists(st.integers(0, 20), min_size=1, max_size=4),
    st.sampled_from(["--layers {}", "--layers={}", "-l {}"]),
    st.booleans(),
)
def test_options_may_stand_before_or_behind_the_experts(
    experts: list[int], layers: list[int], option: str, before: bool
) -> None:
    words, extra = " ".join(map(str, experts)), option.format(",".join(map(str, layers)))
    line = f"ban_experts {extra} {words}" if before else f"ban_experts {words} {extra}"
    assert parsed(line) == {"experts": [str(expert) for expert in experts], "layers": ",".join(map(str, layers))}


def test_a_prompt_is_taken_as_typed_but_for_its_options() -> None:
    assert parsed("generate It's  fine, isn't it? -n 24 --seed 1") == {
        "prompt": "It's  fine, isn't it?",
        "max_new_tokens": "24",
        "seed": "1",
    }
    assert parsed(r'generate "two\nlines --not-an-option"') == {"prompt": "two\nlines --not-an-option"}
    assert parsed("generate -- --dashes and all") == {"prompt": "--dashes and all"}


def test_a_query_keeps_its_quotes_and_its_minus_signs() -> None:
    assert parsed('find token:"a --b" logp < -2 --rows 3') == {"query": 'token:"a --b" logp < -2', "rows": "3"}


def test_json_is_an_option_of_every_command() -> None:
    for command in REGISTRY:
        words = split(f"{command.name} --json")
        assert parse_bare(command, f"{command.name} --json", words[1:]).json


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("ban_experts 1 --lyers 2", "no option --lyers", "did you mean '--layers'?"),
        ("ban_experts 1 --layers", "--layers needs a value: layers", "usage: ban_experts EXPERTS"),
        ("ban_experts 1 --layers --phase decode", "--layers needs a value", "usage"),
        ("ban_experts 0 3 --layers 1 2", "2 stands apart from the other experts", "--layers 2,4"),
        ("ban_experts 1 --layers 1 --layers 2", "--layers is given twice", "usage"),
        ("swap_experts 1 2 3", "3 is too much for swap_experts", "usage: swap_experts A B"),
        ("pause now", "now is too much for pause", "usage: pause"),
        ("generate x --greedy=1", "--greedy takes no value", "usage"),
    ],
)
def test_wrong_words_are_named(line: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        parsed(line)
    assert message in error.value.message
    assert hint in error.value.hint
