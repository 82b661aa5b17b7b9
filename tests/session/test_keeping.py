"""Breakpoints that outlive their session."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moetui.debugger import BreakpointSet
from moetui.routing.events import Notice, RunState
from moetui.session.keeping import Keeper
from tests.session.live_sessions import Make


def filled() -> BreakpointSet:
    points = BreakpointSet()
    points.add("entropy < 0.3 and layer:2", ignore=2)
    points.add('token:"é\\"x"', log_only=True, enabled=False)
    points.add("layer:1", temporary=True)
    points.add("flip vs 0")
    points.add("flip vs main", branches={"main": 0})
    return points


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    keeper, before, after = Keeper(tmp_path, "a/b"), filled(), BreakpointSet()
    assert keeper.save(before) == ""
    assert Keeper(tmp_path, "a/b").restore(after) == []
    shown = [(point.expression, point.log_only, point.ignore, point.enabled) for point in after]
    assert shown == [("entropy < 0.3 and layer:2", False, 2, True), ('token:"é\\"x"', True, 0, False)]
    assert [path.name for path in keeper.path.parent.iterdir()] == [keeper.path.name], "no half file is left"


def kept(folder: Path) -> list[tuple[str, bool, int]]:
    items = json.loads(Keeper(folder, "m").path.read_text())
    return [(item["expression"], item["enabled"], item["ignore"]) for item in items]


def test_two_screens_of_a_model_take_nothing_from_each_other(tmp_path: Path) -> None:
    (ours, mine), (theirs, others) = ((Keeper(tmp_path, "m"), BreakpointSet()) for _ in range(2))
    first = mine.add("layer:1")
    mine.add("layer:2")
    assert ours.save(mine) == ""
    theirs.restore(others)
    others.add("layer:3")
    others.change(1, enabled=False)
    theirs.save(others)
    mine.add("layer:4")
    ours.save(mine)
    assert kept(tmp_path) == [("layer:1", False, 0), ("layer:2", True, 0), ("layer:3", True, 0), ("layer:4", True, 0)]
    others.remove(2)
    theirs.save(others)
    mine.change(first.id, ignore=2)
    ours.save(mine)
    assert kept(tmp_path) == [("layer:1", True, 2), ("layer:3", True, 0), ("layer:4", True, 0)]
    mine.add("layer:1")
    ours.save(mine)
    mine.remove(first.id)
    ours.save(mine)
    assert [name for name, _, _ in kept(tmp_path)] == ["layer:1", "layer:3", "layer:4"], "one of two alike went"


def test_many_screens_at_once_lose_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from moetui.debugger import BreakpointSet;"
        "from moetui.session.keeping import Keeper\n"
        "points = BreakpointSet()\n"
        "keeper = Keeper(Path(sys.argv[1]), 'm')\n"
        "for at in range(8):\n"
        "    points.add(f'position == {sys.argv[2]}{at}'); assert not keeper.save(points)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)]) for n in range(1, 4)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert len(kept(tmp_path)) == 24


def test_a_file_that_went_or_broke_is_written_anew(tmp_path: Path) -> None:
    keeper, points = Keeper(tmp_path, "m"), BreakpointSet()
    points.add("layer:1")
    keeper.save(points)
    for breaks in (keeper.path.unlink, lambda: keeper.path.write_text("{")):
        breaks()
        points.add("layer:2")
        keeper.save(points)
        assert len(kept(tmp_path)) == len(points)


def test_each_model_has_its_own(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "../../etc/passwd", "x" * 300, "é", ""]
    paths = {Keeper(tmp_path, name).path for name in names}
    assert len(paths) == len(names)
    assert {path.parent for path in paths} == {tmp_path / "breakpoints"}
    assert all(len(path.name) < 100 for path in paths)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("{}", 1),
        ("[1, 2]", 2),
        ('[{"expression": "nope <"}, {"expression": 3}, {"expression": "layer:1", "ignore": "x"}]', 3),
        ('[{"expression": "__import__(\'os\')"}]', 1),
        ('[{"expression": "layer:1", "ignore": -2}]', 1),
        ("[" * 100_000, 1),
    ],
)
def test_a_file_that_makes_no_sense_is_told_and_does_no_harm(tmp_path: Path, text: str, count: int) -> None:
    keeper, points = Keeper(tmp_path, "m"), BreakpointSet()
    keeper.path.parent.mkdir(parents=True)
    keeper.path.write_text(text)
    assert len(keeper.restore(points)) == count
    assert len(points) == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "breakpoints").write_text("in the way")
    assert Keeper(tmp_path, "m").save(filled()).startswith("the breakpoints are not kept: ")


def test_from_one_session_to_the_next(live: Make, tmp_path: Path) -> None:
    session = live(state=tmp_path)
    point = session.add_breakpoint("position == 3")
    other = session.add_breakpoint("position == 4")
    session.change_breakpoint(other.id, enabled=False)
    session.remove_breakpoint(session.add_breakpoint("layer:0").id)
    session.close()
    (file,) = (tmp_path / "breakpoints").iterdir()
    assert [item["enabled"] for item in json.loads(file.read_text())] == [True, False]
    later = live("some words", state=tmp_path)
    assert later.state is RunState.PAUSED
    assert later.reason.startswith(point.expression)
    assert any("2 breakpoints of an earlier session" in notice.message for notice in later.log.of(Notice))
    plain = live("some words")
    assert plain.state is RunState.FINISHED, "nothing is read or kept unless told where"
