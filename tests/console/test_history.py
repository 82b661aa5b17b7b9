"""Lines are remembered across sessions, whoever else writes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.console import Console, History, history_path
from moetui.session import ReplaySession


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "console_history"


def test_a_later_console_knows_what_was_typed(replay: ReplaySession, path: Path) -> None:
    first = Console(replay, history=History(path))
    for line in ("stats", "stats", " secret", "for i in range(2):\n    i\n", "x = 'é\\n'"):
        first.run(line)
    again = History(path)
    assert again.lines == ["stats", "for i in range(2):\n    i", "x = 'é\\n'"]
    assert Console(replay, history=again).run("history stat").data == ["stats", "history stat"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=30), max_size=10))
def test_any_line_comes_back_as_it_was(lines: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "h")
        for line in lines:
            history.add(line)
        assert History(Path(folder) / "h").lines == history.lines


def test_the_file_is_bounded_and_keeps_the_newest(path: Path) -> None:
    history = History(path, limit=10)
    for number in range(35):
        history.add(f"line {number}")
    assert history.lines == [f"line {number}" for number in range(25, 35)]
    assert History(path, limit=10).lines == history.lines
    assert len(path.read_bytes().splitlines()) == 10
    assert oct(path.stat().st_mode & 0o777) == "0o600", "it may hold prompts"


def test_consoles_side_by_side_tear_nothing(path: Path) -> None:
    def write(name: str) -> None:
        history = History(path, limit=20)
        for number in range(60):
            history.add(f"{name} {number} " + "x" * 500)
            if number % 20 == 0:
                History(path, limit=20)  # cuts the file meanwhile

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row in path.read_bytes().splitlines():
        assert json.loads(row).endswith("x" * 500)
    assert len(History(path, limit=1000).lines) >= 20
    assert not {entry.name for entry in path.parent.iterdir()} - {path.name, path.name + ".lock"}


def test_a_torn_or_foreign_file_is_read_as_far_as_it_goes(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'"one"\n{"a": 1}\n\xff\xfe\n42\n"two"\n"torn')
    history = History(path)
    assert history.lines == ["one", "two"]


def test_without_a_place_to_write_lines_are_remembered_for_now(tmp_path: Path, replay: ReplaySession) -> None:
    (tmp_path / "file").write_text("")
    console = Console(replay, history=History(tmp_path / "file" / "history"))
    console.run("stats")
    result = console.run("history")
    assert result.data == ["stats", "history"]
    assert console.history.problem.startswith("the history is not kept: ")


def test_search_goes_backwards(path: Path) -> None:
    history = History(path)
    for line in ("ban_experts 1", "stats", "ban_experts 2", "why 3"):
        history.add(line)
    assert history.search("BAN") == 2
    assert history.search("ban", before=2) == 0
    assert history.search("ban", before=0) is None
    assert history.search("nothing") is None


def test_it_lies_in_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "moetui" / "console_history"
