"""The timeline against a list of steps, through growth, bounds, clearing and views that must not change."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.routing import NO_EXPERT, Phase, SiteFlag, Step, Timeline, TimelineView, TokenColumns, empty_view, scores
from tests.routing.routing_cases import make_info, make_site, make_step, random_step, timeline_of

INFO = make_info(
    make_site(0), make_site(1, experts=3), make_site(2, top_k=1, name="encoder.L0", layer=0, stack="encoder")
)


def check(view: TimelineView, steps: list[Step], first: int) -> None:
    """``view`` holds exactly these steps, numbered from ``first``."""
    assert view.first == first
    assert view.end == first + sum(step.num_tokens for step in steps)
    columns, block = view.tokens(view.first, view.end), view.routing(view.first, view.end)
    table = view.steps()
    assert table.index.tolist() == [step.index for step in steps]
    at = 0
    for row, step in enumerate(steps):
        own = slice(at, at + step.num_tokens)
        assert (table.first_token[row], table.num_tokens[row]) == (first + at, step.num_tokens)
        assert (block.indices[own] == step.indices).all()
        assert (block.flags[own] == step.flags).all()
        assert np.array_equal(block.weights[own], step.weights, equal_nan=True)  # type: ignore[index, arg-type]
        assert np.array_equal(block.logits[own], step.logits, equal_nan=True)  # type: ignore[index, arg-type]
        for name in ("sequence", "position", "token_id", "pad"):
            assert (getattr(columns, name)[own] == getattr(step, name)).all()
        assert np.array_equal(columns.logprob[own], step.logprob, equal_nan=True)
        assert (columns.step[own] == step.index).all()
        assert (columns.flags[own] == np.bitwise_or.reduce(step.flags, axis=1)).all()
        assert {view.stacks[number] for number in columns.stack[own]} <= {step.stack}
        expected = scores.token_scores(step, view.sites)
        assert np.array_equal(columns.entropy[own], expected.entropy, equal_nan=True)
        at += step.num_tokens
    assert len(columns.position) == at


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 90), st.just("clear")), max_size=12), st.integers(1, 120), st.integers(0, 99))
def test_a_timeline_is_its_newest_steps(actions: list[int | str], limit: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    timeline, held, first = Timeline(INFO, limit), [], 0
    earlier: list[tuple[TimelineView, list[Step], int]] = []
    for number, action in enumerate(actions):
        if action == "clear":
            timeline.clear()
            first += sum(step.num_tokens for step in held)
            held = []
        else:
            stack = "encoder" if number % 3 == 1 else "decoder"
            step = random_step(INFO, int(action), rng, index=number, marks=True, stack=stack)
            held = [*held, step]
            end = timeline.append(step)
            while len(held) > 1 and sum(one.num_tokens for one in held) > limit:
                first += held[0].num_tokens
                held = held[1:]
            assert end == first + sum(one.num_tokens for one in held)
        view = timeline.snapshot()
        check(view, held, first)
        earlier.append((view, held, first))
    for view, steps, start in earlier:  # what was handed out does not change
        check(view, steps, start)


def test_ranges_are_clipped_to_what_is_held(rng: np.random.Generator) -> None:
    view = timeline_of(INFO, [random_step(INFO, 5, rng, index=number) for number in range(4)], 10).snapshot()
    assert (view.first, view.end) == (10, 20)
    for start, stop, length in ((0, 99, 10), (12, 15, 3), (5, 12, 2), (18, 40, 2), (15, 12, 0), (0, 5, 0), (30, 40, 0)):
        assert len(view.tokens(start, stop).position) == length
        assert view.routing(start, stop).indices.shape == (length, 3, 2)


def test_arrays_are_read_only(rng: np.random.Generator) -> None:
    view = timeline_of(INFO, [random_step(INFO, 5, rng)]).snapshot()
    columns = view.tokens(0, 5)
    arrays = [getattr(columns, field.name) for field in fields(TokenColumns)]
    for array in (*arrays, view.routing(0, 5).indices, view.steps().index):
        assert not array.flags.writeable


def test_steps_that_do_not_fit_leave_no_trace(rng: np.random.Generator) -> None:
    timeline = timeline_of(INFO, [random_step(INFO, 5, rng)])
    good = random_step(INFO, 3, rng, index=1, vocabulary={77: "new"})
    bad = [
        replace(good, weights=None),
        replace(good, logits=None),
        replace(good, position=np.zeros(1, np.int32)),  # NumPy would repeat it
        replace(good, candidate_ids=np.zeros((3, 1), np.int32)),
        replace(good, site_ms=np.zeros(1, np.float32)),
        replace(good, indices=good.indices[:, :2]),
        replace(good, stack="vision", logprob=np.zeros((3, 1), np.float32)),
    ]
    before = timeline.snapshot()
    for step in bad:
        with pytest.raises(ValueError, match=r"shape|all have"):
            timeline.append(step)
    after = timeline.snapshot()
    assert (after.end, after.stacks, after.text(77)) == (before.end, before.stacks, "‹77›")
    assert timeline.append(good) == 8
    assert timeline.snapshot().text(77) == "new"
    fresh = Timeline(INFO)
    with pytest.raises(ValueError, match="for 3 sites"):
        fresh.append(bad[5])
    assert fresh.snapshot().end == 0


def test_milliseconds_are_shared_by_the_tokens_that_count() -> None:
    info = make_info(make_site(0, top_k=1))
    step = make_step(info, [0, 0, 0], pad=np.array([True, False, False]), duration=30.0)
    assert timeline_of(info, [step]).snapshot().tokens(0, 3).ms.tolist() == [15.0] * 3


def test_flags_are_those_of_all_sites() -> None:
    info = make_info()
    step = make_step(info, [[0, 1, 0, 1]], flags=[[SiteFlag.FORCED, SiteFlag.NON_FINITE]])
    assert timeline_of(info, [step]).snapshot().tokens(0, 1).flags.tolist() == [SiteFlag.FORCED | SiteFlag.NON_FINITE]


def test_an_empty_view_has_the_shapes_of_a_full_one(rng: np.random.Generator) -> None:
    full = timeline_of(INFO, [random_step(INFO, 5, rng)]).snapshot()
    for empty in (empty_view(INFO), Timeline(INFO).snapshot()):
        assert (empty.first, empty.end, empty.stacks) == (0, 0, ())
        for field in fields(TokenColumns):
            mine, theirs = getattr(empty.tokens(0, 9), field.name), getattr(full.tokens(0, 9), field.name)
            assert mine.dtype == theirs.dtype
            assert (mine.shape[0], mine.ndim) == (0, theirs.ndim)
        assert empty.routing(0, 9).indices.shape == (0, 3, 2)
        assert empty.steps().index.shape == (0,)
    assert empty_view(INFO, 7).first == 7


def test_what_becomes_known_of_a_site_is_used_from_then_on() -> None:
    unknown = make_info(make_site(0, scoring="unknown"))
    timeline = Timeline(unknown)
    step = make_step(unknown, [[0, 1]], logits=np.zeros((1, 4)))
    timeline.append(step)
    timeline.update_info(make_info(make_site(0)))
    timeline.append(replace(step, index=1))
    entropy = timeline.snapshot().tokens(0, 2).entropy
    assert np.isnan(entropy[0])
    assert entropy[1] == pytest.approx(np.log(4), rel=2**-13)  # scores have 13 significant bits
    assert timeline.snapshot().sites[0].scoring == "softmax"


def test_readers_see_whole_steps_while_one_thread_appends() -> None:
    info = make_info(make_site(0, top_k=1))
    timeline = Timeline(info, max_tokens=200)
    steps = [make_step(info, np.full(7, number % 4), index=number, phase=Phase.PREFILL) for number in range(400)]
    done = threading.Event()

    def append() -> None:
        for step in steps:
            timeline.append(step)
        done.set()

    writer = threading.Thread(target=append)
    writer.start()
    looks = 0
    while not done.is_set() or not looks:
        view = timeline.snapshot()
        columns, block = view.tokens(view.first, view.end), view.routing(view.first, view.end)
        assert len(columns.step) % 7 == 0
        assert (block.indices[:, 0, 0] == columns.step % 4).all()
        assert (np.diff(columns.step) >= 0).all()
        looks += 1
    writer.join()
    assert timeline.snapshot().end == 2800


def test_an_intervention_may_give_more_slots_or_fewer(rng: np.random.Generator) -> None:
    plain, wide, slim = (random_step(INFO, 3, rng) for _ in range(3))
    wide = replace(
        wide,
        indices=np.repeat(wide.indices, 2, -1),
        weights=None if wide.weights is None else np.repeat(wide.weights, 2, -1),
    )
    slim = replace(
        slim, indices=slim.indices[:, :, :1], weights=None if slim.weights is None else slim.weights[:, :, :1]
    )
    timeline = Timeline(INFO)
    timeline.append(plain)
    before = timeline.snapshot().routing(0, 3)
    for number, step in enumerate((wide, slim), 1):
        timeline.append(replace(step, index=number))
    assert before.indices.shape == plain.indices.shape, "a view that was taken does not change"
    held = timeline.snapshot()
    for start, step in ((0, plain), (3, wide), (6, slim)):
        block, slots = held.routing(start, start + 3), step.indices.shape[2]
        assert block.weights is not None
        assert step.weights is not None
        np.testing.assert_array_equal(block.indices[:, :, :slots], step.indices)
        np.testing.assert_array_equal(block.weights[:, :, :slots], step.weights)
        assert (block.indices[:, :, slots:] == NO_EXPERT).all()
        assert np.isnan(block.weights[:, :, slots:]).all()


def test_a_token_without_a_text_is_named_by_its_id_if_it_has_one() -> None:
    view = empty_view(INFO)
    assert (view.text(7), view.text(-1)) == ("‹7›", "‹?›")
