"""The tree of branches from the console: shown, gone through, named; and what commands look at meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from moetui.console import Console
from moetui.engine.models import LoadRequest
from moetui.routing.events import GenerationSettings
from moetui.session import LiveOptions, LiveSession, ReplaySession
from tests.console.conftest import drawn

SETTINGS = GenerationSettings(max_new_tokens=10)


@pytest.fixture(scope="module")
def session() -> Iterator[LiveSession]:
    """A run of ten tokens; one forked before its last four, and one forked before the last two of that."""
    session = LiveSession(LiveOptions(LoadRequest("random:mixtral"), settings=SETTINGS))
    session.open()
    assert session.wait(120)
    console = Console(session)
    run(console, "generate some words")
    run(console, f"fork {session.timeline.snapshot().end - 4} --name left")
    run(console, f"fork {session.timeline.snapshot().end - 2} --name deep")
    yield session
    session.close()


@pytest.fixture
def console(session: LiveSession) -> Console:
    return Console(session)


def run(console: Console, *lines: str) -> list[object]:
    results: list[object] = []
    console.run_script(lines, lambda _, result: results.append(result.data))
    return results


def positions(console: Console, line: str) -> list[tuple[int, int]]:
    view = console._context.view
    numbers = [row["token"] for row in console.run(line).data]
    return [(int(view.tokens(n, n + 1).branch[0]), int(view.tokens(n, n + 1).position[0])) for n in numbers]


def test_the_tree_is_drawn(console: Console) -> None:
    result = console.run("branches")
    rows = [line.rstrip() for line in drawn(result).splitlines()]
    assert rows[0].split() == ["#", "branch", "tokens", "position", "prompt"]
    assert rows[1].startswith("0  run 0")
    assert "main" in rows[1]
    assert rows[2].startswith("1  └─ left")
    assert rows[3].startswith("2     └─ deep")
    assert "here" in rows[3]
    assert [(item["name"], item["parent"], item["current"]) for item in result.data] == [
        ("run 0", None, False),
        ("left", "run 0", False),
        ("deep", "left", True),
    ]


def test_switching_turns_what_commands_look_at(console: Console, session: LiveSession) -> None:
    view = session.timeline.snapshot()
    first = int(view.tokens(0, view.end).position.max()) + 1  # tokens of the first run
    everything = console.run("stats").data["tokens"]
    assert everything == view.end
    (switched,) = run(console, "switch left")
    assert switched == {"branch": 1, "state": "finished", "reason": "10 tokens"}
    shared = [(0, position) for position in range(first - 4)]
    own = [(1, position) for position in range(first - 4, first)]
    assert positions(console, "tokens --rows 99") == [*shared, *own]
    assert positions(console, "find position >= 0 --rows 99") == [*shared, *own]
    assert console.run("stats").data["tokens"] == first
    assert console.run("stats --branch all").data["tokens"] == everything
    assert positions(console, "tokens --branch left") == own
    newest = console.run("why").data["token"]
    assert int(view.tokens(newest, newest + 1).branch[0]) == 1
    assert console.run("why -1").data["token"] == newest
    assert console.run("compare").data["a"] == "run 0"
    assert console.run("compare").data["b"] == "left"
    run(console, "switch 0")
    assert console.run("compare").data["a"] == "deep", "of one that nothing was forked from: the newest of its run"
    run(console, "switch deep")


def test_names_and_main_branches(console: Console) -> None:
    assert console.run("rename left other").data == {"branch": 1, "name": "other"}
    assert console.run('moe.rename("other", "left")').data == {"branch": 1, "name": "left"}
    assert console.run("promote left").data == {"branch": 1}
    assert console.run("compare").data["a"] == "left"
    assert console.run("compare run9").error == "a: there is no branch run9"
    for line, error, hint in (
        ("switch run9", "branch: there is no branch run9", "branches: run 0, left, deep"),
        ("switch", "branch is missing: a branch, by name or number", "usage: switch BRANCH"),
        ("rename left DEEP", "name: there is a branch called deep already", "choose another name"),
        ("rename left 7", "name: 7 is a number", "branches have numbers of their own; choose a word"),
        ("delete deep", "deep is the branch that you are on", "switch to another first: run 0, left"),
        ("moe.delete(9)", "branch: there is no branch 9", "branches: run 0, left, deep"),
    ):
        result = console.run(line)
        assert (result.error, result.hint) == (error, hint), line


def test_a_fork_at_a_pause_waits(console: Console, session: LiveSession) -> None:
    lines = (
        "break_when position == 14 and layer == 1 --once",
        "generate some words",
        "why",
        "fork --name forced",
        "force_expert_selection 3 --layers 1",
        "continue",
        "compare",
        "undo",
    )
    _, stopped, why, forked, _, ended, compared, _ = run(console, *lines)
    hit = why["token"]  # type: ignore[index]
    assert stopped["state"] == "paused"  # type: ignore[index]
    assert f"(token {hit} at L1, hit 1)" in stopped["reason"]  # type: ignore[index]
    assert forked == {"token": hit, "paused": True}
    assert ended["state"] == "finished"  # type: ignore[index]
    assert compared["b"] == "forced"  # type: ignore[index]
    rows = console.run("tokens --branch forced --rows 99").data
    assert {row["first_choices"][1] for row in rows} == {3}
    (deleted,) = run(console, "switch 0", "delete forced")[1:]
    assert "forced" not in deleted["left"]  # type: ignore[index]


def test_in_a_recording_switching_is_looking(session: LiveSession, tmp_path: Path) -> None:
    path = tmp_path / "x.msgpack"
    session.save(str(path))
    replay = ReplaySession(path, start="end", paused=True)
    replay.open()
    try:
        console, live = Console(replay), Console(session)
        everything = console.run("stats").data["tokens"]
        assert console.run("switch left").data["branch"] == 1
        run(live, "switch left")
        assert positions(console, "tokens --rows 99") == positions(live, "tokens --rows 99")
        assert console.run("stats").data["tokens"] < everything
        assert console.run("stats --branch all").data["tokens"] == everything
        assert [item["name"] for item in console.run("branches").data if item["current"]] == ["left"]
        assert console.run("delete left").error == "a recording cannot change its branches"
    finally:
        replay.close()
