"""What a person did to a run, through the file: a replay shows hits, forks and interventions where they happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from moetui.console import Console
from moetui.routing import SiteFlag
from moetui.routing.events import BreakpointHit, GenerationSettings, InterventionsChanged, RunState
from moetui.routing.interventions import ForceExperts
from moetui.session import ReplaySession
from tests.session.live_sessions import PATIENCE, Live, Make

PROMPT = "some words to begin with"
SETTINGS = GenerationSettings(max_new_tokens=12)
STORY = (
    "break_when position == 27 and layer == 1",
    "log_when position == 29",
    f"generate {PROMPT}",
    "why",
    "fork --name forced",
    "force_expert_selection 0 3 --layers 2",
    "breakpoints --remove 1",
    "continue",
    "compare",
    "undo",
)


def caught_up(session: Live) -> None:
    """What was asked of the model's thread has been done."""
    session.call(lambda *_: None).result(PATIENCE)


@pytest.mark.parametrize("how", ["recorded", "saved"])
def test_the_story_is_in_the_file(live: Make, tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.msgpack"
    session = live(settings=SETTINGS, **({"record": path} if how == "recorded" else {}))
    console = Console(session)
    answers: list[object] = []
    console.run_script(STORY, lambda _, result: answers.append(result.data))
    if how == "saved":
        session.save(str(path))
    caught_up(session)
    hits = session.log.of(BreakpointHit)
    assert [(hit.token, hit.site, hit.values, hit.log_only) for hit in hits] == [
        (27, 1, "position = 27, layer = 1", False),
        (30, -1, "position = 29", True),  # on the branch, whose first token is number 28 again
    ]
    tree, end = session.tree, session.timeline.snapshot().end
    session.close()
    replay = ReplaySession(path, start="end", paused=True)
    try:
        replay.open()
        assert replay.tree == tree
        assert replay.snapshot().end == end
        events = [item.event for item in replay._trace.events]
        assert [event for event in events if isinstance(event, BreakpointHit)] == hits
        marks = [(mark.kind, mark.token, mark.text) for mark in replay.marks if mark.kind != "finding"]
        assert ("breakpoint", 27, "position:27 and layer:1") in marks
        assert ("breakpoint", 30, "position:29") in marks
        assert ("branch", 28, "forced") in marks
        changes = [mark for mark in marks if mark[0] == "interventions"]
        assert changes == [("interventions", 28, "force"), ("interventions", end, "none any more")]
        assert replay.interventions == ()
        replay.seek(end - 1)
        replay.seek(28)
        (forced,) = replay.interventions
        assert isinstance(forced, ForceExperts)
        assert (forced.experts, forced.scope.layers) == ((0, 3), (2,))
        flags = replay.snapshot().routing(27, 29).flags
        assert [bool(each & SiteFlag.FORCED) for each in flags[:, 2]] == [False, True]
        replay.seek(26)
        assert replay.interventions == ()
        assert [branch.name for branch in replay.branches] == ["run 0"]
        assert replay.jump(1, "breakpoint") is not None
        assert replay.snapshot().end == 28
        shown = Console(replay).run("branches").data
        assert [(item["name"], item["current"]) for item in shown] == [
            ("run 0", False),
            ("forced", True),  # forked where the run stood
        ]
    finally:
        replay.close()


def test_hits_pass_by_while_a_replay_plays(live: Make, tmp_path: Path) -> None:
    import asyncio

    path = tmp_path / "x.msgpack"
    session = live(settings=SETTINGS, record=path)
    Console(session).run_script(STORY, None)
    caught_up(session)
    session.close()
    replay = ReplaySession(path, speed=64.0)
    replay.open()
    assert replay.wait(60)
    assert replay.state is RunState.FINISHED
    replay.close()

    async def read() -> list[object]:
        return [event async for event in replay.events()]

    passed = asyncio.run(read())
    assert [event.token for event in passed if isinstance(event, BreakpointHit)] == [27, 30]
    assert [len(event.interventions) for event in passed if isinstance(event, InterventionsChanged)][-2:] == [1, 0]
