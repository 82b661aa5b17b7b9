import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moetui.routing.timeline import StepColumns
from moetui.session.playhead import Playhead


def columns(starts, tokens, duration=0.1):
    count = len(starts)
    tokens = np.array(tokens, np.int32)
    return StepColumns(
        index=np.arange(count, dtype=np.int32),
        branch=np.zeros(count, np.int16),
        phase=np.zeros(count, np.uint8),
        started=np.array(starts, np.float64),
        duration=np.full(count, duration * 1000, np.float32),
        first_token=(np.cumsum(tokens) - tokens).astype(np.int32),
        num_tokens=tokens,
        site_ms=np.zeros((count, 1), np.float32),
        memory=np.full(count, np.nan, np.float32),
    )


def head_of(starts, tokens, speed=1.0, **options):
    head = Playhead(speed)
    head.follow(columns(starts, tokens, **options), sum(tokens))
    return head


def test_tokens_appear_as_fast_as_they_were_made():
    head = head_of([0.0, 0.2, 0.4, 0.6], [5, 1, 1, 1])
    head.play(100.0)
    assert [head.advance(100 + t) for t in (0.05, 0.11, 0.29, 0.31, 0.51, 0.71)] == [0, 5, 5, 6, 7, 8]
    assert head.at_end


def test_wait_says_when_the_next_step_is_due():
    head = head_of([0.0, 0.2], [5, 1], speed=2.0)
    head.play(0.0)
    assert head.wait(0.0) == pytest.approx(0.05)
    assert head.advance(0.05) == 5
    assert head.wait(0.05) == pytest.approx(0.1)
    head.advance(0.15)
    assert head.wait(0.15) is None


def test_long_pauses_of_the_run_are_cut_short():
    head = head_of([0.0, 600.0], [1, 1])
    head.play(0.0)
    assert head.advance(2.05) == 1
    assert head.advance(2.11) == 2


def test_a_recording_without_times_plays_twenty_steps_a_second():
    head = head_of([np.nan] * 40, [1] * 40)
    head.play(0.0)
    assert head.advance(1.0) == 20


def test_a_changed_speed_goes_on_from_where_it_stands():
    head = head_of([i * 0.1 for i in range(10)], [1] * 10)
    head.play(0.0)
    assert head.advance(0.5) == 5
    head.set_speed(4.0, 0.5)
    assert head.advance(0.5) == 5
    assert head.advance(0.55) == 7


def test_a_loop_repeats_its_range():
    head = head_of([i * 0.1 for i in range(10)], [1] * 10)
    head.loop = (3, 6)
    head.seek(3, 0.0)
    head.play(0.0)
    seen = [head.advance(t / 20) for t in range(1, 40)]
    assert set(seen) == {3, 4, 5, 6}
    assert seen.count(6) >= 3


def test_pausing_stops_the_clock():
    head = head_of([0.0, 0.2], [5, 1])
    head.play(0.0)
    head.advance(0.1)
    head.pause()
    assert head.advance(50.0) == 5
    head.play(50.0)
    assert head.advance(50.1) == 5
    assert head.advance(50.21) == 6


def test_steps_away_counts_steps_not_tokens():
    head = head_of([0, 1, 2, 3], [5, 1, 1, 1])
    assert head.steps_away(1) == 5
    head.seek(6, 0.0)
    assert (head.steps_away(1), head.steps_away(0), head.steps_away(99)) == (7, 6, 8)
    assert (head.steps_away(-1), head.steps_away(-2), head.steps_away(-9)) == (5, 0, 0)
    head.seek(3, 0.0)
    assert (head.steps_away(1), head.steps_away(-1)) == (5, 0)


def test_tokens_whose_steps_are_lost_are_shown_with_the_others():
    head = Playhead()
    head.follow(columns([], []), 7)
    assert head.end == 7
    head.follow(columns([0.0], [3]), 7)
    assert head.end == 7


def test_an_empty_recording_is_at_its_end():
    head = Playhead()
    head.follow(columns([], []), 0)
    head.play(0.0)
    assert head.at_end
    assert head.wait(0.0) is None
    assert (head.steps_away(1), head.steps_away(-1)) == (0, 0)


def test_more_steps_while_playing_keep_the_place():
    head = head_of([0.0, 0.2], [5, 1])
    head.play(0.0)
    assert head.advance(0.35) == 6
    head.follow(columns([0.0, 0.2, 0.4], [5, 1, 2]), 8)
    assert head.position == 6
    assert head.advance(0.55) == 8


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 9)), min_size=1, max_size=20),
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from("pstfb")), max_size=30),
)
def test_the_cursor_never_leaves_the_recording_and_waits_are_sound(steps, actions):
    starts = np.cumsum([gap for gap, _ in steps]).tolist()
    head = head_of(starts, [count for _, count in steps])
    now = 0.0
    for gap, action in actions:
        now += gap
        before = head.position
        assert 0 <= head.advance(now) <= head.end
        if head.loop is None:
            assert head.position >= before
        if action == "p":
            head.play(now) if not head.playing else head.pause()
        elif action == "s":
            head.seek(int(gap * 10), now)
        elif action == "t":
            head.set_speed(gap + 0.3, now)
        elif action == "f":
            head.loop = (0, head.end) if head.loop is None else None
        else:
            head.seek(head.steps_away(-1), now)
        wait = head.wait(now)
        assert wait is None or 0 <= wait <= 8.1
        assert (wait is None) <= (not head.playing or head.at_end)
