"""What is handed on of a screen: rows that no spreadsheet runs, on the clipboard or in files, and pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from textual.pilot import Pilot

from moetui.console.tables import plain_value
from moetui.routing import Phase, drawable
from moetui.session import ReplaySession
from moetui.tui.app import MoetuiApp
from moetui.tui.help import HelpScreen
from moetui.tui.options import Look, ScreenOptions, resolve
from moetui.tui.panels.console import ConsolePanel
from moetui.tui.panels.elements import ElementsPanel
from moetui.tui.widgets.heatmap import Heatmap
from moetui.tui.widgets.sharing import as_csv
from moetui.tui.widgets.token_detail import TokenDetail
from tests.hostile import CORPUS, record
from tests.tui.scripted import WORDS, ScriptedSession
from tests.tui.test_app_shell import LOOK, calm, running, shown, until
from tests.tui.test_help import rows as keys_of


def test_rows_carry_no_formulas() -> None:
    text = as_csv([("=1+1", " +2", "@x", "-3", -3, "a\tb", "\x1b[31m", float("nan"), 0.1234567)], "\t")
    assert text == "'=1+1\t' +2\t'@x\t'-3\t-3\ta⇥b\t␛[31m\t\t0.123457\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,234", 1234), ("-0.25", -0.25), ("+3", 3), ("12%", 0.12), ("1.3×", 1.3), ("∞", float("inf")), ("L0", "L0")]
    + [(same, same) for same in ("1,23", "1.2.3", "", "=1", "3 of 4", "-", "٣")],
)
def test_numbers_as_drawn_are_numbers_again(text: str, value: object) -> None:
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


def test_what_is_unknown_is_nothing() -> None:
    assert as_csv([(plain_value("–"), plain_value(" 1.50 "))]) == ",1.5\n"


async def run_some(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession, tab: str, tokens: int = 20) -> None:
    session.generate("once there was a river")
    session.advance(tokens)
    app._leave_prompt()
    await app.action_tab(tab)
    await calm(app, pilot)


async def copied(app: MoetuiApp, pilot: Pilot[Any], key: str = "y") -> list[list[str]]:
    app._clipboard = ""
    await pilot.press(key)
    await until(pilot, lambda: app.clipboard)
    return list(csv.reader(app.clipboard.splitlines(), delimiter="\t"))


async def test_the_network_tab_hands_on_what_has_the_focus() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        await run_some(app, pilot, session, "network")
        tokens = await copied(app, pilot)
        assert tokens[0][:3] == ["index", "branch", "phase"]
        assert len(tokens) == 1 + 5 + 20
        app.screen.set_focus(app.query_one(Heatmap))
        heat = await copied(app, pilot)
        assert (heat[0], len(heat)) == (["site", *"01234567"], 7)
        app.screen.set_focus(app.query_one(TokenDetail))
        assert len(await copied(app, pilot)) == 1 + 6 * 2
        await pilot.press("slash")
        assert await copied(app, pilot, "f7") == tokens, "from a line that is typed in, by a key that is no letter"


async def test_the_tree_and_the_details_of_a_node() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        await run_some(app, pilot, session, "elements")
        view = app.query_one(ElementsPanel).view
        view.reveal(2, 5)
        view.action_move(1)
        view.action_move(-1)
        await calm(app, pilot)
        tree = await copied(app, pilot)
        assert tree[0] == ["depth", "path", "name", "what", "parameters", "bytes", "share_of_tokens"]
        expert = next(row for row in tree if row[1] == "model.layers.2.mlp.experts[5]")
        chosen = session.timeline.snapshot().routing(0, 25).indices[:, 2]
        assert float(expert[6]) == pytest.approx((chosen == 5).any(1).mean(), abs=1e-5)
        assert int(expert[4]) == 320 * 128 + 128 * 160
        app.screen.set_focus(app.query_one("#facts"))
        facts = {(fact, of): value for fact, of, value in await copied(app, pilot)}
        assert facts["tokens", ""] == str(int((chosen == 5).any(1).sum()))
        assert facts["shape", "gate_up_proj[5]"] == "320x128"
        view.action_move(-1_000_000)
        await calm(app, pilot)
        facts = {(fact, of): value for fact, of, value in await copied(app, pilot)}
        assert facts["architecture", ""] == "MixtralForCausalLM"
        assert facts["parameters", "experts"] == str(6 * 8 * (320 * 128 + 128 * 160))


async def test_the_boxes_of_the_profiler() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        await run_some(app, pilot, session, "profiler")
        rates = await copied(app, pilot)
        steps = session.timeline.snapshot().steps()
        decode = steps.duration[steps.phase == Phase.DECODE]
        assert rates[0] == ["steps_before_now", "ms", "tokens_per_second"]
        assert [float(row[1]) for row in rates[1:]] == pytest.approx(decode.tolist(), rel=1e-5)
        assert rates[-1][0] == "0"
        seen = {}
        for name in ("self", "layers", "experts"):
            app.screen.set_focus(app.query_one(f"#profile-{name}"))
            seen[name] = await copied(app, pilot)
        assert int(seen["self"][1][2]) > 1_000_000
        assert ["hooks", "share of the run's time", "0.003"] in seen["self"]
        assert [row[:2] for row in seen["layers"][1:3]] == [["start", "L0"], ["L0", "L1"]]
        assert sum(int(row[3]) for row in seen["experts"][1:]) == 25 * 6 * 2


async def test_the_newest_table_of_the_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        await run_some(app, pilot, session, "console")
        await pilot.press("f7")
        await until(pilot, lambda: "nothing to copy here yet" in shown(app))
        await pilot.press(*"layers", "enter", "y")
        await until(pilot, lambda: "renormalised" in shown(app))
        layers = await copied(app, pilot, "f7")
        assert [row[0] for row in layers] == ["site", *(f"L{n}" for n in range(6))]
        await pilot.press("backspace", *"tokens", "enter", *"help", "enter")
        panel = app.query_one(ConsolePanel)
        await until(pilot, lambda: panel._line == "help" and not panel.busy)
        tokens = await copied(app, pilot, "f7")
        assert {row[1].strip("·") for row in tokens[1:]} <= set(WORDS) | {"‹›"}
        assert [row[0] for row in tokens[1:]] == sorted((row[0] for row in tokens[1:]), key=int)
        await pilot.press(*"experts", "enter")
        await until(pilot, lambda: "× uniform" in shown(app))
        await pilot.press("f8")
        await until(pilot, lambda: (tmp_path / "moetui-experts.csv").exists())
        heat = list(csv.reader((tmp_path / "moetui-experts.csv").read_text(encoding="utf-8").splitlines()))
        assert [sum(map(float, row[1:])) for row in heat[1:]] == pytest.approx([8.0] * 6, abs=1e-4)
        await pilot.press("ctrl+l", "f7")
        assert app.shared_part() is None


async def test_nothing_of_a_recording_is_copied_raw(tmp_path: Path) -> None:
    session = ReplaySession(record(tmp_path / "a.msgpack", CORPUS, "=\x1b]0;x\x07\u202e"), start="end", paused=True)
    app = MoetuiApp(session, ScreenOptions(), LOOK)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.settled)
        seen = []
        for tab in ("network", "elements", "profiler", "console"):
            await app.action_tab(tab)
            await until(pilot, lambda: app.settled)
            if tab == "console":
                await pilot.press(*"layers", "enter")
                await until(pilot, lambda: app.shared_part() is not None)
            for part in [part for part in app.query_one(f"#{tab}").query("*") if part.focusable]:
                app.screen.set_focus(part)
                await pilot.pause()
                seen += await copied(app, pilot, "f7")
    session.close()
    cells = [cell for row in seen for cell in row]
    assert len(cells) > 1000
    assert [cell for cell in cells if cell != drawable(cell)] == []
    assert [cell for cell in cells if cell[:1] in ("=", "+", "@") and not cell[1:2].isdigit()] == []


async def test_what_a_terminal_cannot_take_is_written_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session = ScriptedSession()
    async with running(session, (120, 40), Look("256", False, ascii=False, mouse=True, clipboard=False)) as (
        app,
        pilot,
    ):
        await run_some(app, pilot, session, "network")
        for name in ("moetui-tokens.csv", "moetui-tokens-2.csv"):
            await pilot.press("y")
            await until(pilot, lambda name=name: f"25 rows in {name}" in shown(app))
            assert (tmp_path / name).read_text(encoding="utf-8").count("\n") == 26
        assert not app.clipboard
    long = ScriptedSession()
    async with running(long, (120, 40)) as (app, pilot):
        await run_some(app, pilot, long, "network", tokens=1000)
        await pilot.press("y")
        await until(pilot, lambda: "1,005 rows in moetui-tokens-3.csv" in shown(app))
        assert not app.clipboard


@pytest.mark.parametrize("takes", [True, False])
async def test_inside_tmux_the_rows_are_given_to_tmux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: bool
) -> None:
    """With its own settings tmux drops what a program sends to the clipboard."""
    tmux = tmp_path / "tmux"
    tmux.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\ncat > {tmp_path}/got\nexit {0 if takes else 1}\n')
    tmux.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    look = resolve(ScreenOptions(color="256"), {"TERM": "screen-256color", "TMUX": "/tmp/tmux-0/default,1,0"})
    session = ScriptedSession()
    async with running(session, (120, 40), look) as (app, pilot):
        await run_some(app, pilot, session, "network")
        await pilot.press("y")
        words = "25 rows in tmux's buffer" if takes else "25 rows sent to the terminal's clipboard"
        await until(pilot, lambda: words in shown(app))
        assert (tmp_path / "said").read_text().split() == ["load-buffer", "-w", "-"]
        assert (tmp_path / "got").read_text(encoding="utf-8").count("\n") == 26
        assert bool(app.clipboard) is not takes


@pytest.mark.parametrize(
    ("environ", "can"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "linux"}, False),
        ({"TERM": "screen", "STY": "1.pts"}, False),
        ({"TERM": "screen-256color", "TMUX": "/x"}, True),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, False),
    ],
)
def test_terminals_known_to_have_no_clipboard(environ: dict[str, str], can: bool) -> None:
    assert resolve(ScreenOptions(), environ).clipboard is can


async def test_the_keys_are_listed_where_there_is_something_to_copy() -> None:
    session = ScriptedSession(loads=False)
    async with running(session, (120, 40)) as (app, pilot):
        app._leave_prompt()
        await pilot.pause()
        assert not [keys for keys in keys_of(app) if "y" in keys.split()]
        session.finish_loading()
        await run_some(app, pilot, session, "profiler")
        assert keys_of(app)["y f7"] == "Copy the table or map that has the focus"
        assert keys_of(app)["Y f8"] == "Write it to a CSV file"
        found = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Copy  (y f7)", "Save csv  (Y f8)", "Picture  (P)"} <= found
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))


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
