from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from moetui.console import Console, Result
from moetui.session import ReplaySession
from tests.console.console_cases import write_recording


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("console") / "run.msgpack")


@pytest.fixture
def replay(recording: Path) -> Iterator[ReplaySession]:
    session = ReplaySession(recording, start="end", paused=True)
    session.open()
    assert session.wait(10)
    yield session
    session.close()


@pytest.fixture
def console(replay: ReplaySession) -> Console:
    return Console(replay)


def drawn(result: Result, width: int = 120) -> str:
    """What a person would read, without colour."""
    stream = io.StringIO()
    screen = RichConsole(file=stream, width=width, color_system=None, legacy_windows=False, markup=False)
    for renderable in result.renderables:
        screen.print(renderable, markup=False, highlight=False)
    return stream.getvalue()


@pytest.fixture
def read(console: Console) -> Callable[[str], str]:
    """Run a line that must succeed, and read its answer."""

    def run(line: str) -> str:
        result = console.run(line)
        assert not result.error, result.error
        return drawn(result)

    return run
