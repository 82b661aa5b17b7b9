"""How often a session makes steps of a run's passes: as often as somebody looks, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from moetui.debugger import MoEDebugger
from moetui.engine.options import LINGER
from moetui.engine.zoo import build
from moetui.routing.events import RunState, StepCaptured
from moetui.session import Paced
from moetui.session.watch import Watch
from tests.session.live_sessions import PROMPT, Make

HELD = 0.95  # s; what is recorded is safe by then


@pytest.fixture
def debugger() -> Iterator[MoEDebugger]:
    with MoEDebugger(build("mixtral").model) as made:
        yield made


def watch(debugger: MoEDebugger, linger: float | None = 0.2) -> Watch:
    return Watch(debugger, lambda _: None, [], linger)


def late(monkeypatch: pytest.MonkeyPatch, debugger: MoEDebugger) -> None:
    """Steps come when a run has gone on for long."""
    monkeypatch.setattr("moetui.session.watch.perf_counter", lambda: 1e9)
    debugger.capture.model(input_ids=torch.tensor([[5, 6, 7]]))
    debugger.flush()


@pytest.mark.parametrize(("every", "linger"), [(0.4, 0.4), (60.0, LINGER), (0.0, 0.03)])
def test_steps_come_as_late_as_nobody_looks(
    every: float, linger: float, debugger: MoEDebugger, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(debugger)
    watched.pace(every)
    watched.run_began()
    assert debugger.capture.linger == 0.03, "the first ones come at once all the same"
    late(monkeypatch, debugger)
    assert debugger.capture.linger == pytest.approx(linger)


def test_who_looks_more_often_is_heeded_at_once(debugger: MoEDebugger, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch(debugger)
    watched.pace(0.6)
    late(monkeypatch, debugger)
    watched.pace(0.1)
    assert debugger.capture.linger == pytest.approx(0.1)


def test_where_nobody_looks_nothing_sets_the_pace(debugger: MoEDebugger) -> None:
    before = debugger.capture.linger
    watched = watch(debugger, None)
    watched.pace(0.1)
    watched.run_began()
    assert debugger.capture.linger == before


def test_a_recording_is_as_safe_at_any_pace(debugger: MoEDebugger, tmp_path: Path) -> None:
    recording = debugger.record(tmp_path / "a.msgpack")
    for seconds in (0.03, 0.2, LINGER):
        debugger.linger = seconds
        waits = recording._writer.flush_seconds
        assert 0 < waits == pytest.approx(HELD - seconds), "behind what it took to come there"


def test_a_session_takes_a_pace_before_it_has_a_model(live: Make) -> None:
    session = live(opened=False)
    assert isinstance(session, Paced)
    session.pace(0.5)
    session.open()
    session.settle()
    session.pace(0.5)
    session.generate(PROMPT)
    session.settle()
    assert session.state is RunState.FINISHED
    assert session.log.of(StepCaptured)[-1].end == session.timeline.snapshot().end > 0
