"""The page of the documentation is what the commands say of themselves, and the examples in it work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from moetui.console import Console
from moetui.console.commands import registry
from moetui.console.docs import page
from moetui.console.kinds import Kind
from moetui.console.registry import Command
from moetui.session import ReplaySession
from tests.console.console_cases import write_recording

PAGE = Path(__file__).parents[2] / "docs" / "console.md"
COMMANDS = list(registry())
ASKED = """
force_expert_selection ban_experts boost_experts scale_experts ablate_experts swap_experts set_top_k
set_expert_capacity set_router_temperature set_router_noise replay_routing interventions undo redo reset generate
continue step step_layer run_to finish restart pause stop rewind fork branches switch rename promote delete compare
break_when log_when breakpoints change_breakpoint watch ablation
analyze_token_impact why tokens experts expert layers dead_experts balance entropy repetition coactivation similarity
stats find save export load help history config clear findings
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplaySession]:
    """A recording that is large enough for every example."""
    path = write_recording(tmp_path_factory.mktemp("docs") / "big.msgpack", experts=8, layers=6, runs=3)
    session = ReplaySession(path, start="end", paused=True)
    session.open()
    assert session.wait(10)
    yield session
    session.close()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m moetui.console.docs docs/console.md"


def test_every_command_is_there() -> None:
    assert set(ASKED.split()) <= {command.name for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_explains_itself(command: Command, console: Console) -> None:
    assert command.doc.summary.endswith((".", "?"))
    assert set(command.doc.arguments) <= {parameter.name for parameter in command.parameters}
    for parameter in command.parameters:
        assert isinstance(parameter.kind, Kind)
        assert parameter.about or parameter.kind.about, parameter.name
    assert not console.run(f"help {command.name}").error
    assert command.name in page()


def test_the_page_names_no_default_that_is_not_one() -> None:
    rows = [row for row in page().splitlines() if "(default" in row]
    assert any("(default 40)" in row for row in rows)
    assert not any("None" in row or "False" in row for row in rows)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_examples_do_what_they_say(
    command: Command, big: ReplaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "before.msgpack")
    big.seek(44)
    big.pause()
    console = Console(big)
    console.run("watch layer:1")
    console.run("load before.msgpack")
    for example in command.doc.examples:
        result = console.run(example)
        live_only = "--by weights" in example or "--by outputs" in example
        assert result.error == ("a recording cannot analyse its model" if live_only else command.why_not(big)), example
