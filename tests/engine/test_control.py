"""The state machine of run control by itself, and the gate with real threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from moetui.engine.control import ON_REQUEST, Gate, RunControl, RunStoppedError
from moetui.routing.events import RunState

PATIENCE = 10.0


class GeneratingThread:
    """Generates like a model: ``steps`` steps of ``sites`` sites each, and writes down what it passed."""

    def __init__(self, gate: Gate, steps: int = 1_000_000, sites: int = 3) -> None:
        self.gate = gate
        self.passed: list[tuple[str, int, int]] = []
        self.unwound = False
        self._steps, self._sites = steps, sites
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for step in range(self._steps):
                self.gate.before_step(step)
                self.passed.append(("step", step, -1))
                for site in range(self._sites):
                    self.gate.before_site(f"L{site}")
                    self.passed.append(("site", step, site))
                self.gate.after_step()
                if self.gate.control.stopping:
                    break
        except RunStoppedError:
            self.unwound = True
        self.gate.apply(RunControl.ended)

    def join(self) -> None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


class Watcher:
    """Remembers every change, and waits for one."""

    def __init__(self) -> None:
        self.seen: list[tuple[RunState, str]] = []
        self._condition = threading.Condition()

    def __call__(self, control: RunControl) -> None:
        with self._condition:
            self.seen.append((control.state, control.reason))
            self._condition.notify_all()

    def wait_for(self, state: RunState, times: int = 1) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: sum(seen is state for seen, _ in self.seen) >= times, PATIENCE), (
                f"never {state}: {self.seen}"
            )


@pytest.fixture
def watched() -> tuple[Gate, Watcher]:
    watcher = Watcher()
    gate = Gate(watcher)
    gate.apply(RunControl.ready)
    return gate, watcher


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def steps(thread: GeneratingThread) -> int:
    return sum(kind == "step" for kind, _, _ in thread.passed)


class TestGate:
    def test_a_run_that_nobody_touches_passes(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(RunControl.started)
        thread = GeneratingThread(gate, steps=50)
        thread.join()
        assert steps(thread) == 50
        assert [state for state, _ in watcher.seen] == [RunState.READY, RunState.RUNNING, RunState.FINISHED]

    def test_steps_pass_exactly_as_many_as_asked(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(lambda control: control.started(paused=True))
        thread = GeneratingThread(gate)
        watcher.wait_for(RunState.PAUSED)
        assert thread.passed == []
        expected = 0
        for number, count in enumerate((1, 1, 3, 2), start=2):
            gate.step(count)
            expected += count
            watcher.wait_for(RunState.PAUSED, number)
            assert steps(thread) == expected
        gate.quit()
        thread.join()
        assert thread.unwound

    def test_site_steps_stop_before_each_site_and_cross_steps(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(lambda control: control.started(paused=True))
        thread = GeneratingThread(gate, sites=2)
        watcher.wait_for(RunState.PAUSED)
        stands = []
        for number in range(2, 7):
            gate.step_site()
            watcher.wait_for(RunState.PAUSED, number)
            stands.append((gate.control.reason, len(thread.passed)))
        assert stands == [("before L0", 1), ("before L1", 2), ("before L0", 4), ("before L1", 5), ("before L0", 7)]
        gate.step()
        watcher.wait_for(RunState.PAUSED, 7)
        assert thread.passed[-1] == ("site", 2, 1), "a token's step ends with the token, not in its middle"
        gate.stop()
        thread.join()

    def test_stop_while_standing_before_a_site_finishes_the_forward(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(RunControl.started)
        gate.step_site()
        thread = GeneratingThread(gate, sites=4)
        watcher.wait_for(RunState.PAUSED)
        gate.stop()
        thread.join()
        assert thread.passed == [("step", 0, -1), *(("site", 0, site) for site in range(4))]
        assert not thread.unwound

    def test_stop_before_a_step_does_not_begin_it(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(lambda control: control.started(paused=True))
        thread = GeneratingThread(gate)
        watcher.wait_for(RunState.PAUSED)
        gate.stop()
        thread.join()
        assert thread.passed == []
        assert gate.control.state is RunState.FINISHED

    def test_what_is_asked_for_while_the_run_steps_is_done_behind_it_and_in_order(
        self, watched: tuple[Gate, Watcher]
    ) -> None:
        gate, watcher = watched
        gate.apply(lambda control: control.started(paused=True))
        gate.step()  # nothing generates yet: all of this comes before the first step is done
        gate.step(2)
        for _ in range(4):
            gate.step_site()
        gate.step()
        gate.step_site()
        gate.step_site()
        thread = GeneratingThread(gate, sites=3)
        watcher.wait_for(RunState.PAUSED)
        assert (gate.control.reason, thread.passed[-1]) == ("before L1", ("site", 5, 0))
        assert [state for state, _ in watcher.seen][1:] == [RunState.RUNNING, RunState.PAUSED]
        gate.step()
        watcher.wait_for(RunState.PAUSED, 2)
        assert thread.passed[-1] == ("site", 5, 2), "nothing was left over"
        gate.quit()
        thread.join()

    def test_run_to_stops_before_the_token(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(RunControl.started)
        gate.run_to(17)
        thread = GeneratingThread(gate)
        watcher.wait_for(RunState.PAUSED)
        assert steps(thread) == 17
        assert gate.control.reason == "before position 17"
        gate.quit()
        thread.join()

    def test_work_is_done_while_paused_and_while_running(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(lambda control: control.started(paused=True))
        thread = GeneratingThread(gate)
        watcher.wait_for(RunState.PAUSED)
        for _ in range(2):
            done: list[int] = []
            finished = threading.Event()

            def work(done: list[int] = done, finished: threading.Event = finished) -> None:
                done.append(threading.get_ident())
                finished.set()

            gate.submit(work)
            assert finished.wait(PATIENCE)
            assert done == [thread.thread.ident]
            gate.resume()
        gate.stop()
        thread.join()

    def test_work_submitted_while_a_pause_is_told_of_is_done_there_though_the_run_is_released_behind_it(
        self, watched: tuple[Gate, Watcher]
    ) -> None:
        gate, _ = watched
        done: list[str] = []

        def standing(*_: str) -> None:
            gate.submit(lambda: done.append(gate.control.state.value))
            gate.step_site()

        gate.apply(lambda control: control.started(paused=True))
        assert gate.before_step(0, standing=standing)
        assert done == ["running"]
        gate.before_site("L0", standing=standing)
        assert done == ["running", "running"]

    def test_work_may_command_the_gate(self, watched: tuple[Gate, Watcher]) -> None:
        gate, _ = watched
        gate.apply(lambda control: control.started(paused=True))
        thread = GeneratingThread(gate, steps=3)
        gate.submit(gate.resume)
        thread.join()
        assert steps(thread) == 3

    def test_waiting_between_runs_ends_with_quit(self, watched: tuple[Gate, Watcher]) -> None:
        gate, _ = watched
        answers: list[bool] = []
        thread = threading.Thread(target=lambda: answers.append(gate.wait_idle()), daemon=True)
        thread.start()
        gate.quit()
        thread.join(PATIENCE)
        assert answers == [False]

    def test_time_before_sites_is_counted_and_nothing_else(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(RunControl.started)
        gate.step_site()
        thread = GeneratingThread(gate, steps=1)
        watcher.wait_for(RunState.PAUSED)
        held = threading.Event()
        held.wait(0.05)
        gate.resume()
        thread.join()
        assert 0.04 < gate.waited < PATIENCE

    def test_a_run_that_turns_unwinds_and_is_commanded_where_it_goes_on(self, watched: tuple[Gate, Watcher]) -> None:
        gate, watcher = watched
        gate.apply(lambda control: control.started(paused=True))
        thread = GeneratingThread(gate, steps=5)
        watcher.wait_for(RunState.PAUSED)
        gate.apply(lambda control: control.turn("before token 3", paused=True))
        gate.step(2)
        gate.apply(lambda control: control.turn("before token 1", paused=True))
        assert (gate.control.state, gate.control.reason) == (RunState.PAUSED, "before token 1")
        thread.join()
        assert thread.unwound
        assert thread.passed == []

    def test_work_submitted_in_a_run_that_nothing_stops_is_done_before_its_next_step(
        self, watched: tuple[Gate, Watcher]
    ) -> None:
        gate, _ = watched
        within: list[bool] = []
        gate.apply(RunControl.started)
        for position in range(3):
            gate.before_step(position)
        gate.submit(lambda: within.append(gate.control.within_step))
        assert not within
        gate.before_step(3)
        assert (within, gate.control.within_step) == ([False], True)

    def test_work_between_steps_is_outside_of_any_step(self, watched: tuple[Gate, Watcher]) -> None:
        gate, _ = watched
        within: list[bool] = []
        gate.apply(RunControl.started)
        thread = GeneratingThread(gate, steps=1)
        thread.join()
        gate.apply(RunControl.started)
        gate.submit(lambda: within.append(gate.control.within_step))
        GeneratingThread(gate, steps=2).join()
        assert within == [False]

    @pytest.mark.parametrize("seed", range(4))
    def test_commands_from_many_threads_never_deadlock(self, watched: tuple[Gate, Watcher], seed: int) -> None:
        gate, _ = watched
        gate.apply(RunControl.started)
        thread = GeneratingThread(gate)
        commands: list[Callable[[], None]] = [
            gate.pause,
            gate.resume,
            gate.step,
            gate.step_site,
            lambda: gate.run_to(10**9),
            gate.finish,
            lambda: gate.submit(lambda: None),
        ]

        def hammer(offset: int) -> None:
            for number in range(400):
                commands[(number * (offset + 2) + seed) % len(commands)]()

        hammers = [threading.Thread(target=hammer, args=(offset,), daemon=True) for offset in range(4)]
        for each in hammers:
            each.start()
        for each in hammers:
            each.join(PATIENCE)
            assert not each.is_alive()
        gate.quit()
        thread.join()


class ControlMachine(RuleBasedStateMachine):
    """Random commands against a model of what must hold, with a generating thread that is played by hand."""

    @initialize()
    def begin(self) -> None:
        self.control = RunControl()
        self.position = 0
        self.allowed: int | None = None  # steps that may pass before a pause must have come

    @rule()
    def load(self) -> None:
        if self.control.state is RunState.LOADING:
            self.control = self.control.ready()

    @rule(paused=st.booleans())
    def start(self, paused: bool) -> None:
        if self.control.idle:
            self.control = self.control.started(paused=paused)
            self.position = 0
            self.allowed = 0 if paused else None

    @rule()
    def pause(self) -> None:
        before = self.control
        self.control = before.pause()
        if before.state is RunState.RUNNING and not before.stopping:
            self.allowed = 0

    @rule(count=st.integers(-2, 4))
    def step(self, count: int) -> None:
        before = self.control
        self.control = before.step(count)
        if count < 1 or not before.active or before.stopping:
            assert self.control == before
        elif self.control.queued:
            assert self.control == replace(before, queued=(*before.queued, count))
            self.allowed = None if self.allowed is None else self.allowed + count
        else:
            rest = before.state is RunState.PAUSED and before.within_step
            self.allowed = count - rest

    @rule()
    def resume(self) -> None:
        self.control = self.control.resume()
        self.allowed = None

    @rule()
    def finish(self) -> None:
        self.control = self.control.finish()
        self.allowed = None
        if self.control.active:
            assert self.control.at_step(self.position, "a breakpoint") == self.control

    @rule(ahead=st.integers(0, 5))
    def run_to(self, ahead: int) -> None:
        self.control = self.control.run_to(self.position + ahead)
        self.allowed = ahead if self.control.active else self.allowed

    @rule()
    def step_site(self) -> None:
        self.control = self.control.step_site()
        self.allowed = None

    @rule()
    def stop(self) -> None:
        before = self.control
        self.control = before.stop()
        assert before.stop() == self.control
        assert not self.control.blocks

    @rule(paused=st.booleans())
    def turn(self, paused: bool) -> None:
        before = self.control
        self.control = before.turn("elsewhere", paused=paused)
        if before.stopping or not (before.active or before.idle):
            assert self.control == before
            return
        assert self.control.turning == before.active, "there is nothing to leave between runs"
        assert self.control.unwinds == before.active
        assert self.control.state is (RunState.PAUSED if paused else RunState.RUNNING)
        self.position, self.allowed = 0, None

    @precondition(lambda self: self.control.active and not self.control.within_step)
    @rule()
    def meet_step(self) -> None:
        self.control = self.control.at_step(self.position)
        if self.control.turning:
            self.control = self.control.arrived()
        elif self.control.unwinds:
            self.control = self.control.ended()
        elif not self.control.blocks:
            assert self.allowed is None or self.allowed > 0, "a step passed that had to wait"
            self.control = self.control.pass_step()
            self.position += 1
            self.allowed = None if self.allowed is None else self.allowed - 1

    @precondition(lambda self: self.control.active and self.control.within_step and not self.control.blocks)
    @rule()
    def meet_site(self) -> None:
        before = self.control
        self.control = before.at_site("L0")
        if before.to_site and before.queued:
            assert not self.control.blocks
            assert self.control.queued == before.queued[1:]
        else:
            assert self.control.blocks == before.to_site

    @precondition(lambda self: self.control.active and self.control.within_step and not self.control.blocks)
    @rule()
    def end_step(self) -> None:
        self.control = self.control.end_step()
        if self.control.stopping:
            self.control = self.control.ended()

    @precondition(lambda self: self.control.loaded)
    @rule()
    def fail(self) -> None:
        self.control = self.control.failed("it broke", "mend it")
        assert self.control.idle, "a failed run must not keep the next one from starting"

    @invariant()
    def coherent(self) -> None:
        control = self.control
        assert control.active == (control.state in (RunState.RUNNING, RunState.PAUSED))
        assert not (control.idle and control.active)
        if control.state is RunState.PAUSED:
            assert control.reason
            assert (control.steps_left, control.to_site, control.target, control.queued) == (None, False, None, ())
            assert not control.quit().blocks
            assert control.resume().state is RunState.RUNNING
        if control.state is RunState.LOADING:
            assert control.pause() == control.step() == control.resume() == control.stop() == control


ControlMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestControlMachine = ControlMachine.TestCase


def test_reasons_say_who_paused() -> None:
    running = RunControl().ready().started()
    assert running.pause().at_step(3).reason == ON_REQUEST
    assert running.at_step(3, "entropy < 0.3").reason == "entropy < 0.3"
    assert running.step(1).pass_step().end_step().at_step(4).reason == "stepped"


@pytest.mark.parametrize(
    "end",
    [
        lambda control: control.at_step(3, "entropy < 0.3"),
        lambda control: control.pause().at_step(3),
        lambda control: control.run_to(3).at_step(3),
        lambda control: control.turn("before token 3", paused=True),
        lambda control: control.ended().started(paused=True).at_step(0),
        lambda control: control.failed("it broke").started(paused=True).at_step(0),
    ],
)
@pytest.mark.parametrize("first", [RunControl.step, RunControl.step_site])
def test_what_stops_a_run_ends_what_is_queued(
    first: Callable[[RunControl], RunControl], end: Callable[[RunControl], RunControl]
) -> None:
    stepping = first(RunControl().ready().started()).step(5).step_site().pass_step().end_step()
    assert stepping.queued == (5, 0)
    stopped = end(stepping)
    assert (stopped.state, stopped.queued) == (RunState.PAUSED, ())
    assert stopped.step().steps_left == 1


def test_a_step_asked_for_while_the_run_goes_on_freely_pauses_it() -> None:
    running = RunControl().ready().started()
    assert (running.step().steps_left, running.finish().step_site().queued) == (1, ())
    assert running.pause().step(2).steps_left == 2, "the pause was seen to by then"


def test_a_failed_load_cannot_run() -> None:
    assert not RunControl().failed("no such model").idle
