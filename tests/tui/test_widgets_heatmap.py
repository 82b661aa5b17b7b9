"""What a heatmap says, and how it folds."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.style import Style

from moetui.routing import NO_EXPERT, Timeline
from moetui.tui.cells import Line
from moetui.tui.glyphs import UNICODE
from moetui.tui.ink import Ink
from moetui.tui.messages import SiteSelected
from moetui.tui.ramps import LEVELS
from moetui.tui.widgets.heat_cells import HeatCells, number_in_cell
from moetui.tui.widgets.heat_grid import ZOOMS, keep_in_view, plan_grid
from moetui.tui.widgets.heat_numbers import beside_row
from moetui.tui.widgets.heat_source import HeatSource
from moetui.tui.widgets.heat_values import (
    ABSENT,
    UNKNOWN,
    ZERO,
    HeatValues,
    heat_values,
    nice_ceiling,
    pool,
    quantise,
)
from moetui.tui.widgets.heatmap import Heatmap
from moetui.tui.widgets.sums import SlidingSums, no_sums, sum_tokens
from moetui.tui.widgets.windows import WINDOWS, BalanceTrail, EntropyTrail, Window, token_rate
from tests.tui.builders import bulk_timeline, make_info, make_step, make_timeline, skewed_logits
from tests.tui.hosts import heard, hosted, lines_of


def picture_of(timeline, **chosen):
    source = HeatSource()
    for name, value in chosen.items():
        setattr(source, name, value)
    return source.picture(timeline.snapshot(), token=None, matched=None)[0]


# -- sums -----------------------------------------------------------------------------------------------------------


def test_sums_are_what_counting_by_hand_gives():
    timeline = make_timeline(prompt=4, decode=20)
    view = timeline.snapshot()
    sums = sum_tokens(view, 3, 15)
    block = view.routing(3, 15)
    loads = np.zeros((6, 8), int)
    mass = np.zeros((6, 8))
    for token in range(12):
        for site in range(6):
            for slot in range(2):
                loads[site, block.indices[token, site, slot]] += 1
                mass[site, block.indices[token, site, slot]] += block.weights[token, site, slot]
    assert sums.tokens == 12
    assert (sums.loads == loads).all()
    assert np.allclose(sums.mass, mass, atol=1e-3)
    assert (sums.known == 12).all()
    assert np.allclose(sums.chance.sum(1), 12, atol=1e-3)
    assert np.allclose((sums.spread / np.maximum(1, sums.spread_count) * sums.spread_count).sum(1), 2 * sums.entropy)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6), st.integers(50, 2000))
def test_a_sliding_window_equals_counting_anew(moves, cells):
    view = make_timeline(make_info(3, 5, 2), prompt=8, decode=33).snapshot()
    sliding = SlidingSums(cells)
    for a, b in moves:
        start, stop = min(a, b), max(a, b)
        share, sums = 0.0, None
        while share < 1.0:
            sums, share = sliding.move(view, "last", start, stop)
        fresh = sum_tokens(view, start, stop)
        assert (sums.loads == fresh.loads).all()
        assert sums.tokens == fresh.tokens
        assert np.allclose(sums.entropy, fresh.entropy, atol=1e-4)


def test_padding_is_left_out_and_drops_are_counted():
    info = make_info(2, 4, 1)
    timeline = Timeline(info)
    logits = skewed_logits(np.random.default_rng(0), 3, info)
    timeline.append(make_step(info, 0, logits, pad=[True, False, False], dropped={2: 1}))
    sums = sum_tokens(timeline.snapshot(), 0, 3)
    assert sums.tokens == 2
    assert sums.loads.sum(1).tolist() == [2, 1]
    assert sums.dropped.tolist() == [0, 1]


def test_sums_of_nothing():
    view = Timeline(make_info()).snapshot()
    sums = sum_tokens(view, 0, 10)
    assert sums.tokens == 0
    assert not sums.loads.any()
    assert SlidingSums().move(view, "all", 0, 0)[1] == 1.0


def test_a_window_over_tokens_that_left_starts_over():
    info = make_info(2, 4, 1)
    timeline = make_timeline(info, prompt=0, decode=30, max_tokens=20)
    sliding = SlidingSums()
    view = timeline.snapshot()
    sliding.move(view, "last", view.first, view.end)
    make_timeline(info, prompt=0, decode=15, timeline=timeline)
    view = timeline.snapshot()
    sums, share = sliding.move(view, "last", view.first, view.end)
    assert share == 1.0
    assert (sums.loads == sum_tokens(view, view.first, view.end).loads).all()


# -- values ---------------------------------------------------------------------------------------------------------


def test_shares_relative_to_uniform_average_to_one():
    sums = sum_tokens(make_timeline().snapshot(), 0, 37)
    heat = heat_values(sums, make_info().sites, "load", relative=True)
    assert np.allclose(heat.values.mean(1), 1.0)
    assert heat.unit == "× uniform"
    plain = heat_values(sums, make_info().sites, "load", relative=False)
    assert np.allclose(plain.values.sum(1), 100.0)


def test_what_is_not_known_is_not_zero():
    sums = sum_tokens(make_timeline(ids_only=True).snapshot(), 0, 37)
    for measure in ("mass", "chance", "entropy"):
        heat = heat_values(sums, make_info().sites, measure, relative=True)
        assert np.isnan(heat.values).all()
        levels = quantise(heat, 0, heat.high)
        assert (levels[sums.loads > 0] == UNKNOWN).all()
    assert (quantise(heat_values(sums, make_info().sites, "mass", relative=True), 0, 1) == UNKNOWN).all()


@pytest.mark.parametrize("measure", ["load", "mass", "chance", "entropy"])
def test_before_the_first_token_nothing_is_unknown(measure):
    info = make_info()
    none = heat_values(no_sums(info.sites), info.sites, measure, relative=True)
    assert (quantise(none, 0.0, none.high) == ZERO).all()
    compared = heat_values(no_sums(info.sites), info.sites, "difference", relative=True)
    assert (quantise(compared, compared.low, compared.high) == UNKNOWN).all()


def test_an_unused_expert_looks_other_than_a_little_used_one():
    timeline = make_timeline(decode=64)
    sums = sum_tokens(timeline.snapshot(), 0, 69)
    levels = quantise(heat_values(sums, make_info().sites, "load", relative=True), 0, 100.0)
    assert levels[0, 7] == ZERO
    assert levels[0, 0] == 0


def test_experts_that_a_site_has_not_are_absent():
    sites = (*make_info(1, 4, 1).sites, *make_info(1, 8, 1).sites)
    heat = heat_values(no_sums(sites), sites, "load", relative=True)
    assert (quantise(heat, 0, 1)[0] == [ZERO] * 4 + [ABSENT] * 4).all()


@pytest.mark.parametrize(
    ("ink", "minus"), [(Ink("none"), "−"), (Ink("16"), "−"), (Ink("none", ascii_only=True), "-")], ids=str
)
async def test_a_difference_has_its_sign_where_no_ground_is_coloured(ink: Ink, minus: str):
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 8), ink):
        cells = HeatCells(heatmap)
        cells.forget(diverging=True)

        def drawn(cell: int) -> list[str]:
            line = Line()
            cells.plain(line, np.arange(LEVELS, dtype=np.uint8), cell, -1, ())
            text = line.strip(LEVELS * cell, Style()).text
            return [text[at : at + cell].strip() for at in range(0, len(text), cell)]

        for cell in (1, 2, 3, 6):
            signs = [text[0] for text in drawn(cell)]
            assert signs == [minus] * 7 + [ink.glyphs.zero] * 2 + ["+"] * 7
            assert {len(text) for text in drawn(cell)} <= {1, max(min(2, cell), cell - 1)}
        deepest = [text[1:] for text in drawn(3)]
        assert deepest[:7] == deepest[:-8:-1]
        assert len(set(deepest[:7])) >= 4


def test_difference_needs_another_run():
    sums = sum_tokens(make_timeline().snapshot(), 0, 37)
    alone = heat_values(sums, make_info().sites, "difference", relative=False)
    assert np.isnan(alone.values).all()
    same = heat_values(sums, make_info().sites, "difference", relative=False, baseline=sums)
    assert np.allclose(same.values, 0)
    assert same.diverging
    assert same.low == -same.high


@pytest.mark.parametrize(
    ("value", "doubling", "ceiling"),
    [(0, True, 2), (1.3, True, 2), (2.1, True, 3), (9.4, True, 12), (16, True, 16), (0.31, False, 0.5), (7, False, 10)],
)
def test_scales_end_at_round_numbers(value, doubling, ceiling):
    assert math.isclose(nice_ceiling(value, doubling=doubling), ceiling)


@given(st.floats(1e-6, 1e6), st.booleans())
def test_a_scale_holds_its_values(value, doubling):
    assert nice_ceiling(value, doubling=doubling) >= value * (1 - 1e-6)


def test_levels_cover_the_scale():
    values = np.array([[0.0, 0.01, 1.0, 1.99, 2.0, 9.0, np.nan]])
    none = np.zeros_like(values, bool)
    levels = quantise(HeatValues(values, none, none, 0, 2, "%"), 0, 2)
    assert levels.tolist() == [[0, 0, 8, 15, 15, 15, UNKNOWN]]


# -- folding --------------------------------------------------------------------------------------------------------


def test_pooling_keeps_the_largest_or_the_mean():
    levels = np.array([[1, 9, ZERO, ZERO, UNKNOWN, 4, ABSENT, ABSENT]], np.uint8)
    assert pool(levels, 2, "max").tolist() == [[9, ZERO, 4, ABSENT]]
    assert pool(levels, 2, "mean").tolist() == [[5, ZERO, 4, ABSENT]]
    assert pool(levels, 4, "mean")[0, 0] == 2, "experts without load count as zeros"
    assert pool(np.array([[7, 0, 15, 8]], np.uint8), 4, "max", diverging=True)[0, 0] in (0, 15)


@given(
    st.integers(1, 96), st.integers(1, 512), st.integers(12, 220), st.integers(1, 60), st.booleans(), st.booleans(),
    st.one_of(st.none(), st.integers(0, len(ZOOMS) - 1)),
)  # fmt: skip
def test_every_matrix_fits_every_screen(rows, columns, width, lines, stats, stackable, zoom):
    grid = plan_grid(rows, columns, width, lines, label=4, stats=stats, zoom=zoom, stackable=stackable)
    assert grid.columns >= 1
    assert grid.label + grid.columns * grid.cell + grid.stats + grid.spark <= max(width, grid.label + grid.cell + 21)
    if zoom is None and width >= 24:
        assert grid.columns * grid.fold >= columns, "all experts show unless one zooms in"
    assert grid.stacked == 1 or stackable


def test_small_models_get_wide_cells_and_numbers():
    grid = plan_grid(6, 8, 57, 8, label=4, stats=True)
    assert (grid.cell, grid.fold, grid.stacked, grid.stats, grid.spark) == (4, 1, 1, 12, 9)
    assert plan_grid(48, 128, 56, 12, label=4, stats=True).fold == 4


@given(st.integers(-5, 200), st.integers(0, 99), st.integers(1, 40))
def test_the_cursor_stays_in_view(offset, cursor, shown):
    at = keep_in_view(offset, cursor, shown, 100)
    assert at <= cursor < at + shown
    assert 0 <= at <= 100 - shown


# -- the widget -----------------------------------------------------------------------------------------------------


async def test_the_lines_of_a_small_model():
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 8)) as pilot:
        heatmap.show(picture_of(make_timeline(decode=64)))
        await pilot.pause()
        lines = lines_of(heatmap)
    assert lines[0].split() == ["0", "1", "2", "3", "4", "5", "6", "7", "H", "fair"]
    assert [line.split()[0] for line in lines[1:7]] == ["L0", "L1", "L2", "L3", "L4", "L5"]
    assert "·" in lines[1]
    assert lines[7].startswith("L0 E0  0.688×  11 of 128")
    assert "3× uniform" in lines[7]
    assert all(len(line) == 57 for line in lines)


async def test_without_colour_the_level_is_a_character():
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 8), Ink("none")):
        heatmap.show(picture_of(make_timeline(decode=64)))
        glyphs = set("".join(lines_of(heatmap)[1:7]))
    assert len(glyphs & set("▁▂▃▄▅▆▇█")) >= 5
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 8), Ink("none", True)):
        heatmap.show(picture_of(make_timeline(decode=64)))
        assert "".join(lines_of(heatmap)).isascii()


async def test_keys_move_the_cursor_and_tell():
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 8)) as pilot:
        heatmap.show(picture_of(make_timeline(decode=64)))
        await pilot.press("down", "right", "right")
        assert heatmap.cursor == (1, 2)
        assert heard(pilot)[-1] == SiteSelected(1, 2) or (heard(pilot)[-1].site, heard(pilot)[-1].expert) == (1, 2)
        assert lines_of(heatmap)[7].startswith("L1 E2")
        count = len(heard(pilot))
        heatmap.move_cursor(3, 5)
        await pilot.pause()
        assert heatmap.cursor == (3, 5)
        assert len(heard(pilot)) == count, "a selection that was told is not told back"


async def test_a_click_selects_the_cell_under_it():
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 8)) as pilot:
        heatmap.show(picture_of(make_timeline(decode=64)))
        await pilot.pause()
        await pilot.click(Heatmap, offset=(3 + 4 * 5 + 1, 1 + 2))
        assert heatmap.cursor == (2, 5)


async def test_folds_say_so_and_the_cursor_walks_them():
    heatmap = Heatmap()
    async with hosted(heatmap, (56, 14)) as pilot:
        heatmap.show(picture_of(make_timeline(make_info(48, 128, 8), decode=20)))
        assert heatmap.layout_text() == "a cell: max of 4 experts · a line: 2 layers · layers 0–23 of 48"
        assert str(heatmap.border_subtitle) == "max of 4 a cell · 2 a line · L0–23/48"
        await pilot.press("right", "a")
        assert heatmap.cursor == (0, 4)
        for _ in range(30):
            await pilot.press("down")
        assert heatmap.cursor == (30, 4)
        assert "layers 8–31 of 48" in heatmap.layout_text()
        assert any(line.startswith("L30") for line in lines_of(heatmap))


async def test_the_value_under_the_cursor_has_room_before_the_legend_has():
    heatmap = Heatmap()
    async with hosted(heatmap, (56, 9)) as pilot:
        heatmap.show(picture_of(make_timeline(decode=20), measure="entropy"))
        await pilot.pause()
        foot = lines_of(heatmap)[-1]
        assert re.match(r"L0 E0  [0-9.]+ of ln E  \d+ of \d+ ", foot), foot
        assert foot.rstrip().endswith("1 of ln E")
        assert "none" not in foot


async def test_a_long_name_of_a_site_leaves_room_for_the_value():
    info = make_info()
    info = replace(info, sites=tuple(replace(site, name=f"部decoder.block.{site.index}.layer") for site in info.sites))
    heatmap = Heatmap()
    async with hosted(heatmap, (70, 9)) as pilot:
        heatmap.show(picture_of(make_timeline(info, decode=20)))
        await pilot.pause()
        assert re.match(r"部decoder\.block… E0  [0-9.]+×  \d+ of \d+ ", lines_of(heatmap)[-1]), lines_of(heatmap)[-1]


def test_the_course_beside_a_line_of_two_sites_is_of_both_as_its_numbers_are():
    picture = picture_of(make_timeline(prompt=4, decode=20))
    trail = np.full((4, 6), np.nan)
    trail[:, 0], trail[:, 1], trail[1:, 2] = 0.0, (0.0, 0.5, 1.0, np.nan), 1.0
    picture = replace(picture, trail=trail)
    assert beside_row(picture, 0, 2, UNICODE, (0.0, 1.0))[2].strip() == "▁▃▅▁"
    assert beside_row(picture, 2, 2, UNICODE, (0.0, 1.0))[2] == "     ███"
    assert beside_row(picture, 1, 1, UNICODE, (0.0, 1.0))[2] == "    ▁▅█ "


async def test_zooming_in_scrolls():
    heatmap = Heatmap()
    async with hosted(heatmap, (56, 14)) as pilot:
        heatmap.show(picture_of(make_timeline(make_info(6, 128, 8), decode=20)))
        await pilot.press("z", "z")
        assert "experts 0–" in heatmap.layout_text()
        heatmap.move_cursor(2, 100)
        assert "100" in lines_of(heatmap)[0]
        await pilot.press("0")
        assert heatmap.zoom is None


async def test_turned_around_rows_are_experts():
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 12)):
        heatmap.show(picture_of(make_timeline(decode=64)))
        heatmap.toggle("swapped")
        lines = lines_of(heatmap)
    assert [line.split()[0] for line in lines[1:9]] == [f"E{e}" for e in range(8)]
    assert "·" in lines[8]


async def test_numbers_in_the_cells_are_the_values():
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 8)):
        picture = picture_of(make_timeline(decode=64))
        heatmap.show(picture)
        heatmap.toggle("numbers")
        cells = lines_of(heatmap)[2].split()[1:9]
    assert cells == [f"{value:.1f}" for value in picture.heat.values[1]]


@pytest.mark.parametrize(
    ("text", "cell", "shown"),
    [
        ("1.2", 4, "1.2 "),
        ("-0.5", 4, "-.5 "),
        ("-1.2", 4, "-1.2"),
        ("-1.2", 3, "-1 "),
        ("-12.3", 4, "-12 "),
        ("12.3", 4, " 12 "),
        ("-0.5", 5, "-0.5 "),
        ("100", 4, "100 "),
        ("·", 4, "  · "),
        ("", 4, "    "),
    ],
)
def test_numbers_too_long_for_their_cell_are_shortened_and_not_cut(text, cell, shown):
    assert number_in_cell(text, cell) == shown


async def test_nothing_is_repainted_that_looks_the_same():
    heatmap = Heatmap()
    async with hosted(heatmap, (57, 8)) as pilot:
        timeline = make_timeline(decode=64)
        heatmap.show(picture_of(timeline))
        await pilot.pause()
        painted = []
        heatmap.refresh = lambda *a, **k: painted.append(a)  # type: ignore[method-assign]
        heatmap.show(picture_of(timeline))
        assert not painted
        heatmap.show(picture_of(timeline, window=WINDOWS[1], measure="mass"))
        assert painted


@pytest.mark.parametrize("size", [(57, 8), (20, 3), (12, 2), (5, 1), (200, 50)])
@pytest.mark.parametrize("shape", [(0, 8, 2), (6, 8, 2), (48, 128, 8), (96, 512, 4), (3, 1, 1)])
async def test_any_model_on_any_screen(size, shape):
    heatmap = Heatmap()
    async with hosted(heatmap, size) as pilot:
        heatmap.show(picture_of(Timeline(make_info(*shape))))
        await pilot.pause()
        lines_of(heatmap)
        heatmap.show(picture_of(make_timeline(make_info(*shape), prompt=3, decode=4)))
        await pilot.pause()
        assert all(len(line) == size[0] for line in lines_of(heatmap))
        assert heatmap.size == size


# -- windows --------------------------------------------------------------------------------------------------------


def test_titles_name_measure_and_window():
    timeline = make_timeline(decode=80)
    assert picture_of(timeline).title == "load share · last 64 tokens · × uniform"
    title = picture_of(timeline, measure="entropy", window=Window("token"), relative=False).title
    assert title == "entropy of its tokens · selected token"
    assert "nothing to compare with" in picture_of(timeline, measure="difference").title


def test_a_difference_compares_with_the_branch_before():
    timeline = make_timeline(decode=20)
    make_timeline(prompt=3, decode=20, branch=1, seed=7, timeline=timeline)
    view = timeline.snapshot()
    source = HeatSource()
    source.measure, source.relative = "difference", False
    picture, done = source.picture(view, token=None, matched=None)
    a, b = sum_tokens(view, 0, 25), sum_tokens(view, 25, 48)
    assert done
    assert "against branch 0" in picture.title
    expected = 100 * (b.loads / b.loads.sum(1, keepdims=True) - a.loads / a.loads.sum(1, keepdims=True))
    assert np.allclose(picture.heat.values, expected)


def test_a_long_run_is_counted_in_portions_and_says_how_far():
    timeline = bulk_timeline(make_info(12, 64, 2), 6000)
    source = HeatSource()
    source.window = Window("all")
    picture, done = source.picture(timeline.snapshot(), token=None, matched=None)
    assert not done
    assert "counted" in picture.title
    rounds = 1
    while not done:
        picture, done = source.picture(timeline.snapshot(), token=None, matched=None)
        rounds += 1
    assert 2 < rounds < 50
    assert picture.loads.sum() == 6000 * 12 * 2
    assert "counted" not in picture.title


def test_trails_are_the_same_however_often_one_looks():
    timeline = make_timeline(prompt=3, decode=10)
    often, balance_often = EntropyTrail(), BalanceTrail()
    for _ in range(40):
        make_timeline(prompt=0, decode=1, timeline=timeline, seed=_)
        often.of(timeline.snapshot())
        balance_often.of(timeline.snapshot())
    view = timeline.snapshot()
    assert np.array_equal(often.of(view), EntropyTrail().of(view), equal_nan=True)
    assert balance_often.of(view) == BalanceTrail().of(view)


def test_the_rate_leaves_pauses_out():
    info = make_info(1, 2, 1)
    timeline = Timeline(info)
    clock = 0.0
    for index in range(20):
        logits = skewed_logits(np.random.default_rng(index), 1, info, unused=False)
        timeline.append(make_step(info, index, logits, started=clock, duration=20.0))
        clock += 0.025 if index != 10 else 60.0
    rate = token_rate(timeline.snapshot())
    assert 39 < rate.overall < 42
    assert math.isnan(token_rate(Timeline(info).snapshot()).overall)


def test_tokens_that_pass_no_site_count_nowhere():
    info = make_info(2, 4, 1)
    timeline = Timeline(info)
    step = make_step(info, 0, skewed_logits(np.random.default_rng(0), 4, info))
    step.indices[:, 1] = NO_EXPERT
    timeline.append(step)
    sums = sum_tokens(timeline.snapshot(), 0, 4)
    assert sums.loads.sum(1).tolist() == [4, 0]
    assert sums.known.tolist() == [4, 0]
    heat = heat_values(sums, info.sites, "load", relative=True)
    assert (quantise(heat, 0, LEVELS)[1] == UNKNOWN).all()
