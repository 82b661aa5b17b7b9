"""What a live session writes for its user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moetui import open_trace
from moetui.console import Console
from moetui.console.outcome import outcome
from moetui.routing import TraceError, UsageError, join_texts
from moetui.routing.events import BranchAdded, GenerationSettings, InterventionsChanged, RunState, RunStateChanged
from moetui.routing.interventions import ForceExperts
from moetui.session import Filing, Losable, ReplaySession
from moetui.trace.recorded import unread_text
from tests.session.live_sessions import Make

PROMPT = "some words to begin with"


def test_saving_is_like_having_recorded(live: Make, tmp_path: Path) -> None:
    session = live(PROMPT, record=tmp_path / "recorded.msgpack")
    assert isinstance(session, Filing)
    session.set_interventions([ForceExperts((1, 2))])
    session.generate("other words", GenerationSettings(max_new_tokens=5))
    session.settle()
    nbytes = session.save(str(tmp_path / "saved.msgpack"))
    assert nbytes == (tmp_path / "saved.msgpack").stat().st_size
    session.close()
    saved, recorded = (open_trace(tmp_path / f"{name}.msgpack") for name in ("saved", "recorded"))
    assert saved.complete
    assert saved.prompt == recorded.prompt == PROMPT
    assert saved.info == recorded.info
    end = recorded.timeline.end
    assert saved.timeline.end == end
    assert (saved.timeline.routing(0, end).indices == recorded.timeline.routing(0, end).indices).all()
    assert saved.timeline.tokens(0, end).started.tolist() == recorded.timeline.tokens(0, end).started.tolist()
    for kind in (BranchAdded, InterventionsChanged):
        events = [
            [(item.token, item.event) for item in trace.events if isinstance(item.event, kind)]
            for trace in (saved, recorded)
        ]
        assert events[0] == events[1]
    states = [item.event.state for item in saved.events if isinstance(item.event, RunStateChanged)]
    assert states[-1] is RunState.FINISHED
    saved.close()
    recorded.close()


def test_what_closing_would_lose(live: Make, tmp_path: Path) -> None:
    session = live(PROMPT)
    assert isinstance(session, Losable)
    assert session.kept_until == 0
    session.export(str(tmp_path / "log.json"), "json")
    assert session.kept_until == 0, "a session does not come back from that"
    session.save(str(tmp_path / "x.msgpack"))
    saved = session.timeline.snapshot().end
    assert session.kept_until == saved > 0
    session.generate("other words", GenerationSettings(max_new_tokens=5))
    session.settle()
    assert session.kept_until == saved < session.timeline.snapshot().end
    recorded = live(PROMPT, record=tmp_path / "recorded.msgpack")
    assert recorded.kept_until == recorded.timeline.snapshot().end > 0


def test_the_token_written_last_is_in_the_text_of_what_is_recorded_and_saved(live: Make, tmp_path: Path) -> None:
    session = live(PROMPT, record=tmp_path / "recorded.msgpack", settings=GenerationSettings(max_new_tokens=5))
    session.generate("other words", GenerationSettings(max_new_tokens=4))
    session.settle()
    text = outcome(session, session.tree, session.branches[-1]).text
    last = session.last_text(1)
    assert last
    assert text.endswith(join_texts([last]))
    assert Console(session).run("stats --branch 1").data["text"] == text
    session.save(str(tmp_path / "saved.msgpack"))
    end = session.timeline.snapshot().end
    session.close()
    for name in ("recorded", "saved"):
        with open_trace(tmp_path / f"{name}.msgpack") as trace:
            assert (trace.stats()["text"], trace.timeline.end) == (text, end), name
        replay = ReplaySession(tmp_path / f"{name}.msgpack", start="end", paused=True)
        replay.open()
        assert (replay.last_text(1), replay.last_text(0)) == (last, "")
        replay.seek(end - 3)
        assert replay.last_text(1) == "", "it comes behind what is not shown yet"
        replay.close()


def test_what_runs_on_has_no_last_token_yet(live: Make, tmp_path: Path) -> None:
    session = live(PROMPT, record=tmp_path / "x.msgpack", settings=GenerationSettings(max_new_tokens=5))
    token = session.timeline.snapshot().end - 1
    assert session.last_text(0)
    session.fork(token, paused=True)
    session.settle()
    session.close()
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert unread_text(item.event for item in trace.events) == ""


def test_exporting(live: Make, tmp_path: Path) -> None:
    session = live(PROMPT)
    nbytes = session.export(str(tmp_path / "log.json"), "json")
    log = json.loads((tmp_path / "log.json").read_text())
    assert nbytes == (tmp_path / "log.json").stat().st_size
    assert len(log["samples"][0]["tokens"]) == len(session.ids())
    with pytest.raises(UsageError, match="no format"):
        session.export(str(tmp_path / "x"), "docx")


def test_nothing_is_overwritten_unasked(live: Make, tmp_path: Path) -> None:
    session = live(PROMPT)
    path = tmp_path / "there"
    path.write_bytes(b"precious")
    for write in (lambda: session.save(str(path)), lambda: session.export(str(path), "csv")):
        with pytest.raises(UsageError, match="exists already"):
            write()
    assert path.read_bytes() == b"precious"
    session.save(str(path), overwrite=True)
    assert session.load(str(path)).timeline.snapshot().end == len(session.ids())
    with pytest.raises(UsageError, match="no such folder"):
        session.save(str(tmp_path / "nowhere" / "x"))
    with pytest.raises(TraceError):
        session.load(str(tmp_path / "missing"))


def test_without_a_model_there_is_nothing_to_write(live: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to write"):
        live(opened=False).save(str(tmp_path / "x"))
