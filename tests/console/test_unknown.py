"""What cannot be known is said to be unknown: a recording of expert ids alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from moetui.console import Console
from moetui.console.commands import registry
from moetui.session import ReplaySession
from tests.console.conftest import drawn
from tests.console.console_cases import write_recording


@pytest.fixture(scope="module")
def ids_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    path = write_recording(tmp_path_factory.mktemp("unknown") / "ids.msgpack", ids_only=True)
    session = ReplaySession(path, start="end", paused=True)
    session.open()
    assert session.wait(10)
    yield Console(session)
    session.close()


def test_no_command_stumbles(ids_only: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in registry().names:
        if name in ("continue", "loop"):
            continue
        for line in (name, f"{name} L1", f"{name} L1 2", f"{name} 3", f"{name} layer:1 entropy>0"):
            result = ids_only.run(line)
            assert not result.error.startswith("internal error"), (line, result.error)
            assert "nan" not in drawn(result), line
    ids_only.run("seek 29")


def test_unknown_is_no_zero(ids_only: Console) -> None:
    assert ids_only.run("stats").data["ids_only"] is True
    assert ids_only.run("tokens --by margin").data == []
    assert "margin is known of none of 30 tokens" in drawn(ids_only.run("tokens --by margin"))
    assert ids_only.run("stats").data["average_entropy"] is None
    row = ids_only.run("tokens --rows 1").data[0]
    assert row["entropy"] is None
    assert row["margin"] is None
    site = ids_only.run("why 3").data["sites"][0]
    assert site["weights"] is site["entropy"] is site["margin"] is None
    assert site["runners_up"] == []
    assert "with weights unknown" in drawn(ids_only.run("analyze_token_impact artificial"))
    assert ids_only.run("expert L1 2").data["gate_mass"] is None
    assert ids_only.run("find entropy>0").data == [], "unknown matches nothing"


@pytest.mark.parametrize("line", ["entropy", "similarity L0"])
def test_what_needs_logits_says_so(ids_only: Console, line: str) -> None:
    result = ids_only.run(line)
    assert "logits were kept" in result.error
    assert result.hint


def test_what_needs_none_counts_the_same(ids_only: Console, console: Console) -> None:
    for line in ("balance", "dead_experts", "coactivation L0"):
        assert ids_only.run(line).data == console.run(line).data, line
    assert "the router's logits were not kept" in drawn(ids_only.run("why 3 --site L1"))
