"""What moves a recording: where 'jump' goes."""

from __future__ import annotations

import pytest

from moetui.console import Console
from moetui.session import ReplaySession


def test_jump_goes_to_the_next_mark_of_a_kind(console: Console, replay: ReplaySession) -> None:
    first, second = (mark.token for mark in replay.marks if mark.kind == "branch")
    replay.seek(first)
    assert console.run("jump branch").data["token"] == second
    assert console.run("jump branch").error == "there is no next branch"
    assert console.run("jump previous --kind branch").data["token"] == first
    assert console.run("jump interventions").data["kind"] == "interventions"


def test_jump_goes_to_a_place_as_seek_does(console: Console, replay: ReplaySession) -> None:
    for line in ("jump 3", "moe.jump(3)", "moe.jump(to='3')", "seek 3"):
        replay.seek(0)
        assert console.run(line).data["token"] == 3, line
        assert replay.playback.position == 4
    beyond = console.run("jump 141")
    assert beyond.hint == console.run("seek 141").hint == f"tokens 0 to {replay.playback.end - 1}"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("jump divergence", "there is no next divergence"),
        ("jump previous", "there is no previous mark"),
        ("jump branch --kind finding", "branch is no finding"),
        ("jump sideways", "to: sideways is neither a mark nor a place"),
        ("jump 141", "to: the recording has no token 141"),
        ("jump -3", "to: -3 is neither a mark nor a place"),
        ("jump 3 --kind branch", "a place is no branch"),
    ],
)
def test_jump_says_why_it_stays(console: Console, replay: ReplaySession, line: str, error: str) -> None:
    replay.seek(0)
    assert console.run(line).error == error
