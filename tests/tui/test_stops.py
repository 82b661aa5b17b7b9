"""Where a run stands still is marked, and what changed since it stood still before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from moetui.routing import NO_EXPERT, RoutingBlock, TimelineView
from moetui.routing.events import BreakpointHit, RunState
from moetui.session import Underway
from moetui.tui.ink import Ink
from moetui.tui.messages import Selection, Stop
from moetui.tui.panels.network import NetworkPanel
from moetui.tui.stops import Stops
from moetui.tui.widgets.token_changes import UNCHANGED, changes
from moetui.tui.widgets.token_facts import token_facts
from tests.tui.builders import HeldSession, make_info, make_timeline
from tests.tui.hosts import hosted, lines_of
from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import calm, running, shown

INFO = make_info(4, 8, 2)


def test_stops_follow_the_run() -> None:
    timeline = make_timeline(INFO, prompt=4, decode=6)
    view = timeline.snapshot()
    stops = Stops()
    stops.state(RunState.RUNNING)
    assert stops.at(view) is None
    stops.state(RunState.PAUSED)
    assert stops.at(view) == Stop(9)
    stops.state(RunState.RUNNING)
    assert stops.at(view) is None
    # The breakpoint's hit comes before the state, or after it.
    stops.hit(BreakpointHit(1, "entropy < 0.4", 7, 2, "entropy = 0.3", 1))
    stops.state(RunState.PAUSED)
    assert stops.at(view) == Stop(7, 2, before=9)
    stops.state(RunState.RUNNING)
    stops.state(RunState.PAUSED)
    stops.hit(BreakpointHit(1, "n > 1", 9, -1, "n = 2", 2))
    assert stops.at(view) == Stop(9, None, before=7)
    empty = make_timeline(INFO, prompt=0, decode=0).snapshot()
    assert stops.at(empty) is None


def test_a_run_that_was_taken_back_stands_on_its_own_branch() -> None:
    view = make_timeline(INFO, prompt=4, decode=6).snapshot()
    whole, back, anew = ((0, None),), ((0, 7), (1, None)), ((2, None),)
    stops = Stops()
    stops.hit(BreakpointHit(1, "entropy < 0.4", 9, 2, "entropy = 0.3", 1))
    stops.state(RunState.PAUSED)
    assert stops.at(view, whole) == Stop(9, 2)
    stops.state(RunState.PAUSED)
    assert stops.at(view, back) == Stop(6)
    assert stops.at(view, anew) is None


def test_changes_are_those_that_can_be_seen() -> None:
    view = make_timeline(INFO, prompt=4, decode=6).snapshot()
    one, other = token_facts(view, 6), token_facts(view, 7)
    assert one is not None
    assert other is not None
    assert set(changes(one, one)) == {UNCHANGED}
    assert changes(None, one) == ()
    found = changes(one, other)
    for before, now, each in zip(one.sites, other.sites, found):
        had = {choice.expert for choice in before.choices}
        assert each.experts == {choice.expert for choice in now.choices} - had
        assert each.experts <= each.weights
        assert each.entropy == (f"{before.entropy:.2f}" != f"{now.entropy:.2f}")
        assert each.margin == (f"{before.margin:.2f}" != f"{now.margin:.2f}")
    assert any(each.entropy for each in found)


async def test_the_panel_marks_the_stop_and_what_changed() -> None:
    timeline = make_timeline(INFO, prompt=4, decode=6)
    panel = NetworkPanel()
    async with hosted(panel, (120, 40), Ink()) as pilot:
        session = HeldSession(timeline, INFO)
        panel.show_stop(Stop(9, 2, before=8))
        panel.refresh_from(timeline.snapshot(), session)
        await pilot.pause()
        (row,) = [line for line in lines_of(panel.tokens) if "▶" in line]
        assert row.split()[:3] == ["▌", "▶", "9"]
        (line,) = [line for line in lines_of(panel.detail) if "▶" in line]
        assert line.startswith("▶L2")
        assert [line[:3] for line in lines_of(panel.heatmap) if "▶" in line] == ["L2▶"]
        assert "changed since token 8" in str(panel.detail.border_subtitle)
        underlined = _underlined(panel, 2)
        now, before = (token_facts(timeline.snapshot(), token) for token in (9, 8))
        assert now is not None
        (_, _, expected, _) = changes(before, now)
        assert (f"{now.sites[2].entropy:.2f}".lstrip("0") in underlined) == expected.entropy
        assert {f"●{expert}" for expert in expected.experts} <= underlined
        panel.tokens.go_to(7)
        await pilot.pause()
        assert not any("▶" in line for line in lines_of(panel.detail)), "another token's detail does not stand there"
        assert not _underlined(panel, 2)
        assert any("▶" in line for line in lines_of(panel.tokens))
        panel.show_stop(None)
        panel.refresh_from(timeline.snapshot(), session)
        await pilot.pause()
        for part in (panel.tokens, panel.detail, panel.heatmap):
            assert not any("▶" in line for line in lines_of(part))


@pytest.mark.parametrize(("tab", "row"), [("2", "▶ gate"), ("4", "▶ L3 → L4")])
async def test_other_panels_mark_the_router_too(tab: str, row: str) -> None:
    session = ScriptedSession()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate("once there was a river")
        session.advance(9)
        app._leave_prompt()
        await pilot.press(tab)
        await calm(app, pilot)
        assert row not in shown(app)
        session._mail.put(BreakpointHit(1, "entropy < 0.4 and layer == 3", 8, 3, "entropy = 0.31", 3))
        session.set_state(RunState.PAUSED, "breakpoint 1")
        await calm(app, pilot)
        assert row in shown(app)
        session.set_state(RunState.RUNNING)
        await calm(app, pilot)
        assert "▶" not in shown(app)


async def test_the_panel_shows_the_step_that_the_run_stands_within() -> None:
    timeline = make_timeline(INFO, prompt=4, decode=6)
    under_way = make_timeline(INFO, prompt=1, decode=0)
    indices = under_way.snapshot().routing(0, 1).indices.copy()
    view = halfway(under_way.snapshot(), passed=3)
    panel = NetworkPanel()
    async with hosted(panel, (120, 40), Ink()) as pilot:
        session = HeldSession(timeline, INFO, underway=Underway(view, 2, 10))
        panel.show_stop(Stop(9))
        panel.refresh_from(timeline.snapshot(), session)
        await pilot.pause()
        assert str(panel.detail.border_title).startswith("token 10 ")
        assert str(panel.detail.border_title).endswith("before L2")
        shown = lines_of(panel.detail)
        assert [line[:3] for line in shown if "▶" in line] == ["▶L2"]
        assert [line.split()[0] for line in shown if "not reached yet" in line] == ["L3"]
        assert all(f"●{expert}" in shown[2] for expert in indices[0, 2].tolist())
        assert [line[:3] for line in lines_of(panel.heatmap) if "▶" in line] == ["L2▶"]
        panel.select(Selection(token=7))  # an older token is shown as ever
        await pilot.pause()
        assert str(panel.detail.border_title).startswith("token 7 ")
        assert not any("not reached yet" in line for line in lines_of(panel.detail))
        panel.select(Selection())
        session.underway = None
        panel.refresh_from(timeline.snapshot(), session)
        await pilot.pause()
        assert str(panel.detail.border_title).startswith("token 9 ")


def halfway(view: TimelineView, passed: int) -> TimelineView:
    """The same without the routing of the sites from ``passed`` on."""

    class Halfway:
        def __getattr__(self, name: str) -> Any:
            return getattr(view, name)

        def routing(self, start: int, stop: int) -> RoutingBlock:
            block = view.routing(start, stop)
            indices, flags = block.indices.copy(), block.flags.copy()
            indices[:, passed:], flags[:, passed:] = NO_EXPERT, 0
            return replace(block, indices=indices, flags=flags)

    return cast(TimelineView, Halfway())


def _underlined(panel: NetworkPanel, line: int) -> set[str]:
    return {each.text.strip() for each in panel.detail.render_line(line) if each.style and each.style.underline}


async def test_a_row_is_painted_once_while_the_run_stands() -> None:
    timeline = make_timeline(INFO, prompt=4, decode=6)
    panel = NetworkPanel()
    async with hosted(panel, (120, 40), Ink()) as pilot:
        session = HeldSession(timeline, INFO)
        for _ in range(3):
            panel.show_stop(Stop(9, 2, before=8))
            panel.refresh_from(timeline.snapshot(), session)
            await pilot.pause()
            lines_of(panel.tokens)
        before = dict(panel.tokens._row_cache)
        panel.show_stop(Stop(9, 2, before=8))
        panel.refresh_from(timeline.snapshot(), session)
        await pilot.pause()
        lines_of(panel.tokens)
        assert panel.tokens._row_cache.keys() == before.keys()
        assert all(panel.tokens._row_cache[key] is line for key, line in before.items())
