"""What a person does before there is a model, and what becomes of it when there is one."""

from __future__ import annotations

import pytest

from moetui.tui.loading import LoadingView
from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import Recording, calm, running, shown, until


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
