"""The diff screen: two recordings side by side."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from moetui.routing import TraceError, UsageError
from moetui.session import ReplaySession
from moetui.tui import run_diff
from moetui.tui.bars import KeyBar
from moetui.tui.diff import DiffApp
from moetui.tui.lines import LineWidget
from moetui.tui.options import Look, ScreenOptions
from moetui.tui.widgets.diff_lists import FlipList, PairList, SiteList
from moetui.tui.widgets.diff_rows import NOBODY, TwoRuns, two_runs
from moetui.tui.widgets.heatmap import Heatmap
from tests.tui.builders import HOSTILE, make_info, make_step, skewed_logits
from tests.tui.hosts import lines_of
from tests.tui.recordings import write_recording, write_steps
from tests.tui.test_app_shell import until

LOOK = Look("truecolor", slow=False, ascii=False, mouse=True)
PLAIN = Look("none", slow=True, ascii=True, mouse=False)
SITES = 3
Write = Callable[..., Path]
Opened = Callable[[Path, Path], TwoRuns]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a run of ``ids``, whose routing at (token, site) is turned over where ``turned`` says so."""

    def run(
        name: str, ids: list[int], turned: dict[int, int] | None = None, texts: dict[int, str] | None = None
    ) -> Path:
        info = make_info(sites=SITES, experts=4)
        rng = np.random.default_rng(0)
        steps = []
        for index, token in enumerate(ids):
            logits = skewed_logits(rng, 1, info)
            if turned and index in turned:
                logits[:, turned[index]] *= -1
            words = texts or {number: f" w{number}" for number in range(40)}
            steps.append(
                make_step(
                    *(info, index, logits), position=index, started=index * 0.02, token_ids=[token],
                    vocabulary=words if not index else {},
                )
            )  # fmt: skip
        return write_steps(tmp_path / name, info, steps)

    return run


@pytest.fixture
def opened() -> Iterator[Opened]:
    sessions: list[ReplaySession] = []

    def run(a: Path, b: Path) -> TwoRuns:
        pair = [ReplaySession(path, start="end", paused=True) for path in (a, b)]
        for session in pair:
            session.open()
        sessions.extend(pair)
        return two_runs(*pair)

    yield run
    for session in sessions:
        session.close()


@asynccontextmanager
async def shown(runs: TwoRuns, size: tuple[int, int] = (120, 40), look: Look = LOOK) -> AsyncIterator[Pilot[Any]]:
    app = DiffApp(runs, ScreenOptions(), look)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.pause()
        yield pilot


async def press(pilot: Pilot[Any], *keys: str) -> None:
    """Press keys, each when what the one before did is done."""
    for key in keys:
        await pilot.press(key)
        await pilot.pause()
        await pilot.pause()


def part(pilot: Pilot[Any], kind: type[Any]) -> Any:
    return pilot.app.query_one(kind)


def screen(pilot: Pilot[Any]) -> str:
    """All that is on the screen, as text."""
    app = pilot.app
    strips = app.screen._compositor.render_strips()
    filters = app.get_line_filters()
    lines = []
    for strip in strips:
        for each in filters:
            strip = strip.apply_filter(each, app.screen.background_colors[0])
        lines.append(strip.text)
    return "\n".join(lines)


# -- rows -------------------------------------------------------------------------------------------------------


def test_a_pair_is_a_row_and_differences_are_those_of_tokens_or_experts(write: Write, opened: Opened) -> None:
    runs = opened(write("a", [1, 2, 3, 4, 5]), write("b", [1, 2, 3, 9, 5], {1: 2}))
    assert runs.numbers.tolist() == [[n, n] for n in range(5)]
    assert runs.same.tolist() == [True, True, True, False, True]
    assert (runs.flips > 0).tolist() == [False, True, False, False, False]
    assert (runs.first_other_experts, runs.first_other_token) == (1, 3)
    assert [runs.next_difference(row, 1) for row in (NOBODY, 1, 3)] == [1, 3, None]
    assert [runs.next_difference(row, -1) for row in (4, 3, 1)] == [3, 1, None]


def test_tokens_without_a_partner_stand_where_they_were(write: Write, opened: Opened) -> None:
    longer = opened(write("a", [1, 2, 3]), write("b", [1, 2, 3, 4, 5]))
    assert longer.numbers.tolist() == [[0, 0], [1, 1], [2, 2], [NOBODY, 3], [NOBODY, 4]]
    shorter = opened(write("c", [1, 2, 3]), write("d", [1]))
    assert shorter.numbers.tolist() == [[0, 0], [1, NOBODY], [2, NOBODY]]
    assert shorter.differences.tolist() == [1, 2]


def test_the_load_shift_is_the_difference_of_shares_and_sums_to_nothing(write: Write, opened: Opened) -> None:
    runs = opened(write("a", [1, 2, 3, 4]), write("b", [1, 2, 3, 4], {1: 2, 2: 2}))
    values = runs.shift_picture(prefix=False).heat.values
    a, b = runs.comparison.sites[2].loads_a, runs.comparison.sites[2].loads_b
    assert values[2] == pytest.approx([100 * (y / 8 - x / 8) for x, y in zip(a, b)])
    assert not values[:2].any()


# -- the screen -------------------------------------------------------------------------------------------------


async def test_it_opens_at_the_first_difference_and_keys_go_to_the_others(write: Write, opened: Opened) -> None:
    ids = list(range(30))
    changed = [*ids[:20], 39, *ids[21:]]
    async with shown(opened(write("a", ids), write("b", changed, {4: 0, 9: 1}))) as pilot:
        rows = part(pilot, PairList)
        seen = [rows.cursor]
        for key in ("n", "n", "n", "N"):
            await press(pilot, key)
            seen.append(rows.cursor)
        assert seen == [4, 9, 20, 20, 9]
        await press(pilot, "d")
        assert rows.cursor == 20
        await press(pilot, "d")
        assert rows.cursor == 4


async def test_what_differs_is_marked_and_spelled_out(write: Write, opened: Opened) -> None:
    ids = list(range(8))
    async with shown(opened(write("a", ids), write("b", [*ids[:5], 30, 6, 7], {2: 1}))) as pilot:
        lines = lines_of(part(pilot, PairList))
        assert "≠" in lines[6]
        assert "w5" in lines[6]
        assert "w30" in lines[6]
        assert not any("≠" in line for line in lines[:6])
        assert lines[3].rstrip().endswith("1")
        text = screen(pilot)
        assert "L1 " in text.splitlines()[-2]
        assert "→" in text.splitlines()[-2]
        await press(pilot, "n")
        assert '"·w5"' in screen(pilot)
        assert '"·w30"' in screen(pilot)


async def test_sites_say_how_far_both_agree_over_all_pairs_or_before_any_differs(write: Write, opened: Opened) -> None:
    runs = opened(write("a", [1, 2, 3, 4]), write("b", [1, 2, 9, 4], {3: 2}))
    async with shown(runs) as pilot:
        sites = part(pilot, SiteList)
        assert "100%" in lines_of(sites)[1]
        assert ".75" in lines_of(sites)[3]
        await press(pilot, "p")
        assert "2 pairs before" in str(sites.border_title)
        assert "100%" in lines_of(sites)[3]
        assert "1.00" in lines_of(sites)[3]


async def test_a_flip_leads_to_its_token_and_site(write: Write, opened: Opened) -> None:
    ids = list(range(40))
    runs = opened(write("a", ids), write("b", ids, {7: 2, 33: 1}))
    async with shown(runs) as pilot:
        flips = part(pilot, FlipList)
        flips.focus()
        await press(pilot, "end")
        flip = flips.flips[-1]
        assert part(pilot, PairList).cursor == flip.position
        assert f"L{part(pilot, PairList).site}" == flip.site
        assert f"L{part(pilot, Heatmap).cursor[0]}" == flip.site


async def test_flips_are_of_the_same_token_or_before_any_differs(write: Write, opened: Opened) -> None:
    ids = list(range(12))
    other = [*ids[:6], 30, *ids[7:]]
    runs = opened(write("a", ids), write("b", other, {2: 1, 6: 0, 9: 2}))
    async with shown(runs) as pilot:
        flips = part(pilot, FlipList)
        assert {flip.position for flip in flips.flips} == {2, 9}
        assert str(flips.border_title) == "flips · 2 by margin · 1 where tokens differ"
        await press(pilot, "p")
        assert [flip.position for flip in flips.flips] == [2]
        assert str(flips.border_title) == "flips before any token differs · 1 by margin"
        assert flips.total == 1
        await press(pilot, "p")
        assert flips.total == 2
    late = opened(write("c", ids), write("d", other, {6: 0}))
    async with shown(late) as pilot:
        assert "the same experts wherever the tokens are the same" in screen(pilot)


async def test_what_stands_beside_the_load_shift_is_a_change_too(write: Write, opened: Opened) -> None:
    runs = opened(write("a", [1, 2, 3, 4]), write("b", [1, 2, 3, 4], {1: 2, 2: 2}))
    site = runs.comparison.sites[2]
    picture = runs.shift_picture(prefix=False)
    assert picture.entropy[2] == pytest.approx(site.entropy_b - site.entropy_a)
    fair = [sum(loads) ** 2 / (len(loads) * sum(load**2 for load in loads)) for loads in (site.loads_a, site.loads_b)]
    assert picture.fairness[2] == pytest.approx(fair[1] - fair[0])
    for look, words in ((LOOK, ("ΔH", "Δfair", "→")), (PLAIN, ("dH", "dfair", ">"))):
        async with shown(runs, look=look) as pilot:
            shift = part(pilot, Heatmap)
            shift.move_cursor(2, 1)
            await pilot.pause()
            assert lines_of(shift)[0].split()[-2:] == list(words[:2])
            assert f"{site.loads_a[1]} {words[2]} {site.loads_b[1]} of 8" in screen(pilot)


async def test_the_change_of_entropy_is_in_the_sites_at_both_sizes(write: Write, opened: Opened) -> None:
    runs = opened(write("a", [1, 2, 3]), write("b", [1, 2, 3], {1: 2}))
    for size in ((80, 24), (120, 40)):
        async with shown(runs, size) as pilot:
            assert "ΔH" in lines_of(part(pilot, SiteList))[0], size


async def test_a_site_is_one_selection_in_all_panels(write: Write, opened: Opened) -> None:
    async with shown(opened(write("a", [1, 2]), write("b", [1, 2], {1: 1}))) as pilot:
        await press(pilot, "right_square_bracket")
        assert (part(pilot, SiteList).cursor, part(pilot, Heatmap).cursor[0], part(pilot, PairList).site) == (1, 1, 1)
        part(pilot, Heatmap).focus()
        await press(pilot, "down")
        assert part(pilot, SiteList).cursor == 2


@pytest.mark.parametrize("look", [LOOK, PLAIN], ids=["colour", "plain"])
async def test_at_80_by_24_one_panel_stands_under_the_tokens_and_v_changes_it(
    write: Write, opened: Opened, look: Look
) -> None:
    ids = list(range(40))
    async with shown(opened(write("a", ids), write("b", [*ids[:20], 39, *ids[21:]], {4: 1})), (80, 24), look) as pilot:
        for kind in (SiteList, Heatmap, FlipList, SiteList):
            visible = [panel for panel in (SiteList, Heatmap, FlipList) if part(pilot, panel).region.height > 0]
            assert visible == [kind]
            text = screen(pilot)
            assert all(len(line) == 80 for line in text.splitlines())
            assert text.isascii() == look.ascii
            for word in ("next", "quit", "help"):
                assert word in lines_of(part(pilot, KeyBar))[0]
            await press(pilot, "v")


async def test_two_runs_that_are_the_same_say_so(write: Write, opened: Opened) -> None:
    path = write("a", [1, 2, 3])
    async with shown(opened(path, path)) as pilot:
        text = screen(pilot)
        assert "identical" in text
        assert "every token went to the same experts" in text
        await press(pilot, "n", "d", "N")
        assert part(pilot, PairList).cursor == 0


async def test_q_leaves(write: Write, opened: Opened) -> None:
    async with shown(opened(write("a", [1]), write("b", [2]))) as pilot:
        await press(pilot, "q")
    assert pilot.app.return_value == 0


async def test_hostile_tokens_stay_in_their_cells(write: Write, opened: Opened) -> None:
    texts = dict(enumerate(HOSTILE))
    ids = list(range(len(HOSTILE)))
    runs = opened(write("a", ids, texts=texts), write("b", ids[::-1], texts=texts))
    async with shown(runs) as pilot:
        text = screen(pilot)
        assert not set(text) & {"\x1b", "\u202e", "\x07"}
        for _ in ids:
            await press(pilot, "n")


async def test_recordings_without_tokens_have_a_screen(tmp_path: Path, opened: Opened) -> None:
    path = write_recording(tmp_path / "a", prompt=0, decode=0)
    async with shown(opened(path, path)) as pilot:
        await press(pilot, "n", "p", "v", "d", "down")
        assert "identical" in screen(pilot)


async def test_many_sites_are_shown_around_the_selected_one(tmp_path: Path, opened: Opened) -> None:
    info = make_info(sites=48, experts=128, top_k=8)
    paths = [write_recording(tmp_path / str(seed), info, seed=seed, decode=5) for seed in (1, 2)]
    async with shown(opened(*paths), (80, 24)) as pilot:
        assert all(len(line) == part(pilot, PairList).content_size.width for line in lines_of(part(pilot, PairList)))
        await press(pilot, *["left_square_bracket"] * 2)
        assert part(pilot, SiteList).cursor == 46
        assert "L46" in "".join(lines_of(part(pilot, SiteList)))


@pytest.mark.parametrize(("width", "left_out"), [(80, True), (300, False)])
async def test_changes_that_have_no_room_are_said_to_be_left_out(
    tmp_path: Path, opened: Opened, width: int, left_out: bool
) -> None:
    info = make_info(sites=6, experts=128, top_k=4)
    paths = [write_recording(tmp_path / str(seed), info, seed=seed, decode=5) for seed in (1, 2)]
    async with shown(opened(*paths), (width, 24)) as pilot:
        (changes,) = lines_of(pilot.app.query_one("#pair", LineWidget))
        assert ("L5" not in changes) is left_out
        assert changes.rstrip().endswith("   …") is left_out


async def test_the_smallest_screen_has_both_parts_and_a_smaller_one_says_so(tmp_path: Path, opened: Opened) -> None:
    paths = [write_recording(tmp_path / str(seed), seed=seed, decode=20) for seed in (1, 2)]
    async with shown(opened(*paths), (40, 12)) as pilot:
        assert part(pilot, PairList).content_size.height >= 3
        assert part(pilot, SiteList).content_size.height >= 2
        await press(pilot, "question_mark")
        await pilot.resize_terminal(30, 8)
        await press(pilot, "escape")
        assert "40×12 needed, this is 30×8" in screen(pilot)
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert "needed" not in screen(pilot)


# -- the door ---------------------------------------------------------------------------------------------------


def test_what_is_no_recording_is_said_before_the_screen_opens(write: Write, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"no trace")
    with pytest.raises(TraceError):
        run_diff(write("a", [1]), bad)


def test_models_that_cannot_be_compared_are_said_so(tmp_path: Path, opened: Opened) -> None:
    a = write_recording(tmp_path / "a", make_info(experts=4))
    b = write_recording(tmp_path / "b", make_info(experts=8))
    with pytest.raises(UsageError, match="experts"):
        opened(a, b)


# -- to take along ----------------------------------------------------------------------------------------------


async def test_pairs_sites_flips_and_shift_can_be_copied(write: Write, opened: Opened) -> None:
    texts = {number: "=1+1" if number == 2 else f" w{number}" for number in range(40)}
    runs = opened(write("a", [1, 2, 3, 4, 5], texts=texts), write("b", [1, 2, 3, 9], {1: 2}, texts))

    async def copied(of: type[Any]) -> list[list[str]]:
        part(pilot, of).focus()
        pilot.app._clipboard = ""
        await press(pilot, "y")
        await until(pilot, lambda: pilot.app.clipboard)
        return list(csv.reader(pilot.app.clipboard.splitlines(), delimiter="\t"))

    async with shown(runs) as pilot:
        pairs = await copied(PairList)
        assert [row[2] for row in pairs] == ["token_a", "·w1", "'=1+1", "·w3", "·w4", "·w5"]
        assert [row[5] for row in pairs][-2:] == ["·w9", ""]
        assert [row[7] for row in pairs[1:]] == [str(count) for count in runs.flips.tolist()]
        sites = await copied(SiteList)
        assert [row[0] for row in sites] == ["site", *(site.site for site in runs.comparison.sites)]
        assert float(sites[1][1]) == pytest.approx(runs.comparison.sites[0].same_top1, abs=1e-5)
        assert len(await copied(FlipList)) == 1 + len(runs.comparison.top_flips)
        assert len(await copied(Heatmap)) == 1 + SITES
