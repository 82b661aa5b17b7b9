"""The garbage collector looks seldom while a model is loaded, and as often as before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from moetui.engine.collector import collecting_seldom


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    held = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*held)


def test_it_looks_seldom_and_then_as_before() -> None:
    looked: list[int] = []

    def note(phase: str, told: dict[str, int]) -> None:
        if phase == "start":
            looked.append(told["generation"])

    gc.callbacks.append(note)
    try:
        with collecting_seldom():
            kept = [[number] for number in range(50_000)]
            assert looked == []
        assert gc.get_threshold() == (700, 10, 10)
        kept += [[number] for number in range(2_000)]
        assert looked
    finally:
        gc.callbacks.remove(note)


def test_an_interrupt_leaves_it_as_it_was() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert gc.get_threshold() == (700, 10, 10)


def interrupted() -> None:
    with collecting_seldom():
        raise KeyboardInterrupt


def test_two_that_load_at_once_leave_it_as_it_was() -> None:
    first, second = collecting_seldom(), collecting_seldom()
    with first:
        second.__enter__()
    assert gc.get_threshold() == (700, 10, 10)
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)


def test_one_that_is_off_stays_off() -> None:
    gc.set_threshold(0)
    with collecting_seldom():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0
