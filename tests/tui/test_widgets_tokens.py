"""The token table and the detail: what stands in a row, which rows there are, in which order."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len

from moetui.routing import NO_EXPERT, Selection, Timeline, drawable, query
from moetui.tui.ink import Ink
from moetui.tui.messages import SiteSelected, TokenSelected
from moetui.tui.widgets.balance import BalanceStrip, balance_gauges
from moetui.tui.widgets.braille import Canvas, Curve
from moetui.tui.widgets.flow import FlowView
from moetui.tui.widgets.sharing import as_csv, free_path
from moetui.tui.widgets.token_columns import plan_columns
from moetui.tui.widgets.token_detail import TokenDetail
from moetui.tui.widgets.token_facts import token_facts
from moetui.tui.widgets.token_painter import row_facts
from moetui.tui.widgets.token_rows import SORT_KEYS, Sort, TokenRows, sort_values
from moetui.tui.widgets.token_table import TokenTable
from tests.tui.builders import HOSTILE, bulk_timeline, make_info, make_step, make_timeline, skewed_logits
from tests.tui.hosts import heard, hosted, lines_of

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


# -- rows -----------------------------------------------------------------------------------------------------------


def test_padding_has_no_row():
    info = make_info(2, 4, 1)
    timeline = Timeline(info)
    logits = skewed_logits(np.random.default_rng(0), 5, info)
    timeline.append(make_step(info, 0, logits, pad=[True, True, False, False, False]))
    rows = TokenRows()
    assert rows.update(timeline.snapshot(), Sort())
    assert rows.numbers.tolist() == [2, 3, 4]
    assert rows.total == 3
    assert rows.row_of(3) == 1
    assert rows.row_of(0) is None


def test_a_filter_keeps_what_matches_and_goes_on_as_tokens_come():
    timeline = make_timeline(decode=40)
    rows = TokenRows()
    rows.filter_by(query.parse("phase:decode mean_entropy>1.6"), hide=True)
    assert rows.update(timeline.snapshot(), Sort())
    columns = timeline.snapshot().tokens(0, 45)
    expected = [i for i in range(5, 45) if columns.entropy[i] > 1.6]
    assert rows.numbers.tolist() == expected
    make_timeline(prompt=0, decode=20, timeline=timeline, seed=3)
    rows.update(timeline.snapshot(), Sort())
    columns = timeline.snapshot().tokens(0, 65)
    assert rows.numbers.tolist() == [i for i in range(5, 65) if columns.entropy[i] > 1.6]
    rows.filter_by(query.parse("phase:decode mean_entropy>1.6"), hide=False)
    rows.update(timeline.snapshot(), Sort())
    assert len(rows.numbers) == 65
    assert not rows.is_lit(0)


def test_a_slow_filter_looks_at_a_portion_at_a_time():
    timeline = bulk_timeline(make_info(4, 16, 2), 20_000)
    rows = TokenRows(budget=0.0)
    rows.filter_by(query.parse("expert:3"), hide=True)
    view = timeline.snapshot()
    shares = []
    while not rows.update(view, Sort()):
        shares.append(rows.progress)
    assert shares == sorted(shares)
    assert len(shares) > 5
    assert (np.diff(rows.numbers) > 0).all()
    assert len(rows.numbers) == int((view.routing(0, 20_000).indices == 3).any((1, 2)).sum())


def test_tokens_that_left_leave_the_rows_too():
    info = make_info(2, 4, 1)
    timeline = make_timeline(info, prompt=0, decode=30, max_tokens=25)
    rows = TokenRows()
    rows.filter_by(query.parse("phase:decode"), hide=True)
    rows.update(timeline.snapshot(), Sort())
    make_timeline(info, prompt=0, decode=10, timeline=timeline)
    view = timeline.snapshot()
    rows.update(view, Sort())
    assert rows.numbers.tolist() == list(range(view.first, view.end))


def test_a_replay_moved_back_shows_fewer_rows():
    long, short = make_timeline(decode=40), make_timeline(decode=10)
    rows = TokenRows()
    rows.filter_by(query.parse("phase:decode"), hide=True)
    rows.update(long.snapshot(), Sort())
    rows.update(short.snapshot(), Sort())
    assert rows.numbers.tolist() == list(range(5, 15))


@pytest.mark.parametrize("key", SORT_KEYS)
@pytest.mark.parametrize("descending", [False, True])
def test_every_column_sorts_and_unknown_values_come_last(key, descending):
    timeline = make_timeline(decode=40, forced_from=7)
    view = timeline.snapshot()
    rows = TokenRows()
    rows.update(view, Sort(key, descending, site=2))
    assert sorted(rows.numbers.tolist()) == list(range(45))
    values = np.asarray(sort_values(view, Sort(key, descending, site=2)), float)[rows.numbers]
    known = values[~np.isnan(values)]
    assert np.isnan(values[len(known) :]).all()
    steps = np.diff(known)
    assert (steps <= 0).all() if descending else (steps >= 0).all()


def test_sorting_by_token_goes_by_text_not_by_id():
    view = make_timeline(decode=40).snapshot()
    rows = TokenRows()
    rows.update(view, Sort("token"))
    texts = [drawable(view.text(int(view.tokens(t, t + 1).token_id[0]))).strip().casefold() for t in rows.numbers]
    assert texts == sorted(texts)


def test_an_order_by_a_layer_that_another_model_has_not_is_no_order():
    rows = TokenRows()
    rows.update(make_timeline(make_info(2, 4, 1), decode=5).snapshot(), Sort("layers", False, site=5))
    assert rows.numbers.tolist() == list(range(10))
    rows.update(make_timeline(make_info(0, 4, 1), decode=5).snapshot(), Sort("layers", True, site=5))
    assert len(rows.numbers) == 10


def test_matches_are_walked_around():
    rows = TokenRows()
    rows.filter_by(query.parse("index:3 or index:9 or index:20"), hide=False)
    rows.update(make_timeline(decode=40).snapshot(), Sort())
    assert [rows.next_match(t, 1) for t in (0, 3, 9, 20, 30)] == [3, 9, 20, 3, 3]
    assert [rows.next_match(t, -1) for t in (0, 3, 9, 20, 30)] == [20, 20, 3, 9, 20]


# -- columns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", range(20, 240, 7))
@pytest.mark.parametrize("sites", [0, 1, 6, 48, 96])
@pytest.mark.parametrize("foldable", [True, False])
def test_columns_stand_beside_each_other_within_the_width(width, sites, foldable):
    plan = plan_columns(width, sites, 99_999, branches=True, foldable=foldable, site=sites // 2)
    columns = sorted((*plan.columns, plan.strip, plan.waterfall), key=lambda column: column.start)
    shown = [column for column in columns if column.width]
    for a, b in itertools.pairwise(shown):
        assert a.start + a.width <= b.start
    if width >= 40:
        assert shown[-1].start + shown[-1].width <= width
    assert plan.strip.width * plan.fold <= sites + 1
    if plan.strip.width and sites:
        assert plan.strip_from <= max(0, sites // 2) < plan.strip_from + plan.strip.width * plan.fold + 1


# -- the table ------------------------------------------------------------------------------------------------------


async def test_a_row_says_what_the_timeline_knows():
    table = TokenTable()
    timeline = make_timeline(decode=20, forced_from=4)
    async with hosted(table, (110, 12), Ink("none")) as pilot:
        table.show(timeline.snapshot())
        table.go_to(9)
        await pilot.pause()
        lines = lines_of(table)
        row = next(table.render_line(y) for y, line in enumerate(lines) if line.startswith("▌"))
        view = timeline.snapshot()
    columns, block = view.tokens(9, 10), view.routing(9, 10)
    line = next(line for line in lines if line[:12].split()[-1:] == ["9"] or " 9 " in line[:10])
    words = line.split()
    first = [str(block.indices[0, s, 0]) for s in range(6)]
    assert "".join(first) in words
    underlined = [segment.text for segment in row if segment.style and segment.style.underline]
    assert underlined == [first[3]], "forced, and still told by its digit"
    assert f"{columns.entropy[0]:.2f}" in words
    assert f"{columns.confidence[0]:.2f}" in words
    assert f"{columns.logprob[0]:.2f}" in words
    assert f"{columns.ms[0]:.1f}" in words
    assert "▣" in words[-3:] or "▣◂" in line
    assert line.startswith("▌")
    assert lines[0].split()[:3] == ["▲#", "token", "layers"]


@pytest.mark.parametrize("size", [(20, 4), (40, 12), (80, 24), (120, 40), (9, 1)])
@pytest.mark.parametrize("ink", [Ink(), Ink("16"), Ink("none", True)])
async def test_hostile_texts_leave_nothing_raw_and_no_line_too_long(size, ink):
    vocabulary = {i: HOSTILE[i % len(HOSTILE)] for i in range(40)}
    timeline = make_timeline(prompt=15, decode=20, vocabulary=vocabulary)
    table, detail = TokenTable(), TokenDetail()
    async with hosted(table, size, ink) as pilot:
        table.show(timeline.snapshot())
        table.go_to(3)
        await pilot.pause()
        for line in lines_of(table):
            assert cell_len(line) == size[0]
            assert not CONTROL.search(line)
    async with hosted(detail, size, ink) as pilot:
        for token in range(0, 35, 3):
            detail.show(timeline.snapshot(), token)
            await pilot.pause()
            for line in lines_of(detail):
                assert cell_len(line) == size[0]
                assert not CONTROL.search(line)
            assert not CONTROL.search(str(detail.border_title))


async def test_unknown_is_never_zero():
    table, detail = TokenTable(), TokenDetail()
    timeline = make_timeline(decode=5, ids_only=True)
    async with hosted(table, (110, 14)) as pilot:
        table.show(timeline.snapshot())
        await pilot.pause()
        row = lines_of(table)[-5]
        assert row.split().count("–") == 3
    async with hosted(detail, (70, 10)) as pilot:
        detail.show(timeline.snapshot(), 7)
        await pilot.pause()
        first = lines_of(detail)[0]
        assert re.search(r"●\d –\s+●\d –", first), "the sign that the table has"
        assert "H    –" in first
        assert ".00" not in first


async def test_a_dropped_token_and_broken_numbers_are_marked():
    info = make_info(3, 4, 2)
    timeline = Timeline(info)
    logits = skewed_logits(np.random.default_rng(0), 2, info)
    step = make_step(info, 0, logits, dropped={0: 1})
    step.logits[1, 2, 0] = np.nan
    step.flags[1, 2] |= 4
    timeline.append(step)
    table, detail = TokenTable(), TokenDetail()
    async with hosted(table, (90, 6)) as pilot:
        table.show(timeline.snapshot())
        await pilot.pause()
        lines = lines_of(table)
        assert lines[1].count("✗") == 2
        assert "‼" in lines[2]
    async with hosted(detail, (70, 8)) as pilot:
        detail.show(timeline.snapshot(), 0)
        await pilot.pause()
        assert "dropped" in lines_of(detail)[1]
        detail.show(timeline.snapshot(), 1)
        await pilot.pause()
        assert "‼" in lines_of(detail)[2]


async def test_following_goes_with_the_newest_until_one_moves():
    table = TokenTable()
    timeline = make_timeline(decode=60)
    async with hosted(table, (80, 12)) as pilot:
        table.show(timeline.snapshot())
        assert table.token == 64
        assert "following · f stops" in str(table.border_title)
        make_timeline(prompt=0, decode=5, timeline=timeline)
        table.show(timeline.snapshot())
        assert table.token == 69
        await pilot.press("up", "up")
        assert table.token == 67
        assert not table.following
        assert "f follows" in str(table.border_title)
        make_timeline(prompt=0, decode=5, timeline=timeline)
        table.show(timeline.snapshot())
        assert table.token == 67
        await pilot.press("end")
        assert table.following
        assert table.token == 74
        tokens = [event.token for event in heard(pilot) if isinstance(event, TokenSelected)]
        assert tokens == [68, 67, None]


async def test_the_wheel_lets_go_of_the_newest():
    table = TokenTable()
    async with hosted(table, (80, 12)) as pilot:
        table.show(make_timeline(decode=60).snapshot())
        top = table._top
        table._scroll(-3)
        await pilot.pause()
        assert table._top == top - 3
        assert not table.following


@pytest.mark.parametrize(("sites", "title"), [(6, "layer"), (12, "layers      ")])
async def test_the_column_of_layers_says_that_it_sorts_and_how(sites: int, title: str):
    table = TokenTable()
    async with hosted(table, (100, 10)) as pilot:
        table.show(make_timeline(make_info(sites, 8, 2), decode=6).snapshot())
        for descending, arrow in ((True, "▼"), (False, "▲")):
            table.set_sort("layers", descending)
            await pilot.pause()
            assert table.render_line(0).text.replace("▾", " ").count(arrow) == 1
            assert re.search(rf"token +{title.strip()} *{arrow}", table.render_line(0).text)


@pytest.mark.parametrize(("key", "title"), [("margin", "margin"), ("confidence", "conf"), ("logprob", "logp")])
async def test_the_arrow_of_the_order_cuts_no_title(key: str, title: str):
    table = TokenTable()
    async with hosted(table, (100, 10)) as pilot:
        table.show(make_timeline(make_info(6, 8, 2), decode=6).snapshot())
        plain = table.render_line(0).text
        table.set_sort(key, True)
        await pilot.pause()
        sorted_by = table.render_line(0).text
        assert sorted_by.index(f"▼{title} ") + 1 == plain.index(title)
        assert sorted_by.replace("▼", " ") == plain.replace("▲", " ")


async def test_keys_and_clicks_select_rows_and_layers():
    table = TokenTable()
    async with hosted(table, (110, 20)) as pilot:
        table.show(make_timeline(decode=60).snapshot())
        await pilot.press("home")
        assert table.token == 0
        await pilot.press("pagedown")
        assert table.token == 18
        await pilot.press("right")
        assert [e.site for e in heard(pilot) if isinstance(e, SiteSelected)] == [1]
        await pilot.click(TokenTable, offset=(12, 4))
        assert table.token == int(table.rows.numbers[table._top + 3])
        plan = table._plan
        column = next(column for column in plan.columns if column.name == "entropy")
        await pilot.click(TokenTable, offset=(column.start + 2, 0))
        assert table.sort == Sort("entropy", True)
        assert lines_of(table)[0].count("▼") == 1
        await pilot.click(TokenTable, offset=(column.start + 2, 0))
        assert table.sort == Sort("entropy", False)


async def test_marks_are_kept_and_walked():
    table = TokenTable()
    async with hosted(table, (80, 12)):
        table.show(make_timeline(decode=60).snapshot())
        assert table.next_mark() is None
        for token in (10, 30):
            table.go_to(token)
            table.toggle_mark()
        assert any(line.startswith("▌◆") for line in lines_of(table))
        assert table.next_mark() == 10
        table.go_to(10)
        assert table.next_mark() == 30
        table.toggle_mark()
        assert table.marks == {30}


async def test_a_prompt_shows_one_bar_for_its_one_step():
    table = TokenTable()
    async with hosted(table, (110, 12)):
        table.show(make_timeline(prompt=4, decode=4).snapshot())
        fall = table._plan.waterfall
        bars = [line[fall.start + 1 : fall.start + fall.width].rstrip(" ▐") for line in lines_of(table)[1:9]]
    assert len(set(bars[:4])) == 1
    starts = [len(bar) - len(bar.lstrip()) for bar in bars[3:]]
    assert starts == sorted(set(starts))


async def test_tokens_whose_times_a_damaged_file_lost_have_rows_without_bars():
    table, info = TokenTable(), make_info(3, 4, 2)
    timeline = Timeline(info, 64)
    rng = np.random.default_rng(0)
    for at in range(6):
        logits = rng.normal(size=(1, 3, 4)).astype(np.float32)
        times = {"started": np.nan, "duration": np.nan} if at % 2 else {"started": at * 0.02, "duration": 20.0}
        timeline.append(make_step(info, at, logits, position=at, **times))
    async with hosted(table, (110, 12)):
        table.show(timeline.snapshot())
        fall = table._plan.waterfall
        bars = [line[fall.start + 1 : fall.start + fall.width].rstrip(" ▐") for line in lines_of(table)[1:7]]
    assert [bool(bar) for bar in bars] == [True, False] * 3


async def test_an_empty_timeline_has_a_word_for_it():
    table = TokenTable()
    async with hosted(table, (80, 12)) as pilot:
        table.show(Timeline(make_info()).snapshot())
        assert "no tokens yet" in "".join(lines_of(table))
        await pilot.press("down", "up", "pagedown", "end", "home", "enter", "right")
        table.filter_by(query.parse("expert:3"), hide=True)
        assert "no token matches" in "".join(lines_of(table))


# -- detail ---------------------------------------------------------------------------------------------------------


def test_facts_are_ordered_by_weight_and_name_the_runners_up():
    view = make_timeline(decode=10).snapshot()
    facts = token_facts(view, 8)
    for one in facts.sites:
        weights = [choice.weight for choice in one.choices]
        assert weights == sorted(weights, reverse=True)
        assert math.isclose(sum(weights), 1, abs_tol=2e-3)
        taken = {choice.expert for choice in one.choices}
        assert len(one.runners_up) == 3
        assert not taken & {choice.expert for choice in one.runners_up}
        chances = [choice.weight for choice in one.runners_up]
        assert chances == sorted(chances, reverse=True)
        assert one.margin >= 0
    assert token_facts(view, 99) is None


def test_runners_up_are_those_that_would_have_come_next():
    info = make_info()
    size = info.sites[0].num_experts
    bias = tuple(np.random.default_rng(5).normal(0, 3, size).tolist())
    rule = Selection("identity", bias, 2, 1, "max")
    plain, biased, unknown = info.sites[0], replace(info.sites[1], selection=rule), info.sites[2]
    unknown = replace(unknown, selection_bias=True)
    info = replace(info, sites=(plain, biased, unknown, *info.sites[3:]))
    view = make_timeline(info, decode=10).snapshot()
    facts = token_facts(view, 8)
    logits = view.routing(8, 9).logits[0, 1, :size].astype(np.float32)
    scores = logits + np.array(bias, np.float32)
    first = scores[: size // 2].max() > scores[size // 2 :].max()
    eligible = range(size // 2) if first else range(size // 2, size)
    taken = {choice.expert for choice in facts.sites[1].choices}
    order = sorted(eligible, key=lambda expert: -scores[expert])
    shown = [choice.expert for choice in facts.sites[1].runners_up]
    assert shown
    assert shown == [expert for expert in order if expert not in taken][: len(shown)]
    assert facts.sites[2].runners_up == ()
    assert math.isnan(facts.sites[2].margin)
    assert facts.sites[0] == token_facts(make_timeline(make_info(), decode=10).snapshot(), 8).sites[0]


async def test_the_detail_of_a_token():
    detail = TokenDetail()
    view = make_timeline(decode=10, forced_from=3).snapshot()
    async with hosted(detail, (70, 9)) as pilot:
        detail.show(view, 8)
        await pilot.pause()
        lines = lines_of(detail)
    facts = token_facts(view, 8)
    assert lines[3].startswith(" L3  ▣ ●3")
    for one, line in zip(facts.sites, lines):
        assert f"●{one.choices[0].expert} " in line
        assert f"H {one.entropy:.2f}".replace(" 0.", "  .") in line
    bars = [line.split("●")[1].count("━") for line in lines[:3]]
    order = sorted(range(3), key=lambda i: facts.sites[i].choices[0].weight)
    assert [bars[i] for i in order] == sorted(bars)
    assert lines[8].startswith(' next "')


async def test_the_detail_marks_the_near_ties_that_the_row_counts():
    detail = TokenDetail()
    view = make_timeline(decode=40, forced_from=3).snapshot()
    rows = row_facts(view, view.first, view.end)
    marked = []
    async with hosted(detail, (70, 9)) as pilot:
        for token in rows:
            detail.show(view, token)
            await pilot.pause()
            marked.append(sum("◂" in line for line in lines_of(detail)))
    assert marked == [row.ties for row in rows.values()]
    assert any(marked)


async def test_the_detail_gives_up_its_blank_line_for_the_last_layer():
    for count, height, whole in ((6, 7, True), (6, 6, False), (6, 9, True)):
        detail = TokenDetail()
        view = make_timeline(make_info(count, 8, 2), decode=4).snapshot()
        async with hosted(detail, (70, height)) as pilot:
            detail.show(view, 8)
            await pilot.pause()
            lines = lines_of(detail)
            assert any(line.startswith(f" L{count - 1} ") for line in lines) == whole
            assert (detail.border_subtitle is None) == whole
            assert lines[-1].startswith(" next ")


async def test_many_experts_share_one_bar_by_weight():
    detail = TokenDetail()
    view = make_timeline(make_info(48, 128, 8), decode=4).snapshot()
    async with hosted(detail, (60, 14)) as pilot:
        detail.show(view, 8)
        detail.select_site(40)
        await pilot.pause()
        assert "layers 29–40 of 48" in str(detail.border_subtitle)
        strip = detail.render_line(11)
    site = token_facts(view, 8).sites[40]
    colored = [segment for segment in strip if segment.style.bgcolor and segment.text.strip().isdigit()]
    assert colored[0].text.strip() == str(site.choices[0].expert)
    room = 60 - 17 - 6
    assert abs(len(colored[0].text) - site.choices[0].weight * room) <= 1.5


async def test_flow_draws_a_node_for_every_choice():
    flow = FlowView()
    facts = token_facts(make_timeline(decode=10).snapshot(), 8)
    async with hosted(flow, (60, 18)) as pilot:
        flow.show(facts, 2)
        await pilot.pause()
        text = "".join(lines_of(flow))
    assert text.count("●") == 12
    assert "L2" in text
    assert any(0x2800 < ord(char) < 0x2900 for char in text)
    flow = FlowView()
    async with hosted(flow, (60, 18), Ink("none", True)) as pilot:
        flow.show(facts, 2)
        await pilot.pause()
        assert "".join(lines_of(flow)).isascii()


@pytest.mark.parametrize("size", [(3, 1), (10, 3), (100, 30)])
@pytest.mark.parametrize("shape", [(0, 4, 1), (96, 512, 8), (1, 1, 1)])
async def test_flow_of_any_model_on_any_screen(size, shape):
    flow = FlowView()
    async with hosted(flow, size) as pilot:
        flow.show(token_facts(make_timeline(make_info(*shape), decode=2).snapshot(), 6), 0)
        await pilot.pause()
        assert all(cell_len(line) == size[0] for line in lines_of(flow))


def test_the_heavier_curve_has_the_colour_where_two_cross():
    canvas = Canvas(10, 5, [Curve((0, 0), (19, 19), 1, 0.9), Curve((0, 19), (19, 0), 2, 0.3)])
    tags = [tag for y in range(5) for _, tag in canvas.row(y)]
    assert {1, 2} <= set(tags)
    middle = {tag for _, tag in canvas.row(2)[4:6]}
    assert middle == {1}


# -- the strip, sharing -----------------------------------------------------------------------------------------------


async def test_the_balance_strip_gives_up_sparklines_before_numbers():
    strip = BalanceStrip()
    course = [0.5, 0.6, 0.7, 0.8]
    gauges = balance_gauges(course, course, course, dead=2, dropped=0, rate=41.2, rates=[40.0] * 8)
    for width, spark in ((110, True), (80, False)):
        async with hosted(strip, (width, 1)) as pilot:
            strip.show(gauges)
            await pilot.pause()
            line = strip.render_line(0).text
            assert "fairness .80" in line
            assert "dead 2" in line
            assert "tok/s 41.2" in line
            assert ("▁" in line) == spark
        strip = BalanceStrip()
    nothing = balance_gauges([], [], [], dead=0, dropped=0, rate=math.nan, rates=[], counted=False)
    assert [gauge.text for gauge in nothing] == ["–", "–", "–", "–", "0?", "–"]
    some = balance_gauges([0.5], [0.5], [2.0], dead=0, dropped=0, rate=math.nan, rates=[], counted=False)
    assert [gauge.text for gauge in some][2:5] == ["2.0", "0?", "0?"]


def test_shared_rows_are_complete_and_safe(tmp_path):
    table = TokenTable()
    vocabulary = {i: HOSTILE[i % len(HOSTILE)] for i in range(40)}
    view = make_timeline(prompt=15, decode=5, vocabulary=vocabulary).snapshot()
    table.rows.update(view, Sort())
    table._view = view
    name, rows = table.shared()
    text = as_csv(rows())
    assert name == "moetui-tokens"
    assert text.count("\n") == 21
    assert not CONTROL.search(text.replace("\n", ""))
    assert as_csv([(math.nan, 0.5, "a,b")]) == ',0.5,"a,b"\n'
    assert free_path(tmp_path, "x") == tmp_path / "x.csv"
    (tmp_path / "x.csv").touch()
    assert free_path(tmp_path, "x") == tmp_path / "x-2.csv"


def test_a_token_that_passed_no_site_is_said_to():
    info = make_info(2, 4, 1)
    timeline = Timeline(info)
    step = make_step(info, 0, skewed_logits(np.random.default_rng(0), 1, info))
    step.indices[:, 1] = NO_EXPERT
    timeline.append(step)
    facts = token_facts(timeline.snapshot(), 0)
    assert facts.sites[0].passed
    assert not facts.sites[1].passed
    assert math.isnan(facts.sites[1].entropy)
