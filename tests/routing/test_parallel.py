"""Calls side by side: results in order, no more ahead than said, errors in their turn."""

import os
import threading

import pytest

from moetui.routing import parallel
from moetui.routing.parallel import in_order


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)


def test_calls_run_side_by_side_and_come_in_order():
    together = threading.Barrier(3, timeout=20)  # broken, and an error, unless three calls meet

    def call(item):
        together.wait()
        return -item, threading.current_thread()

    results = list(in_order(call, range(12)))
    assert [number for number, _ in results] == [-item for item in range(12)]
    assert len({thread for _, thread in results}) == 3


def test_what_nobody_took_yet_is_bounded():
    begun = []
    results = in_order(begun.append, iter(range(100)))
    next(results)
    assert len(begun) <= 6
    results.close()
    assert len(begun) <= 6


def test_an_error_comes_in_its_turn_and_ends_the_rest():
    begun = []

    def call(item):
        begun.append(item)
        if item == 3:
            raise ValueError("the fourth")
        return item

    results = in_order(call, range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(results)
    assert max(begun) < 12
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(parallel.NAME)]


def test_nothing_to_do_is_nothing():
    assert list(in_order(str, [])) == []
