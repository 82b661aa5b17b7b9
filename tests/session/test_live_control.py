"""Run control of a live session: pause, step, stop, restart, in every order."""

from __future__ import annotations

import math
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from moetui.routing import NO_EXPERT, UnsupportedError, UsageError
from moetui.routing.events import (
    BranchAdded,
    GenerationSettings,
    InterventionsChanged,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.routing.interventions import ForceExperts
from moetui.session import Capability, Session
from moetui.trace import open_trace
from tests.session.live_sessions import LONG, PATIENCE, PROMPT, Make, begin_paused, held_forward, reference


class TestControl:
    def test_steps_are_tokens(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        assert session.timeline.snapshot().end == 0
        session.step()
        session.log.wait_state(RunState.PAUSED, 2)
        session.flush()
        prompt = session.timeline.snapshot().end
        assert prompt > 1, "the first step is the prompt"
        for number, count in enumerate((1, 3), start=3):
            session.step(count)
            session.log.wait_state(RunState.PAUSED, number)
        session.flush()
        assert session.timeline.snapshot().end == prompt + 4
        session.finish()
        session.settle()
        ids = session.ids()
        assert ids == reference(tuple(ids[:prompt]), 12)[:-1], "stepping changes nothing"

    def test_layers_are_stepped_within_a_token(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        session.step()
        session.log.wait_state(RunState.PAUSED, 2)
        reasons = []
        for number in range(3, 9):
            session.step_layer()
            session.log.wait_state(RunState.PAUSED, number)
            reasons.append(session.reason)
        session.step()
        session.log.wait_state(RunState.PAUSED, 9)
        assert session.reason == "stepped"
        session.resume()
        session.settle()
        prompt = int(session.timeline.snapshot().steps().num_tokens[0])
        tokens = [prompt] * 4 + [prompt + 1] * 2
        assert reasons == [f"before L{layer} · token {token}" for layer, token in zip((0, 1, 2, 3, 0, 1), tokens)]
        assert len(session.ids()) == len(set(session.timeline.snapshot().tokens(0, 999).position.tolist()))

    def test_a_step_that_stands_within_shows_its_routing_so_far(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        assert session.underway is None
        session.step()
        session.log.wait_state(RunState.PAUSED, 2)
        seen = []
        for number in range(3, 6):
            session.step_layer()
            session.log.wait_state(RunState.PAUSED, number)
            seen.append(session.underway)
        forced = [ForceExperts((6, 7))]
        session.set_interventions(forced)
        session.log.wait(lambda _: bool(session.log.of(InterventionsChanged)))
        session.step_layer()
        session.log.wait_state(RunState.PAUSED, 6)
        last = session.underway
        session.resume()
        session.settle()
        assert session.underway is None
        prompt = int(session.timeline.snapshot().steps().num_tokens[0])
        ran = session.timeline.snapshot().routing(prompt, prompt + 1)
        for site, underway in enumerate((*seen, last)):
            assert (underway.site, underway.first, underway.view.end) == (site, prompt, 1)
            shown = underway.view.routing(0, 1)
            assert (shown.indices[0, site + 1 :] == NO_EXPERT).all()
            passed = slice(0, min(site + 1, 2))  # from the third on, what ran is not what the router gave
            np.testing.assert_array_equal(shown.indices[0, passed], ran.indices[0, passed])
            np.testing.assert_array_equal(shown.logits[0, : site + 1], ran.logits[0, : site + 1])
        assert sorted(last.view.routing(0, 1).indices[0, 2].tolist()) == [6, 7]
        assert last.view.routing(0, 1).flags[0].tolist() == [*ran.flags[0, :3].tolist(), 0]
        assert last.view.tokens(0, 1).token_id[0] == session.ids()[prompt]

    def test_steps_asked_for_in_a_burst_are_done_one_by_one_and_in_order(self, live: Make) -> None:
        session = live(PROMPT, n=LONG, paused=True)
        session.log.wait_state(RunState.PAUSED)
        with held_forward(session) as hangs:
            session.step()
            assert hangs.wait(PATIENCE)
            for _ in range(4):
                session.step()
            for _ in range(3):
                session.step_layer()
        session.settle()
        assert session.reason.startswith("before L2 · token ")
        session.step()
        session.settle()
        assert (session.reason, len(session.timeline.snapshot().steps().index)) == ("stepped", 6)

    def test_what_is_left_of_a_burst_of_steps_ends_at_a_breakpoint_and_with_the_run(self, live: Make) -> None:
        session = live(PROMPT, n=6, paused=True)
        session.log.wait_state(RunState.PAUSED)
        session.add_breakpoint("step:2")
        with held_forward(session) as hangs:
            session.step()
            assert hangs.wait(PATIENCE)
            for _ in range(20):
                session.step()
        session.settle()
        assert session.hit is not None
        assert len(session.timeline.snapshot().steps().index) == 3
        session.step()
        session.settle()
        assert (session.reason, len(session.timeline.snapshot().steps().index)) == ("stepped", 4)
        with held_forward(session) as hangs:
            session.step()
            assert hangs.wait(PATIENCE)
            for _ in range(20):
                session.step()
        session.settle()
        assert session.state is RunState.FINISHED
        begin_paused(session, lambda: session.generate(PROMPT))
        assert session.reason == "on request"

    def test_time_between_layers_is_not_the_models(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        began = time.monotonic()
        session.step_layer()
        session.log.wait_state(RunState.PAUSED, 2)
        assert not threading.Event().wait(0.4)
        session.resume()
        session.settle()
        took = time.monotonic() - began
        steps = session.timeline.snapshot().steps()
        assert steps.duration[0] <= (took - 0.4) * 1e3
        assert np.nanmax(steps.site_ms[0]) <= steps.duration[0]
        assert (np.diff(steps.site_ms[0]) > 0).all()

    def test_an_intervention_between_layers_holds_from_there(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        for number in range(2, 5):
            session.step_layer()
            session.log.wait_state(RunState.PAUSED, number)
        assert re.fullmatch(r"before L2 · tokens 0 to \d+", session.reason)
        session.set_interventions([ForceExperts((6, 7))])
        session.log.wait(lambda _: bool(session.log.of(InterventionsChanged)))
        session.resume()
        session.settle()
        view = session.timeline.snapshot()
        routing = view.routing(0, view.end)
        prompt = int(view.steps().num_tokens[0])
        forced = (np.sort(routing.indices, -1) == (6, 7)).all(-1)
        assert forced[:prompt].all(0).tolist() == [False, False, True, True]
        assert forced[prompt:].all()

    def test_run_to_a_token(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        session.run_to(28)
        session.log.wait_state(RunState.PAUSED, 2)
        session.flush()
        view = session.timeline.snapshot()
        assert int(view.tokens(0, view.end).position[-1]) == 27
        assert session.reason == "before position 28"

    def test_stopping(self, live: Make) -> None:
        session = live(PROMPT, n=LONG, paused=True)
        session.log.wait_state(RunState.PAUSED)
        session.step(5)
        session.log.wait_state(RunState.PAUSED, 2)
        session.flush()
        held = session.timeline.snapshot().end
        session.stop()
        session.settle()
        assert (session.state, session.reason) == (RunState.FINISHED, "stopped")
        assert session.timeline.snapshot().end == held
        session.stop()
        session.pause()
        session.resume()
        assert session.state is RunState.FINISHED

    def test_stopping_before_the_prompt_spares_it(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        session.stop()
        session.settle()
        assert session.timeline.snapshot().end == 0

    def test_stopping_a_running_run(self, live: Make) -> None:
        session = live()
        session.generate(PROMPT, GenerationSettings(max_new_tokens=LONG))
        session.log.wait(lambda _: len(session.log.of(StepCaptured)) > 3)
        session.stop()
        session.settle()
        assert len(session.ids()) < LONG

    def test_stopping_during_the_prompt_ends_after_it(self, live: Make) -> None:
        session = live()
        with held_forward(session) as hangs:
            session.generate(PROMPT, GenerationSettings(max_new_tokens=LONG))
            assert hangs.wait(PATIENCE)
            session.stop()
            assert session.state is RunState.RUNNING
        session.settle()
        assert session.timeline.snapshot().steps().index.shape == (1,)

    def test_a_pause_is_in_the_recording_while_it_lasts(
        self, live: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("moetui.debugger.recording._OLDEST", math.inf)  # no clock writes it sooner or later
        path = tmp_path / "run.msgpack"
        session = live(record=path)
        begin_paused(session, lambda: session.generate(PROMPT))
        tokens = session.timeline.snapshot().end
        assert tokens > 1
        end = time.monotonic() + PATIENCE
        with open_trace(path) as trace:
            while trace.num_tokens < tokens and time.monotonic() < end:
                assert not threading.Event().wait(0.01)
                trace.refresh()
            states = [item.event.state for item in trace.events if isinstance(item.event, RunStateChanged)]
            assert (trace.num_tokens, states[-1]) == (tokens, RunState.PAUSED)
        session.resume()
        session.settle()
        session.close(5.0)
        with open_trace(path) as trace:
            states = [item.event.state for item in trace.events if isinstance(item.event, RunStateChanged)]
            assert states == [RunState.RUNNING, RunState.PAUSED, RunState.RUNNING, RunState.FINISHED]

    def test_restart(self, live: Make) -> None:
        session = live()
        with pytest.raises(UsageError, match="nothing has run yet"):
            session.restart()
        settings = GenerationSettings(max_new_tokens=LONG, temperature=2.0, seed=1)
        begin_paused(session, lambda: session.generate(PROMPT, settings))
        session.restart()
        session.log.wait(lambda _: len(session.log.of(BranchAdded)) == 2)
        session.stop()
        session.settle()
        assert len(session.branches) == 2
        session.restart()
        session.stop()
        session.settle()
        assert len(session.branches) == 3

    def test_what_a_live_model_cannot_do(self, live: Make) -> None:
        session = live()
        for impossible in (
            lambda: session.step(-1),
            lambda: session.seek(3),
            lambda: session.set_speed(2.0),
            lambda: session.set_loop((1, 2)),
        ):
            with pytest.raises(UnsupportedError) as caught:
                impossible()
            assert caught.value.hint
        assert Capability.SEEK not in session.capabilities
        assert session.playback is None

    def test_it_is_a_session(self, live: Make) -> None:
        session: Session = live(opened=False)
        assert session.name == "random:mixtral"
        assert session.info is None
        assert session.timeline.snapshot().end == 0
        assert session.state is RunState.LOADING
