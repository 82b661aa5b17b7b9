"""Runs without a screen, in processes that are interrupted, killed or out of disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from moetui import open_trace
from moetui.engine.models import LoadRequest
from moetui.routing import ModelError, UsageError
from moetui.routing.events import (
    BranchAdded,
    BreakpointHit,
    Event,
    GenerationSettings,
    InterventionsChanged,
    RecordingChanged,
    RunState,
    RunStateChanged,
)
from moetui.routing.interventions import ForceExperts
from moetui.session.headless import run_headless
from moetui.session.live import LiveSession
from moetui.session.options import LiveOptions
from tests.busy import takes_less
from tests.session.live_sessions import Make

PROMPT = "some words to begin with"
OPTIONS = LiveOptions(LoadRequest("random:mixtral"), PROMPT, settings=GenerationSettings(max_new_tokens=12))

_CHILD = """
import os
import signal
import sys
from pathlib import Path
from moetui.cli.interrupts import interruptible
from moetui.engine.models import LoadRequest
from moetui.routing.events import GenerationSettings, StepCaptured
from moetui.session.headless import run_headless
from moetui.session.live import LiveSession
from moetui.session.options import LiveOptions
{program}
"""


def options(path: Path | None = None, **changes: object) -> LiveOptions:
    from dataclasses import replace

    return replace(OPTIONS, record=path, **changes)  # type: ignore[arg-type]


def child(program: str, **arguments: object) -> subprocess.Popen[str]:
    code = _CHILD.format(program=program.format(**arguments))
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    return process.returncode, errors


class TestRuns:
    def test_what_comes_back(self) -> None:
        told: list[Event] = []
        run = run_headless(options(), on_event=told.append)
        assert run.info.architecture == "MixtralForCausalLM"
        assert run.text.startswith(PROMPT)
        assert run.reason == "12 tokens"
        assert run.problem == ""
        assert [each.state for each in told if isinstance(each, RunStateChanged)][-1] is RunState.FINISHED

    def test_the_trace_holds_the_run(self, tmp_path: Path) -> None:
        path = tmp_path / "run.msgpack"
        run = run_headless(options(path, interventions=(ForceExperts((1, 4)),)))
        trace = open_trace(path)
        assert trace.complete
        assert trace.prompt == PROMPT
        assert trace.settings.max_new_tokens == 12
        assert trace.timeline.end == run.view.end
        live, stored = (view.routing(0, run.view.end) for view in (run.view, trace.timeline))
        assert (live.indices == stored.indices).all()
        assert np.array_equal(live.logits, stored.logits, equal_nan=True)
        events = [each.event for each in trace.events]
        assert [each.branch.prompt for each in events if isinstance(each, BranchAdded)] == [PROMPT]
        assert events.index(next(each for each in events if isinstance(each, InterventionsChanged))) == 0
        states = [each.state for each in events if isinstance(each, RunStateChanged)]
        assert states == [RunState.RUNNING, RunState.FINISHED]
        trace.close()

    def test_preparing_the_session(self) -> None:
        def prepare(session: LiveSession) -> None:
            session.set_interventions([ForceExperts((3, 6))])

        run = run_headless(options(), prepare=prepare)
        assert set(np.unique(run.view.routing(0, run.view.end).indices)) == {3, 6}

        def play(session: LiveSession) -> None:
            session.generate("by itself", GenerationSettings(max_new_tokens=3))

        run = run_headless(options(prompt=""), prepare=play)
        assert run.text.startswith("by itself")

    def test_steps_that_were_lost_are_a_problem(self) -> None:
        def lose(session: LiveSession) -> None:
            debugger = session._worker.debugger
            assert debugger is not None
            debugger.capture._lost(3, ValueError("strange shapes"))

        assert run_headless(options(), prepare=lose).problem == "step 3 was not recorded: ValueError: strange shapes"

    def test_breakpoints_are_told_and_passed(self) -> None:
        told: list[Event] = []
        run = run_headless(
            options(), on_event=told.append, prepare=lambda session: session.add_breakpoint("phase:decode")
        )
        assert run.reason == "12 tokens"
        assert len([event for event in told if isinstance(event, BreakpointHit)]) == 11

    def test_failures_are_raised(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="the prompt is empty"):
            run_headless(options(prompt=""))
        with pytest.raises(ModelError, match="no such model"):
            run_headless(options(load=LoadRequest("mixtrl")))
        with pytest.raises(UsageError, match="no expert 8"):
            run_headless(options(interventions=(ForceExperts((8,)),)))
        path = tmp_path / "there.msgpack"
        path.write_bytes(b"precious")
        with pytest.raises(UsageError, match="exists already"):
            run_headless(options(path))
        assert path.read_bytes() == b"precious"
        assert run_headless(options(path, force=True)).problem == ""


class TestFullDisk:
    def test_the_run_goes_on_and_says_so(self, live: Make, tmp_path: Path) -> None:
        path = tmp_path / "run.msgpack"
        session = live(PROMPT, record=path)
        before = len(session.ids())
        with small_files(path.stat().st_size + 4096):
            session.generate(PROMPT, GenerationSettings(max_new_tokens=200, temperature=9.0, seed=1))
            session.settle()
        assert session.state is RunState.FINISHED
        assert len(session.ids()) > 100
        told = session.log.of(RecordingChanged)[-1]
        assert told.problem
        assert session.recording[1] == told.problem
        trace = open_trace(path)
        assert not trace.complete
        assert before <= trace.timeline.end < before + len(session.ids())
        trace.close()


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Within it no file of this process may grow past ``limit`` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


_RECORD = """
come, signalled = os.pipe()
os.set_blocking(signalled, False)
signal.set_wakeup_fd(signalled)
waited = []
def told(event):
    if isinstance(event, StepCaptured) and event.end > 40 and not waited:
        waited.append(True)
        print("on its way", flush=True)
        # In the recorder's thread, and its queue is shorter than the run: that is not over before the signal comes.
        os.read(come, 1)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
try:
    load, settings = LoadRequest("random:mixtral"), GenerationSettings(max_new_tokens=480)
    with interruptible():
        run_headless(LiveOptions(load, "some words", settings=settings, record=Path({path!r})), on_event=told)
except KeyboardInterrupt as error:
    sys.exit(128 + (error.args[0] if error.args else signal.SIGINT))
"""


class TestProcesses:
    def test_interrupted(self, tmp_path: Path) -> None:
        path = tmp_path / "run.msgpack"
        process = child(_RECORD, path=str(path))
        assert process.stdout is not None
        assert process.stdout.readline() == "on its way\n"
        process.send_signal(signal.SIGHUP)
        status, errors = finish(process)
        assert (status, errors) == (128 + signal.SIGHUP, "")
        trace = open_trace(path)
        assert trace.complete, "everything that was captured is there"
        assert 40 < trace.timeline.end < 480
        trace.close()

    @pytest.mark.parametrize(
        "when",
        [
            "pass",
            "import time; time.sleep(0.7)",
            "session.wait(200); session.generate('some words', GenerationSettings(max_new_tokens=480))",
        ],
        ids=["at once", "while torch is imported", "running"],
    )
    def test_leaving_at_any_time_is_quick_and_clean(self, when: str) -> None:
        program = """
import time
session = LiveSession(LiveOptions(LoadRequest("random:mixtral")))
assert "torch" not in sys.modules
session.open()
{when}
began = time.monotonic()
session.close()
print(time.monotonic() - began, file=sys.stderr)
"""

        def attempt() -> float:
            status, errors = finish(child(program, when=when))
            assert status == 0, errors
            return float(errors)  # nothing else was said

        takes_less(2.0, attempt)
