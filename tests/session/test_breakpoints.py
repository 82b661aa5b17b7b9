"""Breakpoints and log points on live runs."""

from __future__ import annotations

from typing import Any

import pytest

from moetui import open_trace
from moetui.routing import QueryError, UnsupportedError, UsageError
from moetui.routing.events import BreakpointHit, GenerationSettings, RunState
from moetui.routing.interventions import ForceExperts, Scope
from moetui.session import Breakable
from tests.session.live_sessions import Live, Make

PROMPT = "some words to begin with"


def hits(session: Live) -> list[BreakpointHit]:
    return session.log.of(BreakpointHit)


def prompt_length(session: Live) -> int:
    return int(session.timeline.snapshot().steps().num_tokens[0])


class TestStopping:
    def test_the_run_stands_right_behind_the_token(self, live: Make) -> None:
        session = live()
        assert isinstance(session, Breakable)
        session.add_breakpoint("position == 27")
        session.generate(PROMPT)
        session.log.wait_state(RunState.PAUSED)
        view = session.timeline.snapshot()
        assert int(view.tokens(0, view.end).position[-1]) == 27
        (hit,) = hits(session)
        assert (hit.token, hit.hits, hit.log_only) == (view.end - 1, 1, False)
        assert session.reason == "position == 27   position = 27   (token 27, hit 1)"
        assert session.hit == hit
        session.resume()
        session.settle()
        assert len(hits(session)) == 1
        assert session.state is RunState.FINISHED
        assert session.hit is None

    def test_it_stops_at_every_token_that_hits(self, live: Make) -> None:
        session = live()
        session.add_breakpoint("phase:decode layer:2")
        session.generate(PROMPT, GenerationSettings(max_new_tokens=4))
        for number in range(1, 4):
            session.log.wait(lambda _, number=number: len(hits(session)) == number)
            session.log.wait_state(RunState.PAUSED, number)
            session.resume()
        session.settle()
        assert [hit.site for hit in hits(session)] == [2, 2, 2]
        assert session.breakpoints[0].hits == 3
        assert session.log.states().count(RunState.PAUSED) == 3, "behind the last token too"
        assert session.state is RunState.FINISHED

    def test_finish_passes_them_and_counts(self, live: Make) -> None:
        session = live()
        session.add_breakpoint("phase:decode")
        session.generate(PROMPT)
        session.log.wait_state(RunState.PAUSED)
        session.finish()
        session.settle()
        assert session.state is RunState.FINISHED
        assert session.breakpoints[0].hits == 11

    def test_ignored_temporary_and_logged_hits(self, live: Make) -> None:
        session = live()
        late = session.add_breakpoint("phase:decode", ignore=4)
        once = session.add_breakpoint("position >= 30", temporary=True)
        logged = session.add_breakpoint("position > 31", log_only=True)
        session.generate(PROMPT)
        session.log.wait_state(RunState.PAUSED)
        assert [(hit.breakpoint, hit.hits) for hit in hits(session)] == [(late.id, 5)]
        session.remove_breakpoint(late.id)
        session.resume()
        session.log.wait_state(RunState.PAUSED, 2)
        assert hits(session)[-1].breakpoint == once.id
        assert [point.id for point in session.breakpoints] == [logged.id]
        session.resume()
        session.settle()
        tail = hits(session)[2:]
        assert {hit.breakpoint for hit in tail} == {logged.id}
        assert [hit.hits for hit in tail] == list(range(1, len(tail) + 1))
        assert tail[0].token == 32
        assert session.log.states().count(RunState.PAUSED) == 2

    def test_switched_off(self, live: Make) -> None:
        session = live()
        point = session.add_breakpoint("phase:decode")
        session.change_breakpoint(point.id, enabled=False)
        session.generate(PROMPT)
        session.settle()
        assert session.state is RunState.FINISHED
        assert hits(session) == []

    def test_changed_between_two_hits_it_keeps_its_number_and_its_count(self, live: Make) -> None:
        session = live()
        first = session.add_breakpoint("phase:decode")
        other = session.add_breakpoint("entropy < -1")
        session.generate(PROMPT)
        session.log.wait_state(RunState.PAUSED)
        changed = session.change_breakpoint(first.id, expression="position >= 30", ignore=2)
        assert (changed.id, changed.hits, changed.ignore) == (first.id, 1, 2)
        session.resume()
        session.log.wait_state(RunState.PAUSED, 2)
        last = hits(session)[-1]
        assert (last.breakpoint, last.expression, last.token, last.hits) == (first.id, "position >= 30", 32, 4)
        assert [point.id for point in session.breakpoints] == [first.id, other.id]
        session.change_breakpoint(first.id, log_only=True)
        session.resume()
        session.settle()
        assert session.log.states().count(RunState.PAUSED) == 2
        assert session.breakpoints[0].hits == 4 + len(hits(session)[2:]) > 4

    def test_a_prompt_hits_once_and_counts_all(self, live: Make) -> None:
        session = live()
        session.add_breakpoint("phase:prefill")
        session.generate(PROMPT)
        session.log.wait_state(RunState.PAUSED)
        assert len(hits(session)) == 1
        assert session.breakpoints[0].hits == prompt_length(session)
        session.stop()
        session.settle()

    def test_tokens_of_earlier_runs_are_not_looked_at(self, live: Make) -> None:
        session = live(PROMPT)
        session.add_breakpoint("position < 3", log_only=True)
        session.generate(PROMPT)
        session.settle()
        assert [hit.token for hit in hits(session)] == [35, 36, 37]

    def test_the_recording_has_them(self, live: Make, tmp_path: Any) -> None:
        session = live(record=tmp_path / "run.msgpack")
        session.add_breakpoint("position == 27")
        session.generate(PROMPT)
        session.log.wait_state(RunState.PAUSED)
        session.resume()
        session.settle()
        session.close()
        trace = open_trace(tmp_path / "run.msgpack")
        found = [each.event for each in trace.events if isinstance(each.event, BreakpointHit)]
        assert [(hit.token, hit.expression) for hit in found] == [(27, "position == 27")]
        trace.close()


class TestBranches:
    def test_a_fork_stops_where_its_routing_parts_from_its_parent(self, live: Make) -> None:
        session = live(PROMPT)
        session.add_breakpoint("flip vs 'run 0'")
        session.fork(27)
        session.settle()
        assert session.state is RunState.FINISHED, "nothing was changed"
        session.rewind(27)
        session.set_interventions([ForceExperts((6, 7), Scope(layers=(2,)))])
        session.resume()
        session.settle()
        assert session.state is RunState.PAUSED
        (hit,) = hits(session)
        assert hit.site >= 2
        assert "experts 6, 7 here" in hit.values or hit.site == 3
        view = session.timeline.snapshot()
        assert hit.token == view.end - 1
        assert int(view.tokens(hit.token, view.end).branch[0]) == 2

    def test_a_run_is_taken_back_from_behind_its_last_token(self, live: Make) -> None:
        session = live()
        point = session.add_breakpoint("position == 33")
        session.generate(PROMPT, GenerationSettings(max_new_tokens=12))
        session.settle()
        assert session.state is RunState.PAUSED, "behind the last token of the run"
        last = session.timeline.snapshot().end - 1
        session.remove_breakpoint(point.id)
        again = session.add_breakpoint(f"position == {last}")
        session.finish()
        session.settle()
        session.rewind(last - 2)
        session.resume()
        session.settle()
        assert session.state is RunState.PAUSED
        assert session.reason.startswith(again.expression)
        session.rewind(last - 1)
        session.settle()
        session.finish()
        session.settle()
        assert session.state is RunState.FINISHED
        assert session.ids(2) == session.ids(0)[last - 1 :]
        assert session.breakpoints[0].hits == 2


class TestWrongs:
    def test_expressions(self, live: Make) -> None:
        session = live()
        with pytest.raises(QueryError):
            session.add_breakpoint("entropi < 0.3")
        with pytest.raises(UsageError, match="needs a condition"):
            session.add_breakpoint("  ")
        for change in (lambda: session.change_breakpoint(9, enabled=True), lambda: session.remove_breakpoint(9)):
            with pytest.raises(UsageError, match="no breakpoint 9"):
                change()
        first = session.add_breakpoint("layer:1")
        session.remove_breakpoint(first.id)
        assert session.add_breakpoint("layer:1").id == 2, "numbers are never used twice"

    def test_logits_that_are_not_captured(self, live: Make) -> None:
        session = live(logits=False)
        with pytest.raises(UnsupportedError, match="router logits"):
            session.add_breakpoint("entropy < 0.3")
        assert session.add_breakpoint("expert:3").enabled
