"""What is handed on of a screen: rows that no spreadsheet runs, and pictures under names of their own."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from moetui.tui.widgets.sharing import as_csv
from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import calm, running, shown, until


def test_rows_carry_no_formulas() -> None:
    text = as_csv([("=1+1", " +2", "@x", "-3", -3, "a\tb", "\x1b[31m", float("nan"), 0.1234567)], "\t")
    assert text == "'=1+1\t' +2\t'@x\t'-3\t-3\ta⇥b\t␛[31m\t\t0.123457\n"


@pytest.mark.parametrize("tab", ["1", "2", "4"])
async def test_the_screen_becomes_a_file(tab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = ScriptedSession()
    async with running(session, (80, 24)) as (app, pilot):
        session.generate("once there was a river")
        session.advance(5)
        app._leave_prompt()
        await pilot.press(tab)
        await calm(app, pilot)
        for name in ("moetui-screen.svg", "moetui-screen-2.svg"):
            await pilot.press("P")
            await until(pilot, lambda name=name: (tmp_path / name).exists())
            root = ElementTree.fromstring((tmp_path / name).read_text(encoding="utf-8"))
            assert "Mixtral" in "".join(root.itertext()).replace("\xa0", " ")
        await until(pilot, lambda: "moetui-screen-2.svg" in shown(app))
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        await pilot.press("P")
        await until(pilot, lambda: "not written" in shown(app))
