"""The console as it is typed at: history, search, words, several lines, watches, interruption."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from textual.events import Paste
from textual.pilot import Pilot

from moetui.console import History
from moetui.routing.events import Finding, RunState
from moetui.session import Capability
from moetui.tui import debugging
from moetui.tui.app import MoetuiApp
from moetui.tui.messages import ConsoleRequested
from moetui.tui.panels.console import ConsolePanel
from moetui.tui.panels.console_input import ConsoleInput
from moetui.tui.panels.console_log import ConsoleLog
from moetui.tui.panels.console_search import Search
from moetui.tui.panels.console_watches import Changes, Watch, Watches
from moetui.tui.panels.console_words import WordList
from tests.tui.scripted import LIVE, ScriptedSession
from tests.tui.test_app_shell import PROMPT, Look, calm, line, running, shown, until

HERE = LIVE & ~Capability.PYTHON  # Python in the console's own thread, as with a recording


@asynccontextmanager
async def console(
    session: ScriptedSession | None = None, size: tuple[int, int] = (100, 30), **options: Any
) -> AsyncIterator[tuple[MoetuiApp, Pilot[Any], ConsoleInput]]:
    session = session or ScriptedSession(capabilities=HERE)
    async with running(session, size, **options) as (app, pilot):
        await app.action_tab("console")
        await until(pilot, lambda: bool(app.query(ConsoleInput)) and app.focused is app.query_one(ConsoleInput))
        yield app, pilot, app.query_one(ConsoleInput)


def words(app: MoetuiApp) -> list[str]:
    """The words shown, the chosen one with a mark."""
    found = app.query_one(WordList)
    return [found.render_line(y).text.strip("▏ ") for y in range(found.size.height)] if found.display else []


async def ran(app: MoetuiApp, pilot: Pilot[Any], text: str) -> None:
    await until(pilot, lambda: text in shown(app) and not app.query_one(ConsolePanel).busy)


async def test_an_untouched_console_says_what_it_is() -> None:
    async with console() as (app, pilot, field):
        await until(pilot, lambda: " moe› type help" in shown(app))
        assert field.region.x == 6


async def test_answers_have_the_width_of_the_screen() -> None:
    async with console(size=(130, 30)) as (app, pilot, _):
        await pilot.press(*"'x' * 110", "enter")
        await ran(app, pilot, "x" * 110)


async def test_lines_are_kept_from_session_to_session(tmp_path: Path) -> None:
    async with console(state=tmp_path) as (app, pilot, _):
        await pilot.press(*"11+1", "enter")
        await ran(app, pilot, "12")
    async with console(state=tmp_path) as (app, pilot, field):
        await pilot.press(*"draft", "up")
        assert field.value == "11+1"
        await pilot.press("down")
        assert field.value == "draft"
    assert [json.loads(row) for row in (tmp_path / "console_history").read_text().splitlines()] == ["11+1"]


async def test_a_history_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "console_history").mkdir()
    async with console(state=tmp_path) as (app, pilot, _):
        await until(pilot, lambda: "the history is not kept" in shown(app))


def test_the_search_goes_from_newer_to_older_lines() -> None:
    history = History()
    for text in ("stats", "ban_experts 2", "balance", "ban_experts 3"):
        history.add(text)
    search = Search(history, "draft")
    assert search.line == "draft"
    search.type("b")
    search.type("a")
    assert search.line == "ban_experts 3"
    search.older()
    assert search.line == "balance"
    search.type("n")
    assert search.line == "ban_experts 2"
    search.older()
    assert (search.line, search.failed) == ("ban_experts 2", True)
    search.shorten()
    assert (search.line, search.failed) == ("ban_experts 3", False)


async def test_search_by_keys() -> None:
    async with console() as (app, pilot, field):
        for text in ("10 + 1", "20 + 2"):
            await pilot.press(*text, "enter")
            await ran(app, pilot, str(eval(text)))
        await pilot.press(*"half", "ctrl+r", "plus")
        assert field.value == "20 + 2"
        assert "find›" in shown(app)
        await pilot.press("ctrl+r")
        assert field.value == "10 + 1"
        await pilot.press("escape")
        assert field.value == "half"
        assert "moe›" in shown(app)
        await pilot.press("ctrl+u", "ctrl+r", "2", "0", "end", "backspace", "5", "enter")
        await ran(app, pilot, "20 + 5")
        await pilot.press("ctrl+r", *"zzz")
        await until(pilot, lambda: "no line with zzz" in shown(app))


async def test_a_block_is_typed_over_several_lines() -> None:
    async with console() as (app, pilot, field):
        await pilot.press(*"for i in (7, 8):", "enter")
        assert field.value == "for i in (7, 8):\n    "
        await pilot.press(*"print(i * 11)", "enter")
        await until(pilot, lambda: field.size.height == 3)
        await pilot.press("enter")
        await ran(app, pilot, "88")
        assert "   ··     print(i * 11)" in shown(app)
        assert field.value == ""
        await until(pilot, lambda: field.size.height == 1)
        await pilot.press("up")
        assert field.value == "for i in (7, 8):\n    print(i * 11)"
        await pilot.press("up", "up", "down")
        assert field.value == "for i in (7, 8):\n    print(i * 11)"
        await pilot.press("down")
        assert field.value == ""


async def test_pasted_lines_are_one_text_without_characters_that_a_terminal_obeys() -> None:
    async with console() as (app, pilot, field):
        field.post_message(Paste("a = 5\r\nb = '\x1b[31m'\n"))
        await until(pilot, lambda: field.value == "a = 5\nb = '␛[31m'")
        await pilot.press("enter")
        await ran(app, pilot, "moe› a = 5")
        await pilot.press("ctrl+o")
        assert field.value == "\n"


async def test_words_are_shown_chosen_narrowed_and_taken() -> None:
    async with console() as (app, pilot, field):
        await pilot.press(*"set_", "tab")
        await until(pilot, lambda: len(words(app)) == 4)
        assert words(app)[0] == "set_top_k"
        await pilot.press("tab", "tab")
        await until(pilot, lambda: "set_expert_capacity FACTOR" in shown(app))
        await pilot.press("up")
        await until(pilot, lambda: "set_top_k K" in shown(app))
        await pilot.press("enter")
        assert field.value == "set_top_k "
        await until(pilot, lambda: not words(app))
        await pilot.press("ctrl+u", *"set_", "tab", *"router_")
        await until(pilot, lambda: words(app) == ["set_router_temperature", "set_router_noise"])
        await pilot.press("escape")
        await until(pilot, lambda: not words(app))
        assert field.value == "set_router_"
        await pilot.press(*"no", "tab")
        assert field.value == "set_router_noise "


async def test_a_word_can_be_clicked() -> None:
    async with console() as (app, pilot, field):
        await pilot.press(*"set_", "tab")
        await until(pilot, lambda: len(words(app)) == 4)
        await pilot.click(WordList, offset=(3, 3))
        await until(pilot, lambda: field.value == "set_router_noise ")


@pytest.mark.parametrize("size", [(40, 12), (80, 24)])
async def test_words_fit_into_a_drawer(size: tuple[int, int]) -> None:
    async with running(ScriptedSession(capabilities=HERE), size) as (app, pilot):
        await pilot.press("escape", "escape")
        await until(pilot, lambda: bool(app.query(ConsoleInput)) and app.focused is app.query_one(ConsoleInput))
        await pilot.press("tab")
        await until(pilot, lambda: bool(words(app)))
        panel, found = app.query_one(ConsolePanel).region, app.query_one(WordList).region
        assert panel.contains_region(found)
        assert not found.overlaps(app.query_one(ConsoleInput).region)
        await pilot.press(*["down"] * 20)
        await until(pilot, lambda: app.query_one(ConsoleInput).chosen_word in words(app)[-1])


async def test_the_signature_is_shown_while_a_command_is_typed() -> None:
    async with console(size=(120, 30)) as (app, pilot, _):
        await pilot.press(*"ban_experts ")
        await until(pilot, lambda: "ban_experts EXPERTS ... [--layers LAYERS]" in shown(app))
        await pilot.press("ctrl+u", *"moe.set_top_k(")
        await until(pilot, lambda: "moe.set_top_k(k, *, layers=None" in shown(app))
        await pilot.press("ctrl+u")
        await until(pilot, lambda: "set_top_k" not in shown(app))


async def test_a_line_that_runs_is_given_up_with_ctrl_c() -> None:
    async with console() as (app, pilot, _):
        await pilot.press(*"while 1: __import__('time').sleep(.01)", "enter", "enter")
        await until(pilot, lambda: "ctrl+c gives it up" in shown(app))
        await pilot.press("ctrl+c")
        await ran(app, pilot, "error: interrupted")
        assert not app._exit
        assert app.session.state is RunState.READY
        await pilot.press(*"6*7", "enter")
        await ran(app, pilot, "42")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_what_is_told_beside_leaves_the_line_being_typed_readable(size: tuple[int, int]) -> None:
    async with console(size=size) as (app, pilot, line_):
        app.notify("first")
        app.notify("and a second one that is long enough for the whole width of what is told beside")
        await until(pilot, lambda: "and a second" in shown(app))
        bottom = max(toast.region.bottom for toast in app.screen.query("Toast"))
        assert bottom <= line_.region.y - 1, "the line, and its signature above it"


async def test_ctrl_c_that_comes_too_late_for_a_line_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugging, "_MOMENT", 60.0)  # however long this machine takes to show that it is over
    async with console() as (app, pilot, _):
        await pilot.press(*"6*7", "enter")
        await ran(app, pilot, "42")
        await pilot.press("ctrl+c")
        assert not app._exit
        await until(pilot, lambda: "that was over already; ctrl+c once more quits" in shown(app))
        await pilot.press("ctrl+c")
        assert app._exit


async def test_ctrl_c_empties_the_line_that_is_typed_and_once_more_leaves() -> None:
    async with console() as (app, pilot, line_):
        await pilot.press(*"fi", "tab")
        await until(pilot, lambda: bool(line_.words))
        await pilot.press("ctrl+c")
        assert (line_.value, line_.words) == ("", ())
        assert not app._exit
        await until(pilot, lambda: "the line is empty; ctrl+c once more quits" in shown(app))
        await pilot.press("ctrl+c")
        assert app._exit


async def test_ctrl_c_twice_quits_whatever_runs() -> None:
    async with console() as (app, pilot, _):
        await pilot.press(*"while 1: __import__('time').sleep(.01)", "enter", "enter")
        await until(pilot, lambda: app.query_one(ConsolePanel).busy)
        await pilot.press("ctrl+c", "ctrl+c")
        assert app._exit


def test_watches_are_marked_where_they_differ_from_the_last_stop() -> None:
    def watch(values: str) -> list[Watch]:
        return [Watch("entropy < 1", None, values)]

    changes = Changes()
    assert changes.take(watch("1.0"), stands=True) == [False]
    assert changes.take(watch("1.5"), stands=False) == [True]
    assert changes.take(watch("1.0"), stands=False) == [False]
    assert changes.take(watch("2.0"), stands=True) == [True]  # a stop: marks say what is other than at the one before
    assert changes.take(watch("2.0"), stands=True) == [True]
    assert changes.take(watch("2.0"), stands=False) == [False]
    assert changes.take([Watch("new", True, "3")], stands=True) == [False]


async def test_watches_follow_the_run() -> None:
    session = ScriptedSession(capabilities=HERE)
    async with console(session, (120, 30)) as (app, pilot, _):
        await pilot.press(*"watch entropy < 0.5 and layer:3", "enter")
        await until(pilot, lambda: app.query_one(Watches).display)
        assert "no tokens yet" in app.query_one(Watches).render_line(0).text
        session.generate(PROMPT)
        await until(pilot, lambda: "entropy = " in app.query_one(Watches).render_line(0).text)
        session.pause()
        await calm(app, pilot)
        assert app.query_one(Watches).render_line(0).text.startswith("● ")
        session.resume()
        await until(pilot, lambda: app.query_one(Watches).render_line(0).text.startswith("  "))
        session.advance(1)
        session.pause()
        await until(pilot, lambda: app.query_one(Watches).render_line(0).text.startswith("● "))
        await pilot.press(*"watch --remove 1", "enter")
        await until(pilot, lambda: not app.query_one(Watches).display)


async def test_watches_are_shown_though_their_name_was_given_away() -> None:
    async with console(size=(120, 30)) as (app, pilot, _):
        await pilot.press(*"watch entropy < 0.5", "enter")
        await until(pilot, lambda: app.query_one(Watches).display)
        await pilot.press(*"watch = 7", "enter", *"6 * watch", "enter")
        await ran(app, pilot, "42")
        assert "entropy < 0.5" in app.query_one(Watches).render_line(0).text


async def test_clear_empties_the_log_and_another_width_draws_it_anew() -> None:
    async with console(size=(120, 30)) as (app, pilot, _):
        await pilot.press(*"help", "enter")
        await ran(app, pilot, "Python")
        log = app.query_one(ConsoleLog)
        long_before = len(log.lines)
        assert log.max_scroll_y == log.scroll_offset.y > 0
        await pilot.resize_terminal(50, 20)
        await until(pilot, lambda: len(log.lines) != long_before)
        assert max(strip.cell_length for strip in log.lines) <= 50
        await until(pilot, lambda: log.scroll_offset.y == log.max_scroll_y)
        await pilot.press("pageup")
        assert log.scroll_offset.y < log.max_scroll_y
        await pilot.press(*"clear", "enter")
        await until(pilot, lambda: len(log.lines) == 0)


async def test_what_comes_while_it_is_hidden_is_drawn_as_wide_as_the_screen() -> None:
    session = ScriptedSession(capabilities=HERE)
    async with running(session, (100, 30)) as (app, pilot):
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen.has_class("-drawer"))
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.has_class("-drawer"))
        app.query_one(ConsoleLog).put(Text("word " * 18))
        app.post_message(ConsoleRequested("'x' * 90", run=True))
        await until(pilot, lambda: "x" * 90 in shown(app))
        assert "word " * 17 + "word" in shown(app)


async def test_the_log_is_bounded() -> None:
    async with console() as (app, pilot, _):
        log = app.query_one(ConsoleLog)
        for number in range(6000):
            log.put(Text(str(number)))
        await pilot.pause()
        assert len(log.lines) == 5000
        assert len(log._entries) == 1000


async def test_a_run_that_begins_leaves_the_drawer_its_keys() -> None:
    session = ScriptedSession(capabilities=HERE)
    async with running(session) as (app, pilot):
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "console-input")
        await pilot.press(*"generate a river", "enter")
        await until(pilot, lambda: "running" in line(app, "#title"))
        session.learn()
        session.raise_finding(Finding("heard", "info", "the model was told of again"))
        await until(pilot, lambda: "⚠ 1" in line(app, "#title"))
        assert app.focused is app.query_one(ConsoleInput)


async def test_escape_leaves_the_tab_and_closes_the_drawer() -> None:
    async with console() as (app, pilot, _):
        await pilot.press(*"1 + ", "escape")
        await until(pilot, lambda: app.tab == "network")
        assert app.query_one(ConsoleInput).text == "1 + ", "what was typed waits there"
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.has_class("-drawer") and app.focused is app.query_one(ConsoleInput))
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.has_class("-drawer"))
        assert app.tab == "network"


async def test_the_drawer_is_under_tabs_that_were_opened_after_it() -> None:
    async with running(ScriptedSession(capabilities=HERE), (120, 40)) as (app, pilot):
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen.has_class("-drawer"))
        for tab in ("elements", "profiler"):
            await app.action_tab(tab)
            await until(pilot, lambda tab=tab: app._panels[tab].region.height > 0)
            assert app._panels["console"].region.y == app._panels[tab].region.bottom
            assert app.query_one(ConsoleInput).region.bottom <= 40


async def test_without_python_and_in_ascii() -> None:
    async with running(
        ScriptedSession(capabilities=HERE), (100, 30), Look("none", slow=False, ascii=True, mouse=True), python=False
    ) as (app, pilot):
        await app.action_tab("console")
        await pilot.press(*"1+1", "enter")
        await ran(app, pilot, "no such command")
        assert "moe> 1+1" in shown(app)
        await pilot.press(*"set_", "tab", "tab")
        await pilot.press(*"experts", "enter")
        assert shown(app).isascii()
