"""Why a token went where it went, at sites where the largest logits do not decide it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moetui.console import Console
from moetui.routing import ModelInfo, Selection
from moetui.session import ReplaySession
from moetui.trace import TraceWriter
from tests.console.conftest import drawn
from tests.console.console_cases import make_info, make_step

#          E0   E1   E2   E3   E4   E5    groups of two, of which two are eligible: with the bias the first and the last
LOGITS = [2.0, 0.5, 1.9, 1.8, 1.0, 0.25]
BIAS = (0.0, 0.0, -2.0, -2.0, 0.5, 0.0)


def choosing() -> ModelInfo:
    """L0 takes the largest logits, L1 goes by groups and a bias; of L2 it is not known, and of what L3 is either."""
    info = make_info(layers=4)
    plain, grouped, unknown, older = info.sites
    rule = Selection("identity", BIAS, 3, 2, "max")
    grouped = replace(grouped, selection_bias=True, groups=3, selection=rule)
    unknown = replace(unknown, selection=Selection())
    return replace(info, sites=(plain, grouped, unknown, replace(older, selection_bias=True)))


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    info = choosing()
    step = make_step(info, 0, [1, 2, 3], 0)
    logits, indices = step.logits.copy(), step.indices.copy()  # type: ignore[union-attr]
    logits[1], indices[1] = LOGITS, [[0, 2], [0, 4], [0, 2], [0, 2]]
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        writer.write_step(replace(step, logits=logits, indices=indices))
    session = ReplaySession(tmp_path / "x.msgpack", start="end", paused=True)
    session.open()
    assert session.wait(10)
    yield Console(session)
    session.close()


def test_the_next_are_those_that_would_have_come(console: Console) -> None:
    plain, grouped, unknown, older = console.run("why 1").data["sites"]
    assert [other["expert"] for other in plain["runners_up"]] == [3, 4, 1]
    assert plain["margin"] == pytest.approx(0.1, abs=1e-3)
    assert plain["left_out"] == []
    assert [other["expert"] for other in grouped["runners_up"]] == [1, 5]
    assert grouped["margin"] == pytest.approx(1.0, abs=1e-3)
    assert grouped["left_out"] == [2, 3]
    for site in (unknown, older):
        assert site["margin"] is None
        assert site["runners_up"] == site["left_out"] == []
        assert site["probabilities"][0] == pytest.approx(plain["probabilities"][0])
    assert "near tie" not in drawn(console.run("why 1"))


def test_who_was_left_out_is_said(console: Console) -> None:
    rows = [row.split() for row in drawn(console.run("why 1 --site L1")).splitlines()]
    assert rows[1][-3:] == ["probability", "score", "weight"]
    said = {row[0]: row[3:] for row in rows[2:8]}
    assert [row[0] for row in rows[2:8]] == ["E0", "E4", "E1", "E5", "E2", "E3"]
    assert said["E0"][-1] == said["E4"][-1] == "chosen"
    assert said["E2"][-3:] == said["E3"][-3:] == ["group", "left", "out"]
    assert "-0.10" in said["E2"]
    assert "score" not in drawn(console.run("why 1 --site L0"))
    for site in ("L2", "L3"):
        assert "by which scores this router chooses is not known" in drawn(console.run(f"why 1 --site {site}"))


def test_what_is_not_known_is_no_near_tie(console: Console) -> None:
    assert console.run("find margin<100 site:L2").data == []
    assert console.run("find margin<100 site:L3").data == []
    assert [row["token"] for row in console.run("find margin<100 site:L1").data] == [0, 1, 2]
