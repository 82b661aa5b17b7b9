"""Elements, Console and Profiler: what they say must be what the timeline holds."""

from __future__ import annotations

import math
import re
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.style import Style
from textual.events import Key
from textual.widgets import Static

from moetui.routing import ModelInfo, Phase, Timeline, UsageError
from moetui.routing.analyses import PartTime, TimeByPart
from moetui.routing.events import RunState
from moetui.routing.metrics import probabilities
from moetui.session import Capability, ReplaySession
from moetui.trace import import_file
from moetui.tui.app import MoetuiApp
from moetui.tui.ink import Ink
from moetui.tui.messages import Selection, TokenSelected
from moetui.tui.options import Look, ScreenOptions, check_terminal, resolve
from moetui.tui.panels.console_input import ConsoleInput
from moetui.tui.panels.element_facts import expert_facts, recent, router_facts, usage
from moetui.tui.panels.element_text import Piece, Row, module_rows, rows_text, weight_rows
from moetui.tui.panels.elements import ElementsPanel
from moetui.tui.panels.network import NetworkPanel
from moetui.tui.panels.outline import Outline, bytes_text, count_text
from moetui.tui.panels.outline_view import OutlineView
from moetui.tui.panels.profile_facts import expert_loads, step_facts, stretches
from moetui.tui.panels.profile_text import rate_rows
from moetui.tui.panels.weights import WeightFacts
from moetui.tui.status import LineFacts, RunFacts, title_parts
from moetui.tui.widgets.box import Box
from moetui.tui.widgets.heatmap import Heatmap
from moetui.tui.widgets.token_table import TokenTable
from tests.tui.scripted import LIVE, Router, ScriptedSession, model_info
from tests.tui.test_app_shell import PROMPT, calm, running, shown, until

LOOK = Look("truecolor", slow=False, ascii=False, mouse=True)


def filled(info: ModelInfo, decode: int = 40) -> Timeline:
    timeline, router = Timeline(info), Router(info)
    timeline.append(router.step(list(range(10)), 0, Phase.PREFILL))
    for position in range(decode):
        timeline.append(router.step([position % 20], 10 + position, Phase.DECODE))
    return timeline


def test_sums_of_parameters_are_those_of_all_modules_below() -> None:
    info = model_info(layers=3, experts=4)
    outline = Outline(info)
    total = sum(math.prod(p.shape) for node in info.modules for p in node.parameters)
    assert outline.root.parameters == total
    assert sum(child.parameters for child in outline.children(outline.root)) == total
    assert sum(outline.by_role().values()) == total


def test_experts_are_listed_from_the_site_where_tensors_are_fused() -> None:
    info = model_info(layers=2, experts=8)
    outline = Outline(info)
    site = info.sites[1]
    entry = next(e for e in walk(outline) if e.path == site.path)
    experts = outline.children(entry)
    assert [e.label for e in experts] == [f"E{i}" for i in range(8)]
    assert sum(e.parameters for e in experts) == entry.parameters
    assert [p.name for p in outline.parameters(experts[3])] == ["gate_up_proj[3]", "down_proj[3]"]
    assert outline.parameters(experts[3])[0].shape == (320, 128)


def walk(outline: Outline) -> list[Any]:
    out, waiting = [], [outline.root]
    while waiting:
        entry = waiting.pop()
        out.append(entry)
        waiting.extend(outline.children(entry))
    return out


def test_a_recording_without_a_module_tree_still_lists_its_experts() -> None:
    info = ModelInfo("x", "OlmoeForCausalLM", "olmoe", model_info(layers=2, experts=4).sites)
    outline = Outline(info)
    sites = outline.children(outline.root)
    assert [entry.label for entry in sites] == ["L0", "L1"]
    assert [entry.label for entry in outline.children(sites[1])] == ["E0", "E1", "E2", "E3"]


def test_layers_of_which_nothing_is_known_are_not_zero_and_routers_of_one_layer_are_one_layer() -> None:
    sites = model_info(layers=2, experts=4).sites
    info = ModelInfo("x", "Toy", "toy", (*sites, replace(sites[1], index=2, name="L1.1")))
    styles = dict.fromkeys(("label", "dim", "strong"), Style())
    for count, said in ((0, "layers – 2 with a router"), (9, "layers 9 2 with a router")):
        text = rows_text(module_rows(replace(info, num_layers=count)), styles, Ink()).plain
        assert said in " ".join(text.split())


def test_expert_facts_are_counts_of_the_timeline() -> None:
    info = model_info()
    view = filled(info).snapshot()
    seen = recent(view)
    block = view.routing(view.first, view.end)
    for expert in range(8):
        facts = expert_facts(seen, info.sites[2], expert)
        here = (block.indices[:, 2] == expert).any(-1)
        assert (facts.tokens, facts.load) == (50, int(here.sum()))
        assert facts.share == pytest.approx(here.mean())
        ids = view.tokens(view.first, view.end).token_id
        for token, share, count in facts.favourites:
            assert count == int((ids == token).sum()) >= 3
            assert share == pytest.approx(float(here[ids == token].mean()))
        for other, share in facts.partners:
            both = here & (block.indices[:, 2] == other).any(-1)
            assert share == pytest.approx(both.sum() / here.sum())
    share = usage(view, seen)
    assert share is not None
    assert share[2].sum() == pytest.approx(2.0)
    assert sum(expert_facts(seen, info.sites[2], e).mass for e in range(8)) == pytest.approx(1.0, abs=1e-3)
    assert sum(expert_facts(seen, info.sites[2], e).first for e in range(8)) == pytest.approx(1.0)


def test_router_facts_are_of_its_own_site() -> None:
    info = model_info()
    view = filled(info).snapshot()
    logits = view.routing(view.first, view.end).logits
    assert logits is not None
    for site in info.sites:
        facts = router_facts(recent(view), site)
        chances = probabilities(logits[:, site.index], site)
        entropy = -(chances * np.log(chances)).sum(-1)
        assert facts.entropy == pytest.approx(float(entropy.mean()), rel=1e-3)
        assert facts.margin > 0
        assert facts.loads.sum() == 100


def test_an_unknown_is_no_zero() -> None:
    info = model_info()
    step = Router(info).step([1, 2, 3], 0, Phase.DECODE)
    import dataclasses

    timeline = Timeline(info)
    timeline.append(dataclasses.replace(step, weights=None, logits=None))
    seen = recent(timeline.snapshot())
    facts = expert_facts(seen, info.sites[0], int(step.indices[0, 0, 0]))
    assert math.isnan(facts.mass)
    assert math.isnan(facts.weight)
    assert facts.share > 0
    assert math.isnan(router_facts(seen, info.sites[0]).entropy)


def test_stretches_add_up_to_the_step() -> None:
    info = model_info()
    view = filled(info).snapshot()
    parts, number = stretches(view.steps(), view.sites)
    assert number == 40
    assert [part.start for part in parts] == ["start", "L0", "L1", "L2", "L3", "L4", "L5"]
    mean = float(view.steps().duration[1:].mean())
    assert sum(part.ms for part in parts) == pytest.approx(mean, rel=1e-3)
    assert sum(part.share for part in parts) == pytest.approx(1.0, rel=1e-3)


def test_step_facts_and_loads() -> None:
    info = model_info()
    view = filled(info).snapshot()
    facts = step_facts(view.steps())
    assert facts.number == 40
    assert facts.median == pytest.approx(22.0, abs=1.0)
    assert facts.prefill_tokens == 10
    loads = expert_loads(view)
    assert loads is not None
    assert loads.tokens == 50
    assert (loads.loads.sum(1) == 100).all()
    assert loads.hits[-1] <= 1.0
    assert (np.diff(loads.hits) >= -1e-9).all()
    assert loads.balanced <= loads.even + 1e-9


def test_rates_say_whether_they_are_of_the_run_or_of_all_runs() -> None:
    facts = step_facts(filled(model_info()).snapshot().steps())

    def said(run: RunFacts) -> list[str]:
        return ["".join(piece.text for piece in row.pieces) for row in rate_rows(facts, run, Ink(), 40)]

    alone, one_of_many = said(RunFacts(whole=40.0)), said(RunFacts(whole=40.0, others=True))
    assert not any("run" in line for line in alone)
    assert "40.0 tok/s this run" in one_of_many[0]
    assert one_of_many[1].endswith("of 40, all runs")
    assert all(len(line) <= 40 for line in (one_of_many[0], *alone))


def test_sizes_in_words() -> None:
    assert [count_text(n) for n in (0, 61_440, 3_400_000, 46_700_000_000)] == ["0", "61,440", "3.4M", "46.7B"]
    assert [bytes_text(n) for n in (512, 2048, 13_631_488)] == ["512 B", "2.0 KiB", "13.0 MiB"]


def test_no_line_of_facts_is_longer_than_there_is_room() -> None:
    rows = [
        Row("weights", (Piece("gate_up_proj  "), Piece("320×128   "), Piece("80.0 KiB  "))),
        Row(),
        Row("", (Piece("x "),)),
    ]
    lines = rows_text(rows, {"label": Style()}, Ink(), width=26).plain.split("\n")
    assert lines == [
        "weights       gate_up_proj",
        "              320×128",
        "              80.0 KiB",
        "",
        "              x ",
    ]


async def test_the_last_of_thousands_of_experts_is_shown_where_it_is_chosen() -> None:
    session = ScriptedSession(model_info(48, 128, 8), capabilities=LIVE & ~Capability.INSPECT)
    async with running(session, (120, 40)) as (app, pilot):
        session.generate("once there was")
        await app.action_tab("elements")
        await until(pilot, lambda: app.query_one(OutlineView).entry is not None)
        app.query_one("#elements").select(Selection(None, 47, 127))  # type: ignore[attr-defined]
        await until(pilot, lambda: "L47 · expert 127" in shown(app) and "E127" in shown(app))


async def test_the_tree_by_keys_selects_for_all_panels() -> None:
    session = ScriptedSession(capabilities=LIVE & ~Capability.INSPECT)
    async with running(session, (120, 40)) as (app, pilot):
        session.generate("once there was")
        await app.action_tab("elements")
        await until(pilot, lambda: app.query_one(OutlineView).entry is not None)
        app.query_one(OutlineView).focus()
        app.query_one("#elements").select(Selection(None, 3, None))  # type: ignore[attr-defined]
        await calm(app, pilot)
        await pilot.press("down", "right", "right", "down", "down")
        await until(pilot, lambda: app.selection.expert == 2)
        entry = app.query_one(OutlineView).entry
        assert entry is not None
        assert (entry.site, entry.expert) == (3, 2)
        assert (app.selection.site, app.selection.expert) == (3, 2)
        assert "L3 · expert 2" in shown(app)
        await pilot.press("left", "left")
        assert app.query_one(OutlineView).entry.path.endswith("3.mlp.experts")  # type: ignore[union-attr]


async def test_weights_come_from_the_generation_thread_or_say_why_not() -> None:
    asked: list[Future[Any]] = []

    class Slow(ScriptedSession):
        def call(self, function: Any) -> Future[Any]:
            asked.append(Future())
            return asked[-1]

    session = Slow(capabilities=LIVE | Capability.INSPECT)
    async with running(session, (120, 40)) as (app, pilot):
        await app.action_tab("elements")
        await until(pilot, lambda: app.query_one(OutlineView).entry is not None)
        panel: Any = app.query_one("#elements")
        panel.select(Selection(None, 3, 5))
        await until(pilot, lambda: "being read" in shown(app))
        facts = WeightFacts("gate_up_proj", 0.0, 0.041, 0.31, 10.2, -0.3, 0.31, (1, 5, 20, 5, 1), False)
        asked[-1].set_result((facts,))
        await until(pilot, lambda: "norm 10.2" in shown(app))
        panel.select(Selection(None, 3, 6))
        await until(pilot, lambda: "being read" in shown(app))
        asked[-1].set_exception(RuntimeError("4-bit weights have no histogram"))
        await until(pilot, lambda: "4-bit weights have no histogram" in shown(app))
        assert len(asked) == 2


def test_what_a_recording_does_not_say_of_its_model_is_left_open() -> None:
    info = replace(model_info(), parameters=0, nbytes=0, device="", dtype="")
    said = rows_text(module_rows(info), dict.fromkeys(("label", "dim", "strong"), Style()), Ink()).plain
    assert re.search(r"parameters +–\n", said)
    session = ScriptedSession(info=info)
    session._loaded = True
    left, _ = title_parts(session, RunFacts(), LineFacts(), 24)
    assert "".join(part.text for part in left).endswith("Mixtral 6×8 top-2")


@pytest.mark.parametrize(("room", "cells"), [(60, 24), (31, 12), (18, 6)])
def test_a_histogram_has_the_room_there_is(room: int, cells: int) -> None:
    facts = WeightFacts("w", 0.0, 0.041, 0.48, 10.2, -0.48, 0.45, tuple(range(24)), False)
    rows = weight_rows((facts,), Ink(), room)
    assert f"max |w| {facts.largest:.2f}" in "".join(piece.text for row in rows for piece in row.pieces)
    low, spark, high = (piece.text for piece in rows[1].pieces)
    assert (low, len(spark), high) == ("-0.48 ", cells, " 0.45")


async def test_console_lines_run_off_the_loop_and_their_output_is_safe() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        await app.action_tab("console")
        await until(pilot, lambda: bool(app.query(ConsoleInput)) and app.focused is app.query_one(ConsoleInput))
        await pilot.press(*"help", "enter")
        await until(pilot, lambda: "Python" in shown(app))
        app.query_one(ConsoleInput).value = "'\\x1b[2J[/b]'"
        await pilot.press("enter")
        await until(pilot, lambda: "[/b]" in shown(app))
        assert "\x1b" not in shown(app)
        await pilot.press("up", "up")
        assert app.query_one(ConsoleInput).value == "help"
        await pilot.press("down", "down")
        assert app.query_one(ConsoleInput).value == ""


async def test_lines_typed_faster_than_they_are_handled_stay_apart_and_in_order() -> None:
    async with running(ScriptedSession(), (120, 40)) as (app, pilot):
        await app.action_tab("console")
        await until(pilot, lambda: bool(app.query(ConsoleInput)) and app.focused is app.query_one(ConsoleInput))
        for key in ("1", "1", "enter", "2", "2", "enter", "3"):  # in one burst, as a slow line brings them
            app.post_message(Key(key, None if key == "enter" else key))
        await until(pilot, lambda: "moe› 22" in shown(app) and app.query_one(ConsoleInput).value == "3")
        await pilot.press("up", "up")
        assert app.query_one(ConsoleInput).value == "11"


async def test_console_completion() -> None:
    async with running(ScriptedSession(), (120, 40)) as (app, pilot):
        await app.action_tab("console")
        await until(pilot, lambda: bool(app.query(ConsoleInput)) and app.focused is app.query_one(ConsoleInput))
        await pilot.press(*"gener", "tab")
        assert app.query_one(ConsoleInput).value.startswith("generate")


async def test_the_profiler_says_what_its_times_are() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate("once there was")
        session.advance(12)
        await app.action_tab("profiler")
        await until(pilot, lambda: "mean of 12 steps" in shown(app))
        text = shown(app)
        assert "host time" in text
        assert "L5 → end" in text
        assert "0.30%" in text
        app.post_message(TokenSelected(5))
        await until(pilot, lambda: "step 3" in shown(app))


class Measured(ScriptedSession):
    """A scripted session whose model can be measured."""

    analyses = ("time_by_part",)

    def __init__(self) -> None:
        super().__init__()
        self.measures: list[tuple[str, dict[str, Any], Future[Any]]] = []

    def analyze(self, name: str, **arguments: Any) -> Future[Any]:
        self.measures.append((name, arguments, Future()))
        return self.measures[-1][2]


TIMES = TimeByPart(
    (
        PartTime(0, "attention", 1.0),
        PartTime(0, "experts", 5.0),
        PartTime(1, "experts", 1.5),
        PartTime(None, "head", 2.5),
    ),
    10.0,
    9.5,
    16,
    1234,
    "host",
)


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_the_profiler_measures_the_parts_of_a_step_when_asked(size: tuple[int, int]) -> None:
    session = Measured()
    async with running(session, size) as (app, pilot):
        session.generate("once there was")
        session.advance(12)
        await app.action_tab("profiler")
        app.query_one("#profile-layers").focus()
        await until(pilot, lambda: "m measures attention, router" in shown(app))
        await pilot.press("m", "m")
        await until(pilot, lambda: "measuring: the last tokens" in shown(app))
        ((name, arguments, future),) = session.measures
        assert (name, arguments) == ("time_by_part", {"branch": session.branches[-1].id})
        future.set_result(TIMES)
        await until(pilot, lambda: "1,234 tokens" in shown(app))
        rows = [" ".join(re.sub("[│━╸]", " ", line).split()) for line in shown(app).splitlines()]
        assert any("experts 6.50 ms 65%" in row for row in rows)
        assert any("head 2.50 ms 25%" in row for row in rows)
        offered = app.query_one("#profile-layers", Box).shared()
        assert offered is not None
        assert list(offered[1]())[1:3] == [(0, "attention", 1.0, 0.1), (0, "experts", 5.0, 0.5)]
        await pilot.press("m")
        session.measures[1][2].set_exception(UsageError("7 tokens are too few", "run a longer prompt"))
        await until(pilot, lambda: "7 tokens are too few" in shown(app))
        assert "1,234 tokens" in shown(app), "what was measured before still holds"
        session.set_state(RunState.FINISHED)
        session.generate("another one")
        session.advance(3)
        await until(pilot, lambda: "m measures attention, router" in shown(app))


async def test_the_profiler_offers_to_measure_by_the_key_in_force() -> None:
    session = Measured()
    async with running(session, (120, 40), keys={"profiler.parts": "ctrl+g,m"}) as (app, pilot):
        session.generate("once there was")
        session.advance(12)
        await app.action_tab("profiler")
        await until(pilot, lambda: "^g measures attention, router" in shown(app))


@pytest.mark.parametrize("ascii_only", [False, True])
async def test_the_profiler_draws_its_chart_in_the_characters_there_are(ascii_only: bool) -> None:
    session = ScriptedSession()
    look = Look("none", slow=False, ascii=ascii_only, mouse=True)
    async with running(session, (120, 40), look=look) as (app, pilot):
        session.generate("once there was")
        session.advance(12)
        await app.action_tab("profiler")
        await until(pilot, lambda: " steps" in shown(app) and bool(app.query("#profile-chart")))
        await until(pilot, lambda: "now" in chart_text(app))
        text = chart_text(app)
        assert ("***" in text) is ascii_only
        assert text.isascii() is ascii_only
        assert "-11 steps" in text


def chart_text(app: MoetuiApp) -> str:
    chart = app.query_one("#profile-chart")
    return "\n".join(chart.render_line(y).text for y in range(chart.size.height))


async def test_the_profiler_of_tokens_without_times_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("layer,expert\n" + "0,1\n0,2\n" * 20)
    import_file(tmp_path / "x.csv", tmp_path / "x.msgpack")
    app = MoetuiApp(ReplaySession(tmp_path / "x.msgpack", start="end", paused=True), ScreenOptions(), LOOK)
    try:
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: "40/40" in shown(app))
            await app.action_tab("profiler")
            await until(pilot, lambda: shown(app).count("no times are known of these tokens") == 2)
            await until(pilot, lambda: "L0     E1       20 tokens" in shown(app))
            assert "type a prompt" not in shown(app)
            assert "0 steps" not in shown(app)
    finally:
        app.session.close()


async def test_an_empty_session_says_what_to_do_in_every_tab() -> None:
    async with running(ScriptedSession(), (120, 40)) as (app, pilot):
        await app.action_tab("profiler")
        await until(pilot, lambda: "no tokens yet" in shown(app))
        await app.action_tab("elements")
        await until(pilot, lambda: bool(app.query("#facts-text")) and bool(app.query_one("#facts-text", Static).visual))
        app.query_one("#elements").select(Selection(None, 2, 1))  # type: ignore[attr-defined]
        await until(pilot, lambda: "no token passed here yet" in shown(app))


@pytest.mark.parametrize(
    ("environ", "colors", "slow"),
    [
        ({"TERM": "xterm-256color"}, "256", False),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "truecolor", False),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "SSH_CONNECTION": "1 2 3 4"}, "256", True),
        ({"TERM": "screen"}, "16", False),
        ({"TERM": "linux"}, "16", False),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "none", False),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, "256", False),
    ],
)
def test_what_the_environment_allows(environ: dict[str, str], colors: str, slow: bool) -> None:
    look = resolve(ScreenOptions(), environ)
    assert (look.colors, look.slow) == (colors, slow)


def test_what_a_person_says_wins() -> None:
    look = resolve(ScreenOptions(color="truecolor", low_bandwidth=True), {"TERM": "linux", "NO_COLOR": "1"})
    assert (look.colors, look.slow) == ("truecolor", True)
    assert resolve(ScreenOptions(), {"LANG": "de_DE.ISO-8859-1", "TERM": "xterm"}).ascii


def test_a_dumb_terminal_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match="TERM=dumb"):
        check_terminal({"TERM": "dumb"})


def test_the_app_has_one_look() -> None:
    app = MoetuiApp(ScriptedSession(), ScreenOptions(theme="light"), LOOK)
    assert app.theme == "moetui-light"
    assert not app.ink.dark
    with pytest.raises(UsageError, match="no such"):
        MoetuiApp(ScriptedSession(), ScreenOptions(theme="no such"), LOOK)


@pytest.mark.parametrize("tab", ["elements", "profiler"])
async def test_no_number_is_cut_and_no_bar_is_squeezed_in_a_narrow_terminal(tab: str) -> None:
    session = ScriptedSession()
    async with running(session, (80, 24)) as (app, pilot):
        session.generate(PROMPT)
        session.advance(20)
        app._leave_prompt()
        await app.action_tab(tab)
        await calm(app, pilot)

        def cut() -> list[str]:
            texts = [str(static.render()) for static in app.query(Static) if (static.id or "").endswith("-text")]
            rooms = [box.content_region.width for box in app.query(Box)]
            assert len(texts) == len(rooms)
            rows = [(row, room) for text, room in zip(texts, rooms) for row in text.split("\n")]
            return [row for row, room in rows if cell_len(row.rstrip()) > room and re.search(r"\d|━", row)]

        assert cut() == []
        if tab == "elements":
            for expert in (None, 5):
                app.query_one(ElementsPanel).view.reveal(3, expert)
                app.query_one(ElementsPanel)._show()
                await calm(app, pilot)
                assert cut() == []
            bars = [row.count("━") for row in str(app.query_one("#facts-text", Static).render()).split("\n")]
            assert max(bars) <= 24
        else:
            rows = str(app.query_one("#profile-experts-text", Static).render()).split("\n")
            lengths = [row.count("━") for row in rows if "tokens" in row and "━" in row]
            assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("tab", ["network", "elements", "profiler"])
async def test_without_colour_the_focus_is_seen_at_the_title(tab: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    session = ScriptedSession()
    async with running(session, (120, 40), Look("none", slow=False, ascii=False, mouse=True)) as (app, pilot):
        session.generate(PROMPT)
        session.advance(20)
        app._leave_prompt()
        await app.action_tab(tab)
        await calm(app, pilot)
        parts = [widget for widget in app.query_one(f"#{tab}").query("*") if widget.focusable and widget.border_title]
        assert len(parts) > 1
        for part in parts:
            app.screen.set_focus(part)
            await pilot.pause()
            assert [other for other in parts if "reverse" in str(other.styles.border_title_style)] == [part]


async def test_a_token_that_is_not_in_the_picture_yet_does_not_empty_the_detail() -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate("once there was")
        session.advance(5)
        await calm(app, pilot)
        panel = app.query_one(NetworkPanel)
        before = panel.detail.facts
        assert before is not None
        panel.select(Selection(before.token + 3, 1, None))
        assert panel.detail.facts is before
        session.advance(5)
        await until(pilot, lambda: panel.detail.facts is not None and panel.detail.facts.token == before.token + 3)


async def test_a_tab_whose_styles_change_while_it_is_hidden_has_its_room_when_it_is_back() -> None:
    session = ScriptedSession()
    async with running(session, (110, 30)) as (app, pilot):
        session.generate(PROMPT)
        session.advance(20)
        await calm(app, pilot)
        tables = list(app.query(TokenTable).results()) + list(app.query(Heatmap).results())
        rooms = [table.room for table in tables]
        assert all(room.area for room in rooms)
        await pilot.press("4")
        await calm(app, pilot)
        for table in tables:
            table.notify_style_update()
            assert table.room.area in (0, table.size.area)
        session.advance(1)
        await pilot.press("1")
        await until(pilot, lambda: "waterfall" in shown(app))
        assert [table.room for table in tables] == rooms
