"""The shell: what a person presses and what then happens, at three sizes of terminal."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.events import Paste
from textual.pilot import Pilot
from textual.widgets import Input

from moetui.routing import Timeline, UsageError
from moetui.routing.events import Branch, BreakpointHit, Finding, Notice, RunState
from moetui.routing.interventions import BanExperts, ForceExperts
from moetui.routing.stats import compute_stats
from moetui.session import Breakable, Capability, ComingSession, Mark, MarkKind, Playback
from moetui.tui import debugging, leaving
from moetui.tui.app import MoetuiApp
from moetui.tui.bars import TABS, TabBar
from moetui.tui.leaving import at_stake
from moetui.tui.lines import LineWidget, Part, choose
from moetui.tui.loading import LoadingView
from moetui.tui.options import Look, ScreenOptions
from moetui.tui.palette import Commands
from moetui.tui.prompt import PromptInput
from moetui.tui.status import LineFacts, RunFacts, title_parts
from moetui.tui.widgets.balance import BalanceStrip
from tests.tui.hosts import lines_of
from tests.tui.scripted import ScriptedSession

SIZES = [(80, 24), (120, 40), (40, 12)]
LOOK = Look("truecolor", slow=False, ascii=False, mouse=True)
PROMPT = "once there was a small river"


@asynccontextmanager
async def running(
    session: ScriptedSession, size: tuple[int, int] = (100, 30), look: Look = LOOK, **options: Any
) -> AsyncIterator[tuple[MoetuiApp, Pilot[Any]]]:
    app = MoetuiApp(session, ScreenOptions(**options), look)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: ("open", None) in session.asked)
        await calm(app, pilot)
        yield app, pilot


def line(app: MoetuiApp, selector: str) -> str:
    return app.query_one(selector, LineWidget).render_line(0).text


def shown(app: MoetuiApp) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def until(pilot: Pilot[Any], true: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        await pilot.pause(0.02)


async def calm(app: MoetuiApp, pilot: Pilot[Any]) -> None:
    """Wait until all that happened was read and painted."""
    quiet = 0
    while quiet < 3:
        await pilot.pause(0.03)
        quiet = 0 if app.ticker._dirty.is_set() or app.session._mail._waiting else quiet + 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", SIZES)
async def test_the_first_picture_comes_before_the_model(size: tuple[int, int]) -> None:
    session = ScriptedSession(loads=False)
    async with running(session, size) as (app, pilot):
        assert ("open", None) in session.asked
        assert "loading" in line(app, "#title")
        await until(pilot, lambda: "importing torch" in shown(app))
        session.progress("reading weights", 0.62)
        await until(pilot, lambda: "62%" in shown(app))
        session.finish_loading()
        await until(pilot, lambda: not app.query(LoadingView))
        assert app.query("#network")


async def test_a_session_is_made_behind_the_first_picture() -> None:
    session = ScriptedSession(loads=False)
    pictures: list[str] = []

    def make() -> ScriptedSession:
        pictures.append(shown(app))
        return session

    app = MoetuiApp(ComingSession("demo", make, settings=session.settings), ScreenOptions(), LOOK)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: ("open", None) in session.asked)
        await calm(app, pilot)
        assert app.session is session
        for text in ("demo", "loading", "1 Network", "4 Profiler", "type a prompt", "opening demo", "help"):
            assert text in pictures[0], text
        assert [*pictures[1:]] == [], "made once"


async def test_a_prompt_typed_while_loading_runs_when_ready() -> None:
    session = ScriptedSession(loads=False)
    async with running(session) as (_, pilot):
        await pilot.press(*"once", "space", *"there", "enter")
        assert not [what for what, _ in session.asked if what == "generate"]
        session.finish_loading()
        await until(pilot, lambda: ("generate", "once there") in session.asked)


async def test_the_prompt_of_the_command_line_runs_when_there_is_something_to_see_it_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = ScriptedSession(loads=False)
    pictures: list[str] = []
    generate = session.generate

    def looked_at(prompt: str, settings: Any = None) -> None:
        pictures.append(shown(app))
        generate(prompt, settings)

    monkeypatch.setattr(session, "generate", looked_at)
    async with running(session, prompt=PROMPT) as (app, pilot):
        assert app.query_one(PromptInput).value == PROMPT
        session.finish_loading()
        await until(pilot, lambda: pictures)
        assert "no tokens yet" in pictures[0]
        assert "opening demo" not in pictures[0]
        await until(pilot, lambda: "running" in line(app, "#title"))
        assert app.focused is not None
        assert app.focused.id != "prompt", "the keys are the panel's"


@pytest.mark.parametrize("refused", [False, True])
async def test_a_prompt_typed_while_loading_runs_behind_that_of_the_command_line(
    refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ScriptedSession(loads=False)
    generate = session.generate

    def no_other(prompt: str, settings: Any = None) -> None:
        if refused and prompt == PROMPT:
            raise UsageError("not that one")
        generate(prompt, settings)

    monkeypatch.setattr(session, "generate", no_other)

    def ran() -> list[object]:
        return [what for how, what in session.asked if how == "generate"]

    async with running(session, prompt=PROMPT) as (app, pilot):
        await pilot.press("p", "enter")  # the command line's own, which is to run anyway
        await pilot.press(*"def", "enter")
        await until(pilot, lambda: "runs next" in shown(app))
        session.finish_loading()
        if not refused:
            await until(pilot, ran)
            await calm(app, pilot)
            assert ran() == [PROMPT]
            assert "runs next" in shown(app)
            session.set_state(RunState.FINISHED)
        await until(pilot, lambda: "def" in ran())
        session.set_state(RunState.FINISHED)
        await calm(app, pilot)
        assert ran() == (["def"] if refused else [PROMPT, "def"])


async def test_a_prompt_that_cannot_be_drawn_as_it_is_runs_but_stands_in_no_line() -> None:
    session = ScriptedSession(loads=False)
    async with running(session, prompt="a\x1b[31mb") as (app, pilot):
        assert not app.query_one(PromptInput).value
        session.finish_loading()
        await until(pilot, lambda: ("generate", "a\x1b[31mb") in session.asked)


@pytest.mark.parametrize("loads", [True, False])
async def test_an_empty_prompt_says_what_is_missing(loads: bool) -> None:
    session = ScriptedSession(loads=loads)
    async with running(session) as (app, pilot):
        await pilot.press("space", "space", "enter")
        await until(pilot, lambda: "the prompt is empty" in shown(app))
        assert "type what the model is to go on with, then ↵" in shown(app)
        assert not [what for what, _ in session.asked if what == "generate"]


async def test_keys_pressed_while_the_command_lines_prompt_waits_leave_it_alone() -> None:
    session = ScriptedSession(loads=False)
    async with running(session, prompt=PROMPT) as (app, pilot):
        assert "runs when ready" in shown(app)
        await pilot.press("space", "x", "1", "question_mark")
        await until(pilot, lambda: app.screen.is_modal)
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.is_modal)
        await pilot.press("z")
        assert app.query_one(PromptInput).value == PROMPT
        session.finish_loading()
        await until(pilot, lambda: ("generate", PROMPT) in session.asked)


async def test_a_key_quits_while_the_command_lines_prompt_waits() -> None:
    async with running(ScriptedSession(loads=False), prompt=PROMPT) as (app, pilot):
        await pilot.press("q")
        assert app._exit


async def test_a_paste_takes_the_place_of_the_command_lines_prompt() -> None:
    session = ScriptedSession(loads=False)
    async with running(session, prompt=PROMPT) as (app, pilot):
        await pilot.press("p")
        app.query_one(PromptInput).post_message(Paste("two\nlines"))
        await until(pilot, lambda: app.query_one(PromptInput).value == "two↵lines")


class _Breakable(ScriptedSession):
    """A scripted session that takes breakpoints, and is not asked for any."""

    breakpoints = add_breakpoint = change_breakpoint = remove_breakpoint = ()


async def test_a_model_that_does_not_load_says_why_and_is_an_error_after_leaving() -> None:
    session = _Breakable(loads=False)
    assert isinstance(session, Breakable)
    async with running(session) as (app, pilot):
        session.fail("no such model: foo/bar", "'moetui models' lists names")
        await until(pilot, lambda: "no such model: foo/bar" in shown(app))
        assert "'moetui models' lists names" in shown(app)
        assert "type a prompt" not in shown(app)
        await until(pilot, lambda: "q quit" in line(app, "KeyBar"))
        assert not {"prompt", "break", "console"} & set(line(app, "KeyBar").split())
        await pilot.press("q")
        error = app.failure()
        assert error is not None
        assert (error.message, error.hint) == ("no such model: foo/bar", "'moetui models' lists names")


async def test_a_prompt_given_before_that_is_refused_is_an_error_after_leaving_unless_another_ran(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = ScriptedSession()
    generate = session.generate

    def short_ones(prompt: str, settings: Any = None) -> None:
        if len(prompt) > 20:
            raise UsageError("prompt is 21 tokens, the model's context is 20", "shorten the prompt")
        generate(prompt, settings)

    monkeypatch.setattr(session, "generate", short_ones)
    async with running(session, prompt=PROMPT) as (app, pilot):
        await until(pilot, lambda: "shorten the prompt" in shown(app))
        error = app.failure()
        assert error is not None
        assert (error.message, error.exit_status) == ("prompt is 21 tokens, the model's context is 20", 2)
        await pilot.press("p", *"once", "enter")
        await until(pilot, lambda: session.state is RunState.RUNNING)
        await calm(app, pilot)
        assert app.failure() is None


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_from_the_prompt_shows_tokens(size: tuple[int, int]) -> None:
    session = ScriptedSession()
    async with running(session, size) as (app, pilot):
        await pilot.press(*"once", "space", *"there", "enter")
        await until(pilot, lambda: session.state is RunState.RUNNING)
        session.advance(6)
        await until(pilot, lambda: "7/24" in line(app, "#title"))
        assert "running" in line(app, "#title")
        assert app.focused is not None
        assert app.focused.id != "prompt"
        session.set_state(RunState.FINISHED)
        await until(pilot, lambda: "finished" in line(app, "#title"))


async def test_a_run_that_stands_has_one_rate_wherever_it_is_told() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate(PROMPT)
        session.advance(9)
        await until(pilot, lambda: "tok/s now" in line(app, "#title"))
        assert "tok/s now" in lines_of(app.query_one(BalanceStrip))[0]
        session.set_state(RunState.FINISHED)
        await until(pilot, lambda: "tok/s now" not in shown(app))
        assert session.info is not None
        rate = compute_stats(session.timeline.snapshot(), session.info)["tokens_per_second"]
        assert f"{rate:.1f} tok/s" in line(app, "#title")
        assert f"tok/s {rate:.1f}" in lines_of(app.query_one(BalanceStrip))[0]
        await pilot.press("4")
        await until(pilot, lambda: re.search(rf"decode +{rate:.1f} tok/s", shown(app)))
        assert re.search(r"step +[\d.]+ ms median", shown(app))
        await pilot.press("3", *"stats", "enter")
        await until(pilot, lambda: re.search(rf"decode tokens a second +{rate:.1f}", shown(app)))


async def test_tabs_by_number_and_by_neighbour() -> None:
    async with running(ScriptedSession()) as (app, pilot):
        await pilot.press("escape")
        for key, name in zip("2341", ("elements", "console", "profiler", "network")):
            if app.tab == "console":
                await pilot.press("ctrl+pageup", "ctrl+pagedown", "ctrl+pagedown")
            else:
                await pilot.press(key)
            assert app.tab == name
            panel = app.query_one(f"#{name}")
            assert panel.display
            assert [tab for tab in TABS if app.query(f"#{tab}") and app.query_one(f"#{tab}").display] == [name]
        await pilot.press("right_curly_bracket")
        assert app.tab == "elements"


async def test_a_click_on_a_tab_shows_it() -> None:
    async with running(ScriptedSession()) as (app, pilot):
        bar = app.query_one(TabBar)
        x = bar.render_line(0).text.index("Profiler")
        await pilot.click(TabBar, offset=(x + 1, 0))
        assert app.tab == "profiler"


async def test_run_keys_reach_the_session() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        session.generate(PROMPT)
        await until(pilot, lambda: "running" in line(app, "#title"))
        await pilot.press("space")
        assert session.state is RunState.PAUSED
        await until(pilot, lambda: "by hand" in line(app, "#state"))
        await pilot.press("n", "s", "c")
        assert [what for what, _ in session.asked][-3:] == ["step", "step_layer", "resume"]
        await pilot.press("x")
        assert session.state is RunState.FINISHED


async def test_the_place_of_a_breakpoint_is_said_and_selected() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate(PROMPT)
        session.advance(5)
        session._mail.put(BreakpointHit(1, "entropy < 0.4", 7, 3, "entropy = 0.31", 3))
        session.set_state(RunState.PAUSED, "breakpoint 1")
        await until(pilot, lambda: "entropy = 0.31" in line(app, "#state"))
        await until(pilot, lambda: "token 7 · L3" in line(app, "#state"))
        assert (app.selection.token, app.selection.site) == (7, 3)
        session.set_state(RunState.PAUSED, "before token 6")
        await until(pilot, lambda: "before token 6" in line(app, "#state"))
        assert "entropy" not in line(app, "#state"), "it stands there no longer"


async def test_ctrl_c_pauses_and_twice_quits() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        session.generate(PROMPT)
        await until(pilot, lambda: session.state is RunState.RUNNING)
        await pilot.press("ctrl+c")
        assert session.state is RunState.PAUSED
        assert not app._exit
        await pilot.press("ctrl+c")
        assert app._exit


async def test_ctrl_c_that_comes_too_late_for_a_run_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugging, "_MOMENT", 60.0)  # however long this machine takes to show that it is over
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        session.generate(PROMPT)
        session.set_state(RunState.FINISHED, "3 tokens")
        await until(pilot, lambda: "finished" in line(app, "#title"))
        await pilot.press("ctrl+c")
        assert not app._exit
        await pilot.press("ctrl+c")
        assert app._exit


@pytest.mark.parametrize("size", [(80, 24), (100, 30)])
async def test_what_is_told_beside_is_told_to_the_last_word_whatever_its_length(size: tuple[int, int]) -> None:
    async with running(ScriptedSession(), size) as (app, pilot):
        for length in range(size[0] // 2 - 8, size[0] // 2 + 2):
            app.clear_notifications()
            last = f"last{length}"
            app.say("x " * ((length - len(last)) // 2) + "x" * (length % 2) + last)
            await until(pilot, lambda text=last: text in shown(app), seconds=5.0)


async def test_the_title_counts_the_interventions_in_force() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        assert "▣" not in line(app, "#title")
        session.set_interventions((BanExperts((2,)), ForceExperts((1,))))
        await until(pilot, lambda: "▣ 2" in line(app, "#title"))
        await app.run_action("interventions")
        await until(pilot, lambda: "moe› interventions" in shown(app))
        session.set_interventions(())
        await until(pilot, lambda: "▣" not in line(app, "#title"))


@pytest.mark.parametrize("opening", ["", "slash"], ids=["prompt", "filter"])
async def test_ctrl_c_empties_a_line_that_is_typed_before_it_leaves(opening: str) -> None:
    async with running(ScriptedSession()) as (app, pilot):
        if opening:
            await pilot.press("escape", opening)
        await pilot.press(*"layer")
        await pilot.press("ctrl+c")
        assert isinstance(app.screen.focused, Input)
        assert app.screen.focused.value == ""
        assert not app._exit
        await pilot.press("ctrl+c")
        assert app._exit


@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
async def test_quit_keys(key: str) -> None:
    async with running(ScriptedSession()) as (app, pilot):
        await pilot.press("escape", key)
        assert app._exit
        assert app.return_value == 0


class _Losing(ScriptedSession):
    """A scripted session whose tokens are in no file from here on."""

    kept_until = 0


@pytest.mark.parametrize("key", ["q", "ctrl+q", "ctrl+c"])
async def test_what_took_long_and_no_file_has_gets_a_second_thought(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _Losing()
    async with running(session) as (app, pilot):
        app._leave_prompt()
        session.generate(PROMPT)
        session.advance(9)
        session.set_state(RunState.FINISHED)
        await until(pilot, lambda: "finished" in line(app, "#title"))
        assert at_stake(session) == "", "a moment's work is soon done again"
        monkeypatch.setattr(leaving, "LONG", 0.0)
        session.kept_until = session.timeline.snapshot().end
        assert at_stake(session) == "", "a file has it"
        session.kept_until -= 5
        monkeypatch.setattr(debugging, "_MOMENT", 0.0)  # what ended just now is not what ctrl+c is for
        await pilot.press(key)
        assert not app._exit
        await until(pilot, lambda: "in no file: 5 tokens" in shown(app))
        assert "save FILE" in shown(app)
        await pilot.press(key)
        assert app._exit


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.PAUSED])
async def test_within_a_run_leaving_asks_nothing(state: RunState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "LONG", 0.0)
    session = _Losing()
    async with running(session) as (app, pilot):
        app._leave_prompt()
        session.generate(PROMPT)
        session.advance(9)
        session.set_state(state)
        await until(pilot, lambda: state.value in line(app, "#title"))
        assert at_stake(session)
        await pilot.press("ctrl+q")
        assert app._exit


async def test_letters_typed_into_the_prompt_are_text() -> None:
    async with running(ScriptedSession()) as (app, pilot):
        await pilot.press(*"q1?", "space", "n")
        assert app.query_one(PromptInput).value == "q1? n"
        assert not app._exit


async def test_prompts_are_remembered_and_pasted_lines_kept() -> None:
    from textual import events

    session = ScriptedSession()
    async with running(session) as (app, pilot):
        app.query_one(PromptInput).post_message(events.Paste("one\ntwo"))
        await until(pilot, lambda: app.query_one(PromptInput).value == "one↵two")
        await pilot.press("enter")
        assert ("generate", "one\ntwo") in session.asked
        session.stop()
        await until(pilot, lambda: "finished" in line(app, "#title"))
        await pilot.press("p")
        app.query_one(PromptInput).value = ""
        await pilot.press("up")
        assert app.query_one(PromptInput).value == "one↵two"


async def test_what_the_session_refuses_is_said() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        session.generate(PROMPT)
        await until(pilot, lambda: "running" in line(app, "#title"))
        await pilot.press("p", *"abc", "enter")
        await until(pilot, lambda: "a run is going on" in shown(app))
        assert "x ends it, or 'stop' in the console" in shown(app)


async def test_markup_in_messages_is_text() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        session._mail.put(Notice("[/b] [INST] \x1b[31m odd", "warning"))
        await until(pilot, lambda: "[/b] [INST] ␛[31m odd" in shown(app))


async def test_findings_are_counted_and_listed() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        session.raise_finding(Finding("dead_expert", "warning", "expert 0 got no token", "give it text", "L5"))
        session.raise_finding(Finding("non_finite", "error", "L2 has NaN", "look there", "L2"))
        await until(pilot, lambda: "⚠ 2" in line(app, "#title"))
        await pilot.press("escape", "exclamation_mark")
        await until(pilot, lambda: "L2 has NaN" in shown(app))
        text = shown(app)
        assert text.index("L2 has NaN") < text.index("expert 0 got no token")
        assert "give it text" in text
        await pilot.press("escape")
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize("size", SIZES)
async def test_help_lists_the_bindings_in_force(size: tuple[int, int]) -> None:
    async with running(ScriptedSession(), size) as (app, pilot):
        from moetui.tui.help import HelpScreen

        await pilot.press("escape", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert isinstance(app.screen, HelpScreen)
        titles = [title for title, _ in app.screen._groups]
        assert titles[-1] == "everywhere"
        texts = [text for _, rows in app.screen._groups for _, text, _ in rows]
        assert "Let one step of the model pass" in texts
        assert "Go to a token of the recording" not in texts
        await pilot.press("escape")


async def test_the_console_opens_as_a_drawer_under_a_tab() -> None:
    async with running(ScriptedSession()) as (app, pilot):
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "console-input")
        await calm(app, pilot)
        assert app.tab == "network"
        console = app.query_one("#console")
        assert console.display
        assert 0 < console.region.height < app.query_one("#network").region.height + console.region.height
        assert app.focused is not None
        assert app.focused.id == "console-input"
        await pilot.press("escape")
        assert not console.display


async def test_the_consoles_tab_says_how_it_is_left() -> None:
    async with running(ScriptedSession(), (80, 24)) as (app, pilot):
        await pilot.press("escape", "3")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "console-input")
        await until(pilot, lambda: "esc leave" in line(app, "KeyBar"))
        await pilot.press("escape")
        await until(pilot, lambda: app.tab == "network")


async def test_keys_can_be_moved_by_settings() -> None:
    session = ScriptedSession()
    async with running(session, keys={"step": "z"}) as (app, pilot):
        session.generate(PROMPT)
        await until(pilot, lambda: "running" in line(app, "#title"))
        await pilot.press("z")
        assert session.asked[-1] == ("step", 1)
        await pilot.press("n")
        assert [what for what, _ in session.asked].count("step") == 1


async def test_what_is_said_of_keys_names_those_in_force() -> None:
    session = ScriptedSession()
    moved = {"resume": "u,f5", "stop": "z", "restart": "ctrl+t", "prompt": "i", "network.follow": "L"}
    async with running(session, (120, 40), keys=moved) as (app, pilot):
        app._leave_prompt()
        session.generate(PROMPT)
        session.advance(4)
        session.pause()
        await until(pilot, lambda: "u continue  n token  s layer" in shown(app))
        assert "z stop" in shown(app)
        assert "L stops" in shown(app)
        session.set_state(RunState.FINISHED)
        await until(pilot, lambda: "finished" in line(app, "#title"))
        await pilot.press("z")
        await until(pilot, lambda: "i types a prompt, ^t runs the last one again" in shown(app))


async def test_too_small_says_so_and_comes_back() -> None:
    session = ScriptedSession()
    async with running(session, (80, 24)) as (app, pilot):
        session.generate(PROMPT)
        session.advance(4)
        await pilot.resize_terminal(30, 8)
        await until(pilot, lambda: "40×12 needed, this is 30×8" in shown(app))
        await pilot.resize_terminal(20, 5)
        await until(pilot, lambda: line(app, "#too-small").strip() == "40×12 needed")
        app.notify("recorded: finished: 64 tokens")
        await until(pilot, lambda: bool(app.screen.query("Toast")))
        await pilot.pause()
        assert shown(app).split() == ["40×12", "needed"]
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "needed" not in shown(app) and "Network" in shown(app))


async def test_too_small_under_a_dialog_is_said_when_it_is_closed() -> None:
    async with running(ScriptedSession(), (80, 24)) as (app, pilot):
        app._leave_prompt()
        await pilot.press("question_mark")
        await pilot.resize_terminal(30, 8)
        await pilot.press("escape")
        await until(pilot, lambda: "40×12 needed" in line(app, "#too-small"))
        assert app.query_one("#too-small").region.size == (30, 8)


async def test_only_the_visible_panel_is_painted_and_only_when_something_happened() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        session.generate(PROMPT)
        await pilot.press("2")
        await until(pilot, lambda: "elements" in app._panels)
        await calm(app, pilot)
        calls: list[str] = []
        for name, panel in app._panels.items():
            panel.refresh_from = lambda view, session, name=name: calls.append(name)  # type: ignore[attr-defined]
        await pilot.pause(0.4)
        assert calls == []
        session.advance(3)
        await until(pilot, lambda: bool(calls))
        assert set(calls) == {"elements"}
        calls.clear()
        await pilot.press("1")
        await until(pilot, lambda: "network" in calls)


async def test_a_slow_screen_paints_seldom_but_ends_up_right() -> None:
    session = ScriptedSession()
    async with running(session, fps=2.0) as (app, pilot):
        session.generate(PROMPT)
        await calm(app, pilot)
        before, started = len(app.ticker._painted), time.monotonic()
        for _ in range(40):
            session.advance(1)
            await pilot.pause(0.01)
        assert len(app.ticker._painted) - before <= 2.0 * (time.monotonic() - started) + 2
        await until(pilot, lambda: "41/41" in line(app, "#title"))


async def test_a_session_learns_how_often_it_is_looked_at() -> None:
    class Paced(ScriptedSession):
        def __init__(self) -> None:
            super().__init__()
            self.paces: list[float] = []

        def pace(self, seconds: float) -> None:
            self.paces.append(seconds)

    session = Paced()
    async with running(session, fps=2.0) as (app, pilot):
        session.generate(PROMPT)
        await calm(app, pilot)
        assert set(session.paces) == {0.5}
        app.ticker.rate.fixed = app.ticker.rate.hz = 1.25  # as where the rate adapts
        app.mark_dirty("network")
        await until(pilot, lambda: session.paces[-1] == 0.8)


async def test_a_step_that_comes_behind_a_pause_is_shown_at_once() -> None:
    session = ScriptedSession()
    async with running(session) as (app, pilot):
        app.ticker.rate.ceiling, app.ticker.rate.hz = 10.0, 0.01  # the next live frame would come in minutes
        for state, at_once in ((RunState.RUNNING, False), (RunState.PAUSED, True)):
            session.set_state(state)
            await until(pilot, lambda: not session._mail._waiting)
            await pilot.pause()
            app.ticker.mark(soon=True)
            await calm(app, pilot)
            app.ticker.rate.hz = 0.01
            session.advance(1)
            if at_once:
                await until(pilot, lambda: f"{session._end}/" in line(app, "#title"))
            else:
                await until(pilot, lambda: app.ticker.dirty)
                await pilot.pause(0.5)
                assert app.ticker.dirty
                assert f"{session._end}/" not in line(app, "#title")


async def test_a_bug_in_a_task_ends_the_app_with_that_bug() -> None:
    session = ScriptedSession()
    app = MoetuiApp(session, ScreenOptions(), LOOK)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it is raised when the app has ended
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "network" in app._panels)
            app._panels["network"].refresh_from = lambda view, session: 1 / 0  # type: ignore[attr-defined]
            session.generate(PROMPT)
            await until(pilot, lambda: app.crash is not None)
    assert isinstance(app.crash, ZeroDivisionError)


class Recording(ScriptedSession):
    """A recording stands at 20 of 100 tokens."""

    def __init__(self) -> None:
        super().__init__(capabilities=Capability.SEEK)
        self.playback = Playback(20, 100, 1.0)

    def set_loop(self, tokens: tuple[int, int] | None) -> None:
        self.asked.append(("set_loop", tokens))


@pytest.mark.parametrize("size", SIZES)
async def test_a_recording_has_a_transport_line_and_no_prompt(size: tuple[int, int]) -> None:
    session = Recording()
    async with running(session, size) as (app, pilot):
        assert not app.query(Input).filter("#prompt")
        assert "20/100" in line(app, "#transport")
        await pilot.press("comma", "plus", "o", "space")
        assert session.asked[-4:] == [("step", -1), ("set_speed", 2.0), ("set_loop", (0, 20)), ("resume", None)]


@pytest.mark.parametrize("quiet", [False, True])
def test_no_rate_is_told_of_a_recording_of_which_nothing_comes(quiet: bool) -> None:
    session = Recording()
    session.playback = Playback(100, 100, 1.0, quiet=quiet)
    _, right = title_parts(session, RunFacts(rate=48.1, whole=40.0), LineFacts(), 0)
    text = "".join(part.text for part in right)
    assert ("nothing new" in text, "tok/s" in text) == (quiet, not quiet)


@pytest.mark.parametrize(
    ("state", "others", "told"),
    [(RunState.FINISHED, True, True), (RunState.FINISHED, False, False), (RunState.RUNNING, True, False)],
)
def test_the_titles_rate_is_said_to_be_of_the_run_where_there_are_others(state, others, told) -> None:
    session = ScriptedSession()
    session.state = state
    _, right = title_parts(session, RunFacts(rate=48.1, whole=40.0, others=others), LineFacts(), 0)
    assert ("tok/s this run" in "".join(part.text for part in right)) == told


@pytest.mark.parametrize("width", [80, 120])
def test_the_title_has_the_programs_name_beside_a_running_run_on_a_slow_line(width: int) -> None:
    session = ScriptedSession()
    session.state, session.costs = RunState.RUNNING, {"capture": 0.03}
    facts = RunFacts(generated=1024, rate=148.1, whole=140.0), LineFacts(12.3, 9.8, 0.21)
    left, right = choose(*title_parts(session, *facts, 2000), width)
    text = "".join(part.text for part in (*left, *right))
    assert " moetui " in text
    assert "148.1 tok/s now" in text


async def test_a_click_on_the_position_bar_seeks() -> None:
    session = Recording()
    async with running(session, (100, 30)) as (app, pilot):
        text = line(app, "#transport")
        first = min(text.index("━"), text.index("─"))
        await pilot.click("#transport", offset=(text.rindex("─"), 0))
        assert session.asked[-1] == ("seek", 99)
        await pilot.click("#transport", offset=(first, 0))
        what, token = session.asked[-1]
        assert what == "seek"
        assert 0 <= token <= 2


async def test_go_to_a_token_by_its_number() -> None:
    session = Recording()
    async with running(session) as (app, pilot):
        for keys, token in (("57", 57), ("1000", 99), ("x9", 9)):
            await pilot.press("g")
            await until(pilot, lambda: app.focused is not None and app.focused.id == "seek-input")
            await pilot.press(*keys, "enter")
            await until(pilot, lambda token=token: session.asked[-1] == ("seek", token))


class Marked(Recording):
    """The same, with times and a token at which something happened."""

    marks = (
        Mark(40, "divergence", "fork [b]"),
        *(Mark(40, "interventions", f"ban {number}") for number in range(6)),
        Mark(41, "finding", "another one's"),
    )

    def token_at(self, seconds: float) -> int:
        return int(10 * seconds)

    def jump(self, direction: int = 1, *kinds: MarkKind) -> Mark | None:
        self.asked.append(("jump", direction))
        return self.marks[0] if direction > 0 else None


async def test_go_to_a_time_and_to_what_happened() -> None:
    session = Marked()
    async with running(session) as (app, pilot):
        await pilot.press("g")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "seek-input")
        await pilot.press(*"2.5s", "enter")
        await until(pilot, lambda: session.asked[-1] == ("seek", 25))
        await pilot.press("g")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "seek-input")
        await pilot.press(*"1m1", "enter")
        await until(pilot, lambda: notices(app)[-1:] == ["'1m1' is no place in a recording"])
        await pilot.press("J")
        await until(pilot, lambda: session.asked[-1] == ("jump", 1))
        assert notices(app) == ["token 40: divergence, interventions"]
        assert list(app._notifications)[-1].message.splitlines()[1] == "fork [b] · ban 0 · ban 1 · ban 2 · 3 more"
        await pilot.press("K")
        await until(pilot, lambda: notices(app)[-1] == "nothing happened before")


def notices(app: MoetuiApp) -> list[str]:
    return [one.message.splitlines()[0] for one in app._notifications]


def test_parts_are_dropped_by_rank() -> None:
    left = [Part("name", rank=0), Part("architecture", rank=2)]
    right = [Part("state", rank=0), Part("rate", rank=1)]
    assert [p.text for p in choose(left, right, 40)[0]] == ["name", "architecture"]
    kept_left, kept_right = choose(left, right, 16)
    assert [p.text for p in kept_left] == ["name"]
    assert [p.text for p in kept_right] == ["state", "rate"]
    kept_left, kept_right = choose(left, right, 11)
    assert [p.text for p in (*kept_left, *kept_right)] == ["name", "state"]


def test_a_run_of_unknown_branches_is_counted_from_all_steps() -> None:
    from moetui.tui.run_facts import run_facts

    session = ScriptedSession()
    assert isinstance(session.timeline, Timeline)
    assert run_facts(session.timeline.snapshot(), []).generated == 0
    session.generate(PROMPT)
    session.advance(9)
    facts = run_facts(session.timeline.snapshot(), [])
    assert facts.generated == 10
    assert facts.rate == pytest.approx(1 / 0.024, rel=0.1)


def test_a_fork_counts_what_it_shares() -> None:
    from moetui.tui.run_facts import run_facts

    session = ScriptedSession()
    session.generate(PROMPT)
    session.advance(9)
    (whole,) = session.branches
    start = session.timeline.snapshot().end - 4
    fork = Branch(1, 0, "fork", 0, start, session.timeline.snapshot().end)
    view = session.timeline.snapshot()
    assert run_facts(view, [whole]).generated == 10
    session.branches.append(fork)
    session._position = start
    session.advance(2)
    view = session.timeline.snapshot()
    assert run_facts(view, session.branches).generated == 8, "ten, without the last four, and two of its own"
    assert run_facts(view, [fork, whole]).generated == 10


async def test_a_burst_of_messages_leaves_the_screen_to_be_seen() -> None:
    async with running(ScriptedSession()) as (app, pilot):
        for number in (*range(8), 7, 7):
            app.say(f"message {number}")
        await until(pilot, lambda: "message 7" in shown(app))
        assert [shown(app).count(f"message {number}") for number in range(8)] == [0] * 5 + [1] * 3


async def test_the_palette_finds_the_consoles_commands_and_types_them() -> None:
    async with running(ScriptedSession(), (120, 40)) as (app, pilot):
        app._leave_prompt()
        await calm(app, pilot)
        commands = {each.title: each for each in app.get_system_commands(app.screen)}
        assert "seek" not in commands, "what the session cannot do"
        assert not any(commands[name].discover for name in ("ban_experts", "why", "stats")), "sixty more lines to read"
        await pilot.press("ctrl+p")
        await pilot.press(*"ban_exp")
        await until(pilot, lambda: "ban_experts" in shown(app))
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "moe› ban_experts" in shown(app))


async def test_the_palette_finds_commands_by_what_they_do_behind_those_of_that_name() -> None:
    async with running(ScriptedSession(), (120, 40)) as (app, pilot):
        app._leave_prompt()
        await calm(app, pilot)
        provider = Commands(app.screen)

        async def found(text: str) -> list[str]:
            return [str(hit.text) async for hit in provider.search(text)]

        assert "balance" in await found("evenly")
        assert "balance" in await found("router EVEN"), "words in any order, begun"
        assert "balance" not in await found("venly")
        by_score = sorted([hit async for hit in provider.search("experts")], reverse=True)
        named = ["experts" in str(hit.text) for hit in by_score]
        assert named.index(False) >= sum(named), "what is called so comes first"
        await pilot.press("ctrl+p")
        await pilot.press(*"evenly")
        await until(pilot, lambda: "How evenly each router" in shown(app))
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "moe› balance" in shown(app))


async def test_the_palette_lists_what_several_keys_do_once() -> None:
    async with running(ScriptedSession()) as (app, pilot):
        app._leave_prompt()
        await calm(app, pilot)
        commands = [(each.title, each.help) for each in app.get_system_commands(app.screen)]
        assert len({text for _, text in commands}) == len(commands)
        assert any(title == "Copy  (y f7)" for title, _ in commands), commands
