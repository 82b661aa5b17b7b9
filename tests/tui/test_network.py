"""The Network tab as a person uses it: one selection, the filter, the drawer, every size of screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App
from textual.geometry import Size
from textual.pilot import Pilot
from textual.widgets import Input

from moetui.routing import Timeline
from moetui.routing.events import Branch
from moetui.routing.stats import compute_stats, dead_text
from moetui.tui.ink import Ink
from moetui.tui.keys import KEYS
from moetui.tui.messages import Selection, SiteSelected, TokenSelected
from moetui.tui.panels.network import NetworkPanel
from moetui.tui.panels.network_layout import Wanted, place
from moetui.tui.widgets.balance import BalanceStrip
from moetui.tui.widgets.filter_line import FilterLine, FilterNote
from moetui.tui.widgets.heatmap import Heatmap
from moetui.tui.widgets.token_detail import TokenDetail
from moetui.tui.widgets.token_table import TokenTable
from tests.tui.builders import HOSTILE, HeldSession, bulk_timeline, make_info, make_timeline
from tests.tui.hosts import Host, heard, hosted, lines_of
from tests.tui.test_app_shell import until

BRANCHES = (Branch(0, 0, "run 0"), Branch(1, 1, "run 1"))


@asynccontextmanager
async def network(
    timeline: Timeline, size: tuple[int, int] = (120, 40), ink: Ink | None = None
) -> AsyncIterator[tuple[NetworkPanel, Pilot[None]]]:
    """The panel with a view of the timeline, the table focused."""
    panel = NetworkPanel()
    async with hosted(panel, size, ink) as pilot:
        panel.refresh_from(timeline.snapshot(), HeldSession(timeline, make_info(), branches=BRANCHES))
        panel.tokens.focus()
        await pilot.pause()
        yield panel, pilot


def note(panel: NetworkPanel) -> str:
    return panel.query_one(FilterNote).render_line(0).text.strip()


def screen_lines(pilot: Pilot[None]) -> list[str]:
    return [strip.text for strip in pilot.app.screen._compositor.render_strips()]


# -- places ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 100), st.integers(2, 100), st.integers(2, 100), st.booleans())
def test_places_tile_the_panel(width, height, heat, detail, drawer):
    places = place(Size(width, height), Wanted(heat, -(-heat // 2), detail, drawer))
    assert "tokens" in places
    assert sum(region.area for region in places.values()) == width * height
    regions = list(places.values())
    for i, a in enumerate(regions):
        assert a.x >= 0
        assert a.right <= width
        assert a.bottom <= height
        assert not any(a.overlaps(b) for b in regions[:i])


def test_what_shows_at_which_size():
    wanted = Wanted(8, 5, 8)
    assert set(place(Size(120, 37), wanted)) == {"filter", "heatmap", "detail", "tokens", "balance"}
    assert set(place(Size(80, 21), wanted)) == {"filter", "heatmap", "tokens", "balance"}
    assert set(place(Size(80, 21), Wanted(8, 5, 8, True))) == {"filter", "detail", "tokens", "balance"}
    assert set(place(Size(200, 47), wanted)) == {"filter", "heatmap", "detail", "flow", "tokens", "balance"}
    assert set(place(Size(40, 9), wanted)) == {"filter", "tokens"}
    tall = place(Size(120, 37), Wanted(50, 26, 50))
    assert tall["tokens"].height >= 15, "many layers must not crowd the tokens out"


@pytest.mark.parametrize("height", range(15, 30))
async def test_a_narrow_heatmap_has_no_empty_lines(height):
    async with network(make_timeline(decode=30), (80, height)) as (panel, _pilot):
        if panel.heatmap.display:
            *rows, _status = lines_of(panel.heatmap)
            assert all(row.strip() for row in rows), rows
            assert panel.tokens.size.height >= 6
        else:
            assert height < 17


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50), (40, 12), (20, 5), (100, 9)])
@pytest.mark.parametrize("shape", [(6, 8, 2), (48, 128, 8), (96, 512, 4), (0, 8, 2)])
async def test_every_model_on_every_screen(size, shape):
    timeline = make_timeline(make_info(*shape), prompt=3, decode=6)
    async with network(timeline, size) as (panel, pilot):
        await pilot.press("enter", "right_square_bracket", "v", "t", "d")
        assert all(cell_len(line) == size[0] for line in screen_lines(pilot))
        assert panel.tokens.display


async def test_an_empty_session_draws_and_answers_keys():
    timeline = Timeline(make_info())
    async with network(timeline, (120, 40)) as (panel, pilot):
        await pilot.press(*"vwrtadSRBm'y<>", "enter", "down", "left_square_bracket", "f", "tab", "down", "enter")
        assert "no token matches" in "".join(screen_lines(pilot))
        assert note(panel) == "0 of 0 tokens"
        panel.query_one(FilterLine).value = ""
        await pilot.pause()
        assert "no tokens yet" in "".join(screen_lines(pilot))
        assert note(panel) == "0 tokens"


# -- one selection --------------------------------------------------------------------------------------------------


async def test_table_heatmap_and_detail_show_one_selection():
    async with network(make_timeline(decode=30)) as (panel, pilot):
        assert panel.detail.facts.token == 34
        await pilot.press("up", "up", "right", "right")
        assert panel.selection == Selection(32, 2, None)
        assert panel.detail.facts.token == 32
        assert (panel.tokens.site, panel.detail.site, panel.heatmap.cursor[0]) == (2, 2, 2)
        panel.heatmap.focus()
        await pilot.press("down", "right")
        assert panel.selection == Selection(32, 3, 1)
        assert (panel.tokens.site, panel.detail.site) == (3, 3)
        panel.detail.focus()
        await pilot.press("up")
        assert panel.heatmap.cursor == (2, 1)
        assert [type(event) for event in heard(pilot)[-3:]] == [SiteSelected, SiteSelected, SiteSelected]


async def test_the_apps_selection_is_shown_and_not_answered():
    async with network(make_timeline(decode=30)) as (panel, pilot):
        count = len(heard(pilot))
        panel.select(Selection(12, 4, 6))
        await pilot.pause()
        assert panel.detail.facts.token == 12
        assert panel.heatmap.cursor == (4, 6)
        assert not panel.tokens.following
        panel.select(Selection(None, 4, 6))
        await pilot.pause()
        assert panel.detail.facts.token == 34
        assert len(heard(pilot)) == count


async def test_new_tokens_move_what_follows_and_leave_what_was_chosen():
    timeline = make_timeline(decode=30)
    async with network(timeline) as (panel, pilot):
        session = HeldSession(timeline)
        make_timeline(prompt=0, decode=5, timeline=timeline)
        panel.refresh_from(timeline.snapshot(), session)
        assert panel.detail.facts.token == 39
        await pilot.press("up")
        make_timeline(prompt=0, decode=5, timeline=timeline)
        panel.refresh_from(timeline.snapshot(), session)
        assert panel.detail.facts.token == 38
        await pilot.press("f")
        assert panel.detail.facts.token == 44
        assert isinstance(heard(pilot)[-1], TokenSelected)
        assert heard(pilot)[-1].token is None


# -- filter ---------------------------------------------------------------------------------------------------------


async def test_a_filter_is_applied_as_it_is_typed_and_says_how_many():
    timeline = make_timeline(decode=30)
    async with network(timeline) as (panel, pilot):
        assert note(panel) == "35 tokens"
        await pilot.press("slash", *"phase:prefill", "enter")
        await pilot.pause()
        assert note(panel) == "5 of 35 tokens"
        assert panel.tokens.has_focus
        assert panel.tokens.total_rows == 5
        await pilot.press("backslash")
        assert panel.tokens.total_rows == 35
        await pilot.press("greater_than_sign")
        assert panel.tokens.token == 0
        await pilot.press("greater_than_sign")
        assert panel.tokens.token == 1
        await pilot.press("less_than_sign", "less_than_sign")
        assert panel.tokens.token == 4


async def test_an_error_is_shown_in_its_place_and_the_old_filter_stays():
    async with network(make_timeline(decode=30)) as (panel, pilot):
        line = panel.query_one(FilterLine)
        line.value = "phase:prefill"
        await pilot.pause()
        line.value = "phase:prefill entrpy>1"
        await pilot.pause()
        assert "entropy" in note(panel)
        assert line._wrong.position == 14
        assert panel.tokens.total_rows == 5
        line.value = ""
        await pilot.pause()
        assert note(panel) == "35 tokens"
        assert panel.tokens.total_rows == 35


async def test_what_is_typed_stays_in_sight_beside_what_is_wrong_with_it():
    async with network(make_timeline(decode=3), (80, 24)) as (panel, pilot):
        await pilot.press("slash", *"entropy>1.6 margin<0.2 confidence>0.1 layer:x")
        await pilot.pause()
        line = panel.query_one(FilterLine)
        assert note(panel).startswith("'x' is no number")
        assert "confidence>0.1 layer:x" in line.query_one(Input).render_line(0).text
        await pilot.press(*["backspace"] * 8)
        await pilot.pause()
        assert "margin<0.2 confidence>0.1" in line.query_one(Input).render_line(0).text


async def test_tab_goes_from_part_to_part_and_past_the_filter():
    async with network(make_timeline(decode=3)) as (panel, pilot):
        seen = []
        for _ in range(3):
            seen.append(pilot.app.screen.focused)
            await pilot.press("tab")
        assert set(seen) == {panel.tokens, panel.heatmap, panel.detail}
        await pilot.click(FilterLine, offset=(20, 0))
        assert pilot.app.screen.focused is not None
        assert pilot.app.screen.focused.parent is panel.query_one(FilterLine)


async def test_tab_takes_the_completion():
    async with network(make_timeline(decode=3)) as (panel, pilot):
        await pilot.press("slash", *"entr")
        await pilot.pause()
        await pilot.press("tab")
        assert panel.query_one(FilterLine).value == "entropy"
        await pilot.press("escape")
        assert panel.tokens.has_focus


async def test_enter_on_a_cell_filters_by_its_expert():
    timeline = make_timeline(decode=40)
    async with network(timeline) as (panel, pilot):
        panel.heatmap.focus()
        await pilot.press("down", "right", "enter")
        await pilot.pause()
        assert panel.query_one(FilterLine).value == "layer:1 expert:1"
        view = timeline.snapshot()
        expected = int((view.routing(0, view.end).indices[:, 1] == 1).any(1).sum())
        assert panel.tokens.total_rows == expected
        while panel.source.window.kind != "filter":
            await pilot.press("w")
        assert "filtered tokens" in str(panel.heatmap.border_title)
        assert int(panel.source.sums.loads[1, 1]) == expected


async def test_a_filter_over_many_tokens_finishes_by_itself():
    timeline = bulk_timeline(make_info(4, 16, 2), 30_000)
    async with network(timeline) as (panel, pilot):
        panel.tokens.rows._budget = 0.001
        panel.query_one(FilterLine).value = "expert:3 entropy>1"
        await until(pilot, lambda: 0 < panel.tokens.total_rows < 30_000 and panel.tokens.rows.progress == 1.0)
        await until(pilot, lambda: "looked" not in note(panel))
        assert note(panel) == f"{panel.tokens.total_rows:,} of 30,000 tokens"


# -- keys -----------------------------------------------------------------------------------------------------------


async def test_keys_change_what_the_heatmap_shows():
    timeline = make_timeline(decode=90)
    async with network(timeline) as (panel, pilot):
        seen = []
        for _ in range(5):
            seen.append(str(panel.heatmap.border_title).split(" · ")[0])
            await pilot.press("v")
        assert seen == [
            "load share",
            "gate mass",
            "mean probability",
            "entropy of its tokens",
            "load share",
        ]
        await pilot.press("r")
        assert "uniform" not in str(panel.heatmap.border_title)
        titles = set()
        for _ in range(5):
            await pilot.press("w")
            titles.add(str(panel.heatmap.border_title).split(" · ")[1])
        assert (
            titles
            == {"last 256 tokens", "selected token", "branch 0", "run 0", "all tokens", "last 64 tokens"} & titles
        )
        assert len(titles) == 5


async def test_the_baseline_key_compares_with_another_run():
    timeline = make_timeline(decode=20)
    make_timeline(prompt=3, decode=20, branch=1, timeline=timeline, seed=8)
    async with network(timeline) as (panel, pilot):
        await pilot.press("B")
        assert "run 1 · against run 0" in str(panel.heatmap.border_title)


async def test_another_recording_can_be_the_baseline():
    timeline = make_timeline(decode=20)
    async with network(timeline) as (panel, _pilot):
        panel.compare_with("old [run]", make_timeline(decode=20).snapshot())
        assert "against old [run]" in panel.source.picture(timeline.snapshot(), token=None, matched=None)[0].title
        assert not panel.heatmap._picture.heat.values.any()
        panel.compare_with("other", make_timeline(decode=20, seed=77).snapshot())
        assert panel.heatmap._picture.heat.values.any()


async def test_a_long_count_lets_the_event_loop_go_round_between_its_parts(monkeypatch):
    parts = 0

    def advance(_panel, _view):
        nonlocal parts
        parts += 1
        time.sleep(0.013)  # a part that takes all the time there is
        return parts == 10

    monkeypatch.setattr(NetworkPanel, "_advance", advance)
    monkeypatch.setattr("moetui.tui.panels.network._SHOW_SECONDS", 60.0)
    async with network(make_timeline()) as (panel, _):
        panel._go_on_later()
        rounds = 0
        while parts < 10:
            await asyncio.sleep(0)
            rounds += 1
        # What a key sets going passes through a dozen queues, one in each round.
        assert rounds > 15 * parts


async def test_a_long_count_lets_keys_through():
    timeline = bulk_timeline(make_info(8, 64, 2), 20_000)
    async with network(timeline) as (panel, pilot):
        await pilot.press("w", "w", "w")
        assert "run 0" in str(panel.heatmap.border_title)
        await pilot.press("up")
        assert panel.tokens.token == 19_998
        await until(pilot, lambda: "counted" not in str(panel.heatmap.border_title))
        assert int(panel.source.sums.loads.sum()) == 20_000 * 8 * 2


async def test_lines_below_the_room_of_the_detail_are_blank():
    # While the screen is laid out anew, a line may be asked for that the room for the content does not have.
    timeline = make_timeline(decode=5)
    async with network(timeline) as (panel, _):
        detail = panel.query_one(TokenDetail)
        width, height = detail.room
        lines = [detail.render_line(height + beyond) for beyond in range(3)]
        assert [(line.text, line.cell_length) for line in lines] == [(" " * width, width)] * 3


def test_every_key_has_a_name_and_a_word_of_help_and_takes_none_of_the_apps():
    ours = [b for widget in (NetworkPanel, Heatmap, TokenTable, TokenDetail) for b in widget.BINDINGS]
    assert all(binding.id and binding.tooltip for binding in ours)
    assert len({binding.id for binding in ours}) == len(ours)
    taken = {key for binding in KEYS for key in binding.key.split(",")}
    assert not taken & {key for binding in ours for key in binding.key.split(",")}


async def test_a_difference_is_offered_where_there_is_something_to_differ_from():
    timeline = make_timeline(decode=30)
    async with network(timeline) as (panel, pilot):
        seen = []
        for _ in range(5):
            await pilot.press("v")
            seen.append(panel.source.measure)
        assert seen == ["mass", "chance", "entropy", "load", "mass"]
    async with network(timeline) as (panel, pilot):
        panel.compare_with("other", timeline.snapshot())
        await pilot.press("w")
        assert "of whole runs" in pilot.app.said[-1]
        await pilot.press("v", "w")
        assert "last 256 tokens" in str(panel.heatmap.border_title)


async def test_sort_and_reverse():
    async with network(make_timeline(decode=30)) as (panel, pilot):
        for _ in range(4):
            await pilot.press("S")
        assert panel.tokens.sort.key == "entropy"
        assert panel.tokens.sort.descending
        first = int(panel.tokens.rows.numbers[0])
        await pilot.press("R")
        assert int(panel.tokens.rows.numbers[-1]) == first
        assert "by entropy" in str(panel.tokens.border_title)


async def test_marks():
    async with network(make_timeline(decode=30)) as (panel, pilot):
        await pilot.press("apostrophe")
        assert "no token is marked" in pilot.app.said[-1]
        await pilot.press("up", "m", "up", "up", "m", "home", "apostrophe")
        assert panel.tokens.token == 31
        await pilot.press("apostrophe")
        assert panel.tokens.token == 33


# -- sizes ----------------------------------------------------------------------------------------------------------


async def test_the_heatmap_gets_its_lines_when_the_model_is_first_seen():
    timeline = Timeline(make_info())
    async with network(timeline) as (panel, pilot):
        make_timeline(decode=5, timeline=timeline)
        panel.refresh_from(timeline.snapshot(), HeldSession(timeline))
        await pilot.pause()
        assert panel.heatmap.content_size.height == 8
        assert panel.detail.content_size.height == 8


async def test_in_a_narrow_screen_enter_opens_the_detail_as_a_drawer():
    async with network(make_timeline(decode=30), (80, 24)) as (panel, pilot):
        assert not panel.detail.display
        assert panel.heatmap.display
        await pilot.press("enter")
        await pilot.pause()
        assert panel.detail.display
        assert "L0  ●" in "".join(screen_lines(pilot))
        await pilot.press("enter")
        await pilot.pause()
        assert not panel.detail.display


async def test_resizing_lays_out_anew():
    async with network(make_timeline(decode=30), (80, 24)) as (panel, pilot):
        for size, flow, detail, heatmap in (
            ((200, 50), True, True, True),
            ((120, 40), False, True, True),
            ((40, 12), False, False, False),
            ((200, 50), True, True, True),
        ):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            shown = {child.id for child in panel.children if child.display}
            assert ("flow" in shown, "detail" in shown, "heatmap" in shown) == (flow, detail, heatmap)
            assert all(cell_len(line) == size[0] for line in screen_lines(pilot))
            if flow:
                assert any(0x2800 < ord(c) < 0x2900 for c in "".join(lines_of(panel.query_one("#flow"))))


async def test_the_focus_begins_at_the_tokens():
    async with network(make_timeline(decode=3)) as (panel, _pilot):
        assert next(widget for widget in panel.query("*").results() if widget.focusable) is panel.tokens


async def test_ascii_draws_with_ascii_alone():
    async with network(make_timeline(decode=30), (120, 40), Ink("none", True)) as (_panel, pilot):
        await pilot.press("up", "m", "S", "S")
        odd = {char for line in screen_lines(pilot) for char in line if ord(char) > 126}
        assert odd <= {"·", "↵"}, "only the marks inside token texts are not ASCII"


async def test_hostile_token_texts_change_no_line():
    vocabulary = {i: HOSTILE[i % len(HOSTILE)] for i in range(40)}
    timeline = make_timeline(prompt=15, decode=20, vocabulary=vocabulary)
    async with network(timeline) as (panel, pilot):
        for _ in range(12):
            await pilot.press("up")
            assert all(cell_len(line) == 120 for line in screen_lines(pilot))
            assert not any(ord(char) < 32 for line in screen_lines(pilot) for char in line)
        panel.query_one(FilterLine).value = "token:[/a/x]"
        await pilot.pause()
        assert all(cell_len(line) == 120 for line in screen_lines(pilot))


async def test_the_strip_says_of_dead_experts_what_the_statistics_say():
    few, many = make_timeline(decode=5), make_timeline(decode=60)
    for timeline, sure in ((few, False), (many, True)):
        stats = compute_stats(timeline.snapshot(), make_info())
        count = len(stats["dead_experts"])
        assert count
        assert dead_text(stats) == (str(count) if sure else f"{count}?  too few tokens to tell")
        async with network(timeline) as (panel, _pilot):
            line = panel.query_one(BalanceStrip).render_line(0).text
            assert f"dead {count}{' ' if sure else '?'}" in line


async def test_another_theme_is_drawn_at_once():
    async with network(make_timeline(decode=10)) as (panel, pilot):
        before = panel.heatmap.render_line(1)
        assert isinstance(pilot.app, Host)
        pilot.app.ink = Ink(dark=False)
        pilot.app.theme = "moetui-light"
        await pilot.pause()
        after = panel.heatmap.render_line(1)
        assert after.text == before.text
        assert list(after) != list(before)


@pytest.mark.parametrize("seed", range(2))
async def test_no_order_of_views_and_keys_breaks_it(seed):
    rng = np.random.default_rng(seed)
    keys = [
        *("up", "down", "left", "right", "home", "end", "pageup", "pagedown", "enter", "tab", "shift+tab", "f", "m"),
        *("apostrophe", "v", "w", "r", "t", "a", "d", "S", "R", "B", "backslash", "greater_than_sign", "z", "Z", "0"),
    ]
    shapes = [(6, 8, 2), (48, 128, 8), (2, 3, 1)]
    queries = ["", "expert:1", "phase:decode", "entropy>1 or margin<0.1", "layer:1 forced", "flip vs 0"]
    timeline = make_timeline(prompt=3, decode=5, max_tokens=60)
    info = make_info()
    async with network(timeline, (100, 30)) as (panel, pilot):
        for turn in range(24):
            what = rng.integers(0, 8)
            if what == 0:
                timeline.clear()
            elif what == 1:
                info = make_info(*shapes[rng.integers(0, 3)])
                timeline = make_timeline(info, prompt=2, decode=int(rng.integers(0, 30)), seed=turn, max_tokens=60)
            elif what == 2:
                panel.query_one(FilterLine).value = queries[rng.integers(0, len(queries))]
            elif what == 3:
                await pilot.resize_terminal(int(rng.integers(20, 180)), int(rng.integers(5, 50)))
            else:
                branch = int(rng.integers(0, 2))
                make_timeline(
                    info, prompt=1, decode=int(rng.integers(0, 9)), seed=turn, branch=branch, timeline=timeline
                )
            panel.refresh_from(timeline.snapshot(), HeldSession(timeline, info, branches=BRANCHES))
            await pilot.press(*(keys[i] for i in rng.integers(0, len(keys), 4)))
            assert all(cell_len(line) == pilot.app.size.width for line in screen_lines(pilot))


async def test_parts_that_have_no_room_yet_are_not_hidden() -> None:
    panel = NetworkPanel()
    async with App[None]().run_test() as pilot:
        panel.display = False
        await pilot.app.mount(panel)
        panel._arrange()
        assert all(child.display for child in panel.children)
