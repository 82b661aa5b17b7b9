"""The waterfall's time: as it ran, but for pauses."""

from __future__ import annotations

from itertools import pairwise
from math import isnan, nan

import pytest

from moetui.tui.widgets.token_timing import Span, Timing, span_of


def steps(*starts: float, took: float = 0.01) -> list[tuple[int, Timing]]:
    return [(token, Timing(start, start + took, False, 4)) for token, start in enumerate(starts)]


def test_a_run_without_pauses_is_as_it_was() -> None:
    span = span_of(steps(5.0, 5.02, 5.04, 5.2), cut_pauses=True)
    assert not span.pauses
    assert span.high - span.low == pytest.approx(0.21)
    assert span.place(0, steps(5.0)[0][1]) == pytest.approx((0, 0.01 / 0.21))
    assert span.text(30, "waterfall") == "waterfall" + "210 ms".rjust(21)


def test_a_pause_is_left_out_and_said() -> None:
    rows = steps(5.0, 5.02, 65.0, 65.02, 165.0)
    span = span_of(rows, cut_pauses=True)
    assert span.pauses
    assert span.high - span.low == pytest.approx(0.09)
    places = [span.place(*row) for row in rows]
    assert all(stop - start == pytest.approx(0.01 / 0.09) for start, stop in places)
    assert all(before[1] <= after[0] for before, after in pairwise(places))
    assert places[-1][1] == pytest.approx(1)
    assert span.text(30, "waterfall").endswith("90 ms + pauses")
    assert [span.text(width, "waterfall") for width in (14, 6, 4, 3)] == ["90 ms + pauses", "90 ms", "90ms", ""]
    assert not span_of(rows, cut_pauses=False).pauses


def test_tokens_of_one_step_and_none_at_all() -> None:
    same = [(token, Timing(2.0, 2.5, True, 4)) for token in range(5)]
    assert span_of(same, cut_pauses=True).place(3, same[3][1]) == (0.0, 1.0)
    assert span_of([], cut_pauses=True) == Span(known=False)
    assert span_of(steps(1.0, took=0.0), cut_pauses=True) == Span(known=False)


def test_a_time_that_a_damaged_file_lost_is_no_bar_and_spoils_none() -> None:
    lost = (1, Timing(nan, nan, False, 4))
    rows = steps(5.0, 5.02, 5.04)
    rows[1] = lost
    span = span_of(rows, cut_pauses=True)
    assert (span.low, span.high) == pytest.approx((5.0, 5.05))
    assert all(isnan(at) for at in span.place(*lost))
    assert span_of([lost], cut_pauses=True) == Span(known=False)


def test_no_time_is_told_where_none_is_known() -> None:
    span = span_of([], cut_pauses=True)
    assert [span.text(width, "waterfall") for width in (30, 9, 8)] == ["waterfall", "waterfall", ""]
