"""What F1 says of the keys is true, whole and in one voice, wherever the focus is."""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from moetui.session import ReplaySession
from moetui.tui.app import MoetuiApp
from moetui.tui.help import HelpScreen, _groups
from moetui.tui.options import ScreenOptions
from tests.tui.recordings import write_recording
from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import LOOK, PROMPT, Recording, calm, running, shown, until
from tests.tui.test_debugging import Debugged


def rows(app: MoetuiApp) -> dict[str, str]:
    """Keys and what they do."""
    return {keys: text for _, group in _groups(app.screen) for keys, text, _ in group}


async def everywhere(app: MoetuiApp, pilot: Pilot[Any]) -> None:
    """Every part of every tab in turn has the focus; what help says there is looked at."""
    for tab in ("network", "elements", "console", "profiler"):
        await app.action_tab(tab)
        await calm(app, pilot)
        for widget in [widget for widget in app.screen.query("*") if widget.focusable and widget.display]:
            app.screen.set_focus(widget)
            await pilot.pause()
            for title, group in _groups(app.screen):
                assert title not in ("screen", "input", "vertical scroll"), title
                for keys, text, _ in group:
                    assert "super+" not in keys
                    assert re.match("[A-Z]", text), (keys, text)
                    assert not re.search("[a-z] [A-Z][a-z]+$", text) or text.endswith("Python"), (keys, text)
                    assert len(set(keys.split())) == len(keys.split()), keys
            assert len(rows(app)) == sum(len(group) for _, group in _groups(app.screen)), "a key listed twice"


@pytest.mark.parametrize("kind", [Debugged, Recording])
async def test_every_line_is_a_sentence_and_every_key_stands_once(kind: type[ScriptedSession]) -> None:
    session = kind()
    async with running(session, (120, 40)) as (app, pilot):
        if isinstance(session, Debugged):
            session.generate(PROMPT)
            session.advance(3)
        await everywhere(app, pilot)


async def test_what_a_key_is_shadowed_by_is_what_is_listed() -> None:
    async with running(ScriptedSession(), (120, 40)) as (app, pilot):
        assert rows(app)["^pgdn"] == "The tab to the right"  # an input that scrolls nothing lets it through
        assert rows(app)["↵"] == "Run what is typed"
        await pilot.press("ctrl+pagedown")
        assert app.tab == "elements"
        app._leave_prompt()
        await app.action_tab("network")
        await calm(app, pilot)
        assert rows(app)["["] == "The layer before"
        assert rows(app)["]"] == "The layer after"
        assert not [keys for keys in rows(app) if "[ ]" in keys]


async def test_letters_that_are_typed_are_no_keys() -> None:
    async with running(Recording(), (120, 40)) as (app, pilot):
        assert rows(app)["+ ="] == "Play twice as fast"
        assert "/ filter" in shown(app)
        await pilot.press("slash")
        await pilot.pause()
        assert not [keys for keys in rows(app) if set(keys.split()) & set("+-/\\fyY")]
        assert "/ filter" not in shown(app)
        await pilot.press("escape")
        await app.action_tab("console")
        await calm(app, pilot)
        assert not [keys for keys, text in rows(app).items() if text == "Play twice as fast"]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_all_of_it_can_be_read(size: tuple[int, int]) -> None:
    async with running(ScriptedSession(), size) as (app, pilot):
        app._leave_prompt()
        await calm(app, pilot)
        wanted = set(rows(app).values())
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        seen = ""
        for _ in range(12):
            await pilot.pause()
            seen += " ".join(re.sub("[│╭╮╰╯─▁▂▃▄▅▆▇█▔]", " ", shown(app)).split())
            await pilot.press("pagedown")
        assert not [text for text in wanted if text not in seen and len(text) < size[0] * 0.6]


@pytest.mark.parametrize("ascii_only", [False, True])
async def test_the_columns_and_signs_of_the_tab_are_explained(ascii_only: bool) -> None:
    look = replace(LOOK, ascii=True) if ascii_only else LOOK
    async with running(ScriptedSession(), (120, 100), look) as (app, pilot):
        app._leave_prompt()
        await calm(app, pilot)
        await pilot.press("f1")
        await until(pilot, lambda: "columns and signs" in shown(app))
        assert re.search(("<" if ascii_only else "◂") + " +A near tie: a margin below 0.05", shown(app))
        assert "Experts that no token went to, of all tokens" in shown(app)
        await pilot.press("escape")
        await app.action_tab("elements")
        await calm(app, pilot)
        await pilot.press("f1")
        await until(pilot, lambda: "module tree" in shown(app))
        assert "columns and signs" not in shown(app)


async def test_a_recording_lists_no_key_that_takes_the_model(tmp_path: Path) -> None:
    session = ReplaySession(write_recording(tmp_path / "a.msgpack", decode=30), start="end", paused=True)
    app = MoetuiApp(session, ScreenOptions(), LOOK)
    refused: list[tuple[str, str]] = []
    pressed = ""

    def notify(message: str, *, severity: str = "information", **_: Any) -> None:
        if severity != "information":
            refused.append((pressed, message))

    app.notify = notify  # type: ignore[method-assign, assignment]
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.settled)
        listed = set()
        for tab in ("network", "elements", "profiler"):
            await app.action_tab(tab)
            await until(pilot, lambda: app.settled)
            assert rows(app)["y f7"]
            here = {active.binding.key: active.binding.action for active in app.screen.active_bindings.values()}
            leave = {"quit", "interrupt", "suspend_process", "picture", "copy", "save_csv"}
            for pressed, action in here.items():
                if action in leave | listed or action.startswith(("tab(", "next_tab", "screen.", "command_palette")):
                    continue
                listed.add(action)
                await pilot.press(pressed)
                await pilot.pause()
                if app.screen.is_modal:
                    await pilot.press("escape")
                if app.screen.has_class("-drawer"):
                    await app.action_drawer()
                if isinstance(app.focused, Input):
                    await pilot.press("escape")
        await pilot.pause()
    session.close()
    assert not refused
    assert {"step", "step_back", "toggle_run", "loop", "seek_dialog", "mark", "measure"} <= listed
    assert not {"ask('attention')", "ask('attribution')", "fork", "rewind", "force", "prompt", "stop"} & listed


class Asked(ScriptedSession):
    """A scripted session that says it can be asked."""

    analyses = ("attention", "attribution")

    def analyze(self, name: str, **_: Any) -> Future[Any]:
        self.asked.append((name, None))
        return Future()


async def test_a_live_session_that_analyses_lists_the_questions() -> None:
    async with running(Asked(), (120, 40)) as (app, pilot):
        app._leave_prompt()
        await calm(app, pilot)
        assert rows(app)["A"].startswith("What the token attended to")
    async with running(ScriptedSession(), (120, 40)) as (app, pilot):
        app._leave_prompt()
        await calm(app, pilot)
        assert "A" not in rows(app)
        assert "W" not in rows(app)
