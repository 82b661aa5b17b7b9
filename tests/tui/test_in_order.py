"""Keys that come in one burst, as a slow line brings them: each acts on what the one before it left behind."""

from __future__ import annotations

from typing import Any

import pytest
from textual.events import Key, Paste

from moetui.routing.events import RunState
from moetui.tui.app import MoetuiApp
from moetui.tui.diff import DiffApp
from moetui.tui.in_order import InOrder
from moetui.tui.prompt import PromptInput
from moetui.tui.shell import Shell
from moetui.tui.widgets.filter_line import FilterLine
from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import PROMPT, Recording, line, running, shown, until


def burst(app: MoetuiApp, *keys: str) -> None:
    """All keys at once, before the app has looked at any."""
    named = {" ": "space", "\r": "enter", ":": "colon", "/": "slash", "?": "question_mark"}
    for key in keys:
        app.post_message(Key(named.get(key, key), key if len(key) == 1 and key.isprintable() else None))


@pytest.mark.parametrize("kind", [MoetuiApp, DiffApp])
def test_every_app_takes_keys_in_order(kind: type[Shell]) -> None:
    assert issubclass(kind, InOrder)
    assert kind.on_event is InOrder.on_event


async def test_what_is_typed_behind_the_enter_of_a_prompt_is_for_the_panel() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        burst(app, *"once there\r ")
        await until(pilot, lambda: session.state is RunState.PAUSED)
        assert ("generate", "once there") in session.asked
        assert [what for what, _ in session.asked].count("pause") == 1
        assert app.query_one(PromptInput).value == "once there"


async def test_an_enter_that_the_terminal_made_a_line_feed_before_the_screen_was_there_runs_the_prompt() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        burst(app, *"once", "ctrl+j", "space")
        await until(pilot, lambda: session.state is RunState.PAUSED)
        assert ("generate", "once") in session.asked


async def test_two_prompts_in_one_burst_are_two_prompts() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        burst(app, *"one\rxp", "ctrl+u", *"two\r")
        await until(pilot, lambda: ("generate", "two") in session.asked)
        assert [value for what, value in session.asked if what == "generate"] == ["one", "two"]


async def test_a_paste_between_keys_stays_between_them() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        burst(app, *"ab")
        app.post_message(Paste("x\ny"))
        burst(app, *"cd\r")
        await until(pilot, lambda: ("generate", "abx\nycd") in session.asked)


async def test_a_filter_and_what_follows_its_enter() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate(PROMPT)
        session.advance(5)
        await until(pilot, lambda: "6/24" in line(app, "#title"))
        app._leave_prompt()
        burst(app, *"/layer:3\r2")
        await until(pilot, lambda: app.tab == "elements")
        assert app.query_one(FilterLine).value == "layer:3"


async def test_a_number_typed_before_its_dialog_is_there() -> None:
    session = Recording()
    async with running(session) as (app, pilot):
        burst(app, *"g57\r2")
        await until(pilot, lambda: ("seek", 57) in session.asked)
        await until(pilot, lambda: app.tab == "elements")


async def test_a_tab_not_yet_built_gets_its_own_keys() -> None:
    async with running(ScriptedSession(), (120, 40)) as (app, pilot):
        app._leave_prompt()
        burst(app, *"3stats\r")
        await until(pilot, lambda: "moe› stats" in shown(app))
        await pilot.press("ctrl+pageup", "ctrl+pageup")
        await until(pilot, lambda: app.tab == "network")
        burst(app, "escape", *"1 + 1\r", "escape", "2")
        await until(pilot, lambda: app.tab == "elements")
        await app.action_tab("console")
        await until(pilot, lambda: "moe› 1 + 1" in shown(app))


async def test_a_widget_that_goes_away_does_not_keep_the_keys() -> None:
    async with running(ScriptedSession()) as (app, pilot):
        app._leave_prompt()
        burst(app, "?", "escape", "?", "escape", "?", "escape", "4")
        await until(pilot, lambda: app.tab == "profiler")
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_a_long_burst_is_typed_whole_and_quickly() -> None:
    text = "once " * 80
    async with running(ScriptedSession()) as (app, pilot):
        burst(app, *text)
        held: Any = app.query_one(PromptInput)
        await until(pilot, lambda: held.value == text)
