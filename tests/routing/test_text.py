"""Nothing that a terminal or a reader could be misled by is left in a drawable string."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from wcwidth import wcswidth, wcwidth

from moetui.routing import drawable, join_texts

anything = st.text(st.characters(codec=None, categories=None), max_size=30)


@given(anything, st.booleans())
def test_no_control_no_format_no_line_break(text: str, spaces: bool) -> None:
    drawn = drawable(text, spaces=spaces)
    for char in drawn:
        assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        assert unicodedata.category(char) != "Zs" or char == " "
    assert drawable(drawn) == drawn
    drawn.encode("utf-8")
    marks = "".join("m" if unicodedata.category(char) in ("Mn", "Me") else " " for char in drawn)
    assert "mmm" not in marks
    assert not marks.startswith("m")


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_stays(text: str) -> None:
    assert drawable(text) == text


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("\x1b[31mred", "␛[31mred"),
        ("a\nb\tc\r", "a↵b⇥c␍"),
        ("\udce2\udc80", "‹E2›‹80›"),
        ("\u202eabc", "‹U+202E›abc"),
        ("a\u0301\u0301\u0301\u0301", "a\u0301\u0301"),
        ("\u0301a", "◌\u0301a"),
        ("\u3164", "‹U+3164›"),
        ("日本", "日本"),
        ("\x9b31m", "‹U+009B›31m"),
        ("\u2764\ufe0f", "\u2764"),  # a heart: one cell or two, by the terminal
        ("\ufe0f", "‹U+FE0F›"),
        ("1\ufe0f\u20e3", "1\u20e3"),
        ("\U0001f44d\U0001f3fd", "\U0001f44d‹U+1F3FD›"),
        ("\U0001f1eb\U0001f1f7", "‹U+1F1EB›‹U+1F1F7›"),
        ("a\U000e0100\u0301\u0301", "a\u0301\u0301"),
    ],
)
def test_by_example(text: str, drawn: str) -> None:
    assert drawable(text) == drawn


@given(anything)
def test_its_width_is_that_of_its_characters(text: str) -> None:
    drawn = drawable(text)
    # Cut anywhere, it is as wide as its parts: nothing in it depends on how a terminal joins characters.
    assert cell_len(drawn) == sum(map(cell_len, drawn))
    if not any(unicodedata.category(char) == "Mc" for char in drawn):  # of those terminals hold different views
        assert wcswidth(drawn) == sum(max(0, wcwidth(char)) for char in drawn)


def test_spaces_that_matter() -> None:
    assert drawable("  a b ", spaces=True) == "··a b·"
    assert drawable("  ", spaces=True) == "··"
    assert drawable("", spaces=True) == ""


@given(st.text(max_size=20), st.lists(st.integers(0, 60), max_size=5))
def test_texts_cut_anywhere_join_again(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8")
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    parts = [data[low:high].decode("utf-8", "surrogateescape") for low, high in pairwise(places)]
    assert join_texts(parts) == text


@given(st.lists(anything, max_size=4))
def test_joining_never_fails(parts: list[str]) -> None:
    join_texts(parts).encode("utf-8")
