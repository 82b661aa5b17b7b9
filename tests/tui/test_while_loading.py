"""What a person does before there is a model, and what becomes of it when there is one."""

from __future__ import annotations

import asyncio
import re

import pytest

from moetui.routing.events import RunState
from moetui.session import ComingSession
from moetui.tui.app import MoetuiApp
from moetui.tui.loading import LoadingView
from moetui.tui.options import ScreenOptions
from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import LOOK, Recording, calm, running, shown, until


class _Breakable(ScriptedSession):
    """A scripted session with a list of breakpoints, which is empty."""

    breakpoints = add_breakpoint = change_breakpoint = remove_breakpoint = ()


@pytest.mark.parametrize("key", ["b", "question_mark", "exclamation_mark", "ctrl+p"])
async def test_a_dialog_opened_while_loading_keeps_its_keys_and_closes(key: str) -> None:
    session = _Breakable(loads=False)
    async with running(session) as (app, pilot):
        await pilot.press("escape", key)
        await until(pilot, lambda: app.screen.is_modal)
        await calm(app, pilot)
        dialog, focused = app.screen, app.focused
        session.finish_loading()
        await until(pilot, lambda: not app.query(LoadingView))
        await calm(app, pilot)
        assert (app.screen, app.focused) == (dialog, focused)
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.is_modal)
        await until(pilot, lambda: "no tokens yet" in shown(app))
        await pilot.press("2")
        assert app.tab == "elements"


async def test_a_dialog_opened_while_a_recording_loads_keeps_its_keys() -> None:
    session = Recording()
    session._loads = False
    async with running(session) as (app, pilot):
        await pilot.press("g", "1")
        await until(pilot, lambda: app.screen.is_modal)
        session.finish_loading()
        await until(pilot, lambda: not app.query(LoadingView))
        await calm(app, pilot)
        await pilot.press("2", "enter")
        await until(pilot, lambda: ("seek", 12) in session.asked)


async def test_a_run_that_begins_under_a_dialog_leaves_its_keys() -> None:
    session = _Breakable(loads=False)
    async with running(session) as (app, pilot):
        await pilot.press(*"once", "enter", "escape", "b")
        await until(pilot, lambda: app.screen.is_modal)
        await calm(app, pilot)
        dialog, focused = app.screen, app.focused
        session.finish_loading()
        await until(pilot, lambda: ("generate", "once") in session.asked)
        await calm(app, pilot)
        assert (app.screen, app.focused) == (dialog, focused)


async def test_the_console_takes_lines_while_the_model_loads_and_runs_them_behind_it() -> None:
    session = _Breakable(loads=False)
    async with running(session) as (app, pilot):
        await pilot.press("escape", "3", *"1 + 1", "enter", *"generate bob", "enter")
        await until(pilot, lambda: "the model is loading, 2 waiting" in shown(app))
        assert not app.screen.is_modal
        assert not app.query_one(LoadingView).display
        assert not [what for what, _ in session.asked if what == "generate"]
        session.finish_loading()
        await until(pilot, lambda: ("generate", "bob") in session.asked)
        await until(pilot, lambda: re.search(r"moe› 1 \+ 1\s+2\s", shown(app)))
        assert "the model is loading" not in shown(app)


async def test_lines_that_wait_for_the_model_are_given_up_with_ctrl_c() -> None:
    session = ScriptedSession(loads=False)
    async with running(session) as (app, pilot):
        await pilot.press("escape", "3", *"generate bob", "enter")
        await until(pilot, lambda: "1 waiting" in shown(app))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "a line runs when" in shown(app))
        session.finish_loading()
        await until(pilot, lambda: not app.query(LoadingView))
        await calm(app, pilot)
        assert not [what for what, _ in session.asked if what == "generate"]


async def test_the_script_of_the_call_runs_before_lines_and_its_prompt_behind_them() -> None:
    session = ScriptedSession(loads=False)
    async with running(session, script=("x = 20",), script_name="a.moe", prompt="once there") as (app, pilot):
        await pilot.press("3", *"generate bob", "enter", *"x + 1", "enter")
        session.finish_loading()
        await until(pilot, lambda: "generate" in [what for what, _ in session.asked])
        await until(pilot, lambda: re.search(r"moe› x \+ 1\s+21\s", shown(app)))
        session.set_state(RunState.FINISHED)
        await until(pilot, lambda: ("generate", "once there") in session.asked)
        assert [what for how, what in session.asked if how == "generate"] == ["bob", "once there"]


async def test_other_tabs_show_that_the_model_loads_and_all_that_it_failed_to() -> None:
    session = ScriptedSession(loads=False)
    async with running(session) as (app, pilot):
        await pilot.press("escape", "3", "escape")
        assert app.tab == "network"
        await until(pilot, lambda: "opening demo" in shown(app))
        assert app.focused is None
        await pilot.press("3")
        await until(pilot, lambda: "opening demo" not in shown(app))
        session.fail("no such model: foo/bar", "'moetui models' lists names")
        await until(pilot, lambda: "no such model: foo/bar" in shown(app))
        await pilot.press("q")
        assert app._exit


async def test_the_console_asked_for_before_the_session_is_made_comes_with_it() -> None:
    session = ScriptedSession(loads=False)
    app = MoetuiApp(ComingSession("demo", lambda: session, settings=session.settings), ScreenOptions(), LOOK)
    app.tab = "console"
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.focused is not None and app.focused.id == "console-input")


async def test_leaving_while_the_panels_are_built_is_no_crash() -> None:
    for rounds in range(4, 14, 2):  # each somewhere else between the model's coming and the panels' first picture
        session = ScriptedSession(loads=False)
        app = MoetuiApp(session, ScreenOptions(), LOOK)
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.pause()
            session.finish_loading()
            for _ in range(rounds):
                await asyncio.sleep(0)
            app.exit()
        assert app.crash is None, f"after {rounds} rounds"
