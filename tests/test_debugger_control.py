"""Run control over generation that the user's own code started."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from moetui import MoEDebugger
from moetui.debugger import RunStoppedError
from moetui.engine.zoo import BuiltModel, build
from moetui.routing import UsageError
from moetui.routing.interventions import ForceExperts
from moetui.session.live import LiveSession
from moetui.trace import open_trace
from tests.engine.watched import onto

PATIENCE = 60.0
PROMPT, NEW = 9, 6


@pytest.fixture(scope="module")
def built() -> BuiltModel:
    return build("mixtral")


class Own:
    """``model.generate`` in a thread of the user's own."""

    def __init__(self, built: BuiltModel, **options: Any) -> None:
        self._options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, **options}
        self.out: Any = None
        self.error: BaseException | None = None
        self._built = built
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            inputs = self._built.inputs(length=PROMPT)
            self.out = self._built.model.generate(**inputs, **self._options)
        except BaseException as error:  # noqa: BLE001 - what ends it is what is looked at
            self.error = error

    def join(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.out


@pytest.fixture
def debugger(built: BuiltModel) -> Iterator[MoEDebugger]:
    with MoEDebugger(built.model) as debugger:
        yield debugger


def tokens(debugger: MoEDebugger) -> int:
    return debugger.timeline.snapshot().end


def test_it_is_paused_stepped_and_goes_on_unchanged(built: BuiltModel, debugger: MoEDebugger) -> None:
    plain = Own(built).join()
    debugger.clear_buffer()
    before = tokens(debugger)
    debugger.control.pause()
    own = Own(built)
    assert debugger.control.wait(PATIENCE)
    assert debugger.control.reason == "on request"
    assert tokens(debugger) == before
    debugger.control.step()
    assert debugger.control.wait(PATIENCE)
    assert tokens(debugger) == before + PROMPT
    debugger.control.step(2)
    assert debugger.control.wait(PATIENCE)
    assert (tokens(debugger), debugger.control.reason) == (before + PROMPT + 2, "stepped")
    debugger.control.step()
    debugger.control.step()  # while the model is still at the first
    debugger.control.step_layer()
    assert debugger.control.wait(PATIENCE)
    assert (tokens(debugger), debugger.control.reason) == (before + PROMPT + 4, f"before L0 · position {PROMPT + 4}")
    for site in ("L1", "L2"):
        debugger.control.step_layer()
        assert debugger.control.wait(PATIENCE)
        assert debugger.control.reason == f"before {site} · position {PROMPT + 4}"
    debugger.control.resume()
    assert torch.equal(own.join(), plain)
    assert not debugger.control.paused


def test_all_before_a_pause_is_in_the_recording_while_it_lasts(
    built: BuiltModel, debugger: MoEDebugger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moetui.debugger.recording._OLDEST", math.inf)  # no clock writes it sooner or later
    debugger.record(tmp_path / "own.msgpack")
    debugger.control.pause()
    own = Own(built)
    assert debugger.control.wait(PATIENCE)
    debugger.control.step(3)
    assert debugger.control.wait(PATIENCE)
    with open_trace(tmp_path / "own.msgpack") as trace:
        end = time.monotonic() + PATIENCE
        while trace.num_tokens < PROMPT + 2 and time.monotonic() < end:
            time.sleep(0.01)
            trace.refresh()
        assert trace.num_tokens == PROMPT + 2
    debugger.control.resume()
    own.join()


@pytest.mark.parametrize("cached", [True, False])
def test_it_is_sent_to_a_token(built: BuiltModel, debugger: MoEDebugger, cached: bool) -> None:
    debugger.control.run_to(PROMPT + 2)
    own = Own(built, use_cache=cached)
    assert debugger.control.wait(PATIENCE)
    assert debugger.control.reason == f"before position {PROMPT + 2}"
    view = debugger.timeline.snapshot()
    assert int(view.tokens(view.end - 1, view.end).position[0]) == PROMPT + 1
    debugger.control.run_to(PROMPT + 4)
    assert debugger.control.wait(PATIENCE)
    assert debugger.control.reason == f"before position {PROMPT + 4}"
    debugger.control.resume()
    assert own.join() is not None
    with pytest.raises(UsageError, match="no position -1"):
        debugger.control.run_to(-1)


def test_it_goes_on_past_breakpoints_until_something_is_commanded(built: BuiltModel, debugger: MoEDebugger) -> None:
    point = debugger.breakpoints.add("phase:decode")
    debugger.breakpoints.on_hit = debugger.control.at_breakpoint
    own = Own(built)
    assert debugger.control.wait(PATIENCE)
    debugger.control.finish()
    own.join()
    assert own.error is None
    assert next(each for each in debugger.breakpoints if each.id == point.id).hits == NEW - 1
    debugger.control.pause()
    again = Own(built)
    assert debugger.control.wait(PATIENCE), "a pause is heeded again"
    debugger.control.resume()
    assert debugger.control.wait(PATIENCE), "and so are breakpoints"
    debugger.control.finish()
    again.join()
    debugger.breakpoints.clear()


def test_what_is_changed_at_a_pause_holds_from_there(built: BuiltModel, debugger: MoEDebugger) -> None:
    debugger.breakpoints.add("position == 11 and layer == 1")
    debugger.breakpoints.on_hit = debugger.control.at_breakpoint
    own = Own(built)
    assert debugger.control.wait(PATIENCE)
    assert debugger.control.reason == "position == 11 and layer == 1   position = 11, layer = 1   (token 11, hit 1)"
    debugger.interventions.set([ForceExperts((1,))])
    debugger.control.resume()
    own.join()
    view = debugger.timeline.snapshot()
    first = view.routing(0, view.end).indices[:, 0, 0].tolist()
    assert set(first[12:]) == {1}
    debugger.interventions.clear()


def test_stopping_ends_the_call_and_nothing_else(built: BuiltModel, debugger: MoEDebugger) -> None:
    debugger.control.pause()
    own = Own(built)
    assert debugger.control.wait(PATIENCE)
    debugger.control.stop()
    own.join()
    assert isinstance(own.error, RunStoppedError)
    again = Own(built)
    again.join()
    assert again.error is None
    assert not debugger.control.paused


@pytest.mark.parametrize("sampled", [False, True])
def test_a_call_begins_once_more_and_its_caller_sees_one(
    built: BuiltModel, debugger: MoEDebugger, sampled: bool
) -> None:
    torch.manual_seed(3)
    plain = Own(built, do_sample=sampled).join()
    held = tokens(debugger)
    torch.manual_seed(3)
    debugger.control.pause()
    own = Own(built, do_sample=sampled)
    assert debugger.control.wait(PATIENCE)
    debugger.control.run_to(PROMPT + 2)
    assert debugger.control.wait(PATIENCE)
    debugger.control.restart()
    assert torch.equal(own.join(), plain)
    assert own.error is None
    assert tokens(debugger) == held + PROMPT + 2 + PROMPT + NEW - 1
    view = debugger.timeline.snapshot()
    assert view.tokens(held + PROMPT + 2, view.end).position.tolist() == list(range(PROMPT + NEW - 1))


def test_what_cannot_begin_once_more_is_refused(built: BuiltModel, debugger: MoEDebugger) -> None:
    with pytest.raises(UsageError, match="no call of generate is under way"):
        debugger.control.restart()
    debugger.control.pause()
    own = Own(built, **onto(built.model, DynamicCache()))
    assert debugger.control.wait(PATIENCE)
    with pytest.raises(UsageError, match="was given a cache"):
        debugger.control.restart()
    debugger.control.resume()
    assert own.join() is not None


def test_the_models_generate_is_its_own_again_behind_the_debugger(built: BuiltModel) -> None:
    before = inspect.signature(built.model.generate)
    with MoEDebugger(built.model):
        assert inspect.signature(built.model.generate) == before
        twin = copy.deepcopy(built.model)
        assert twin.generate.__self__ is twin
        twin = pickle.loads(pickle.dumps(built.model))
        assert twin.generate.__self__ is twin
        assert built.model.generate.__doc__ == type(built.model).generate.__doc__
    assert "generate" not in vars(built.model)


def test_closing_lets_a_paused_model_go_on(built: BuiltModel) -> None:
    with MoEDebugger(built.model) as debugger:
        debugger.control.pause()
        own = Own(built)
        assert debugger.control.wait(PATIENCE)
    assert own.join() is not None
    assert own.error is None
    assert debugger.capture.before_step is None


def test_a_sessions_run_is_commanded_there(built: BuiltModel) -> None:
    debugger = MoEDebugger(built.model)
    session = LiveSession.on(debugger)
    session.open()
    assert session.wait(PATIENCE)
    with pytest.raises(UsageError, match="a session runs this model"):
        debugger.control.pause()
    session.close()
    debugger.control.pause()
    debugger.control.release()
