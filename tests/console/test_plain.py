"""Answers as plain data."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.console.plain import as_json, plain
from moetui.routing import Phase
from moetui.routing.events import Branch, RunState

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(VALUES)
def test_any_value_is_one_document_of_printable_ascii(value: object) -> None:
    document = as_json(value)
    assert document.replace("\n", "").isprintable()
    assert document.isascii()
    assert json.loads(document) == json.loads(json.dumps(plain(value)))


def test_what_is_not_known_is_null_and_arrays_are_lists() -> None:
    value = {"a": np.array([[1.0, np.nan], [np.inf, 2.0]]), 3: np.uint16(7), "t": (Phase.DECODE, RunState.PAUSED)}
    assert plain(value) == {"a": [[1.0, None], [None, 2.0]], "3": 7, "t": [1, "paused"]}
    assert plain(Branch(1, 0, "x"))["name"] == "x"


def test_a_knot_ends() -> None:
    knot: list[object] = []
    knot.append(knot)
    assert "list" in as_json(knot)
