"""Ranges as they are written and read."""

from __future__ import annotations

import pytest

from moetui.routing import UsageError
from moetui.routing.ranges import ranges, with_routers


def test_numbers_in_a_row_are_shown_as_a_range() -> None:
    assert ranges([]) == ""
    assert ranges([0, 1, 2, 3, 6, 8, 9]) == "0-3, 6, 8-9"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [((), ()), ((3,), (3,)), (range(6), (1, 3, 5)), ((5, 4, 1), (5, 1)), ((3, 1), (3, 1)), ((1, 2), (1,))],
)
def test_a_range_steps_over_layers_without_a_router(wanted: tuple[int, ...], found: tuple[int, ...]) -> None:
    assert with_routers(wanted, {1, 3, 5}) == found


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ((0,), "layer 0 has no router"),
        ((1, 4), "layer 4 has no router"),
        ((1, 7, 8), "none of the layers 7-8 has a router"),
        ((1, -1), "layer -1 has no router"),
    ],
)
def test_a_layer_by_itself_or_a_range_without_any_is_refused(wanted: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        with_routers(wanted, {1, 3, 5})
    assert refused.value.hint == "layers with routers: 1, 3, 5"
