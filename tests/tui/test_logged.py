"""What log points saw, in the console's log: all of it, or how much more there was."""

from __future__ import annotations

import pytest

from moetui.routing.breakpoints import Breakpoint
from moetui.routing.events import BreakpointHit, RunState
from moetui.tui.app import MoetuiApp
from moetui.tui.logged import MOST, LoggedHits
from moetui.tui.panels.console_log import ConsoleLog
from tests.tui.test_app_shell import PROMPT, calm, running, shown, until
from tests.tui.test_debugging import Debugged


def hit(number: int, *, point: int = 1, expression: str = "margin < 0.01") -> BreakpointHit:
    return BreakpointHit(point, expression, 100 + number, 3, "margin = 0.004", number, log_only=True)


def logged(app: MoetuiApp) -> list[str]:
    return [text for line in app.query_one(ConsoleLog).lines if (text := line.text.strip())]


def test_lines_end_where_they_are_too_many_and_begin_anew_behind_a_stop() -> None:
    hits = LoggedHits()
    assert [hits.take(hit(number)) for number in range(1, 61)] == [*range(1, MOST + 1), *[0] * (60 - MOST)]
    assert hits.take(hit(1, point=2)) == 1
    assert hits.stood(()) == ["margin < 0.01: 10 more hits; find margin < 0.01 lists the tokens"]
    assert hits.stood(()) == []
    assert hits.take(hit(61)) == 1
    assert hits.stood(()) == []


@pytest.mark.parametrize("behind", [1, 0])
def test_hits_that_were_not_told_are_counted(behind: int) -> None:
    hits = LoggedHits()
    hits.take(hit(5))  # four were let pass
    hits.take(hit(6))
    if behind:
        hits.take(hit(80))
        assert hits.stood(()) == ["margin < 0.01: 73 more hits; find margin < 0.01 lists the tokens"]
    else:
        point = Breakpoint(1, "margin < 0.01", log_only=True, hits=80)
        assert hits.stood((point,)) == ["margin < 0.01: 74 more hits; find margin < 0.01 lists the tokens"]


async def test_what_log_points_saw_before_the_console_was_opened_is_in_its_log() -> None:
    session = Debugged()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate(PROMPT)
        for number in range(1, 201):
            session._mail.put(hit(number))
        session._mail.put(hit(1, point=2, expression="layer:3 \x1b[31m"))
        await calm(app, pilot)
        assert [one.message.splitlines()[0] for one in app._notifications] == [
            "margin < 0.01: margin = 0.004 at token 101 · L3",
            "layer:3 ␛[31m: margin = 0.004 at token 101 · L3",
        ]
        session.set_state(RunState.FINISHED)
        await calm(app, pilot)
        await app.action_tab("console")
        await until(pilot, lambda: "150 more hits" in shown(app))
        lines = logged(app)[1:]
        assert lines[:2] == [f"margin < 0.01: margin = 0.004 at token {token} · L3" for token in (101, 102)]
        assert lines[MOST - 1 :] == [
            f"margin < 0.01: margin = 0.004 at token {100 + MOST} · L3",
            "layer:3 ␛[31m: margin = 0.004 at token 101 · L3",
            "margin < 0.01: 150 more hits; find margin < 0.01 lists the tokens",
        ]


async def test_lines_that_come_while_the_log_is_read_are_written_there_and_move_nothing() -> None:
    session = Debugged()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate(PROMPT)
        await app.action_tab("console")
        for number in range(1, 51):
            session._mail.put(hit(number))
        await until(pilot, lambda: "token 150" in shown(app))
        assert not app._notifications
        log = app.query_one(ConsoleLog)
        log.scroll_pages(-1)
        await calm(app, pilot)
        place = log.scroll_offset.y
        session.set_state(RunState.PAUSED)
        await calm(app, pilot)
        session.set_state(RunState.RUNNING)
        session._mail.put(hit(51))
        await until(pilot, lambda: logged(app)[-1].endswith("token 151 · L3"))
        await calm(app, pilot)
        assert log.scroll_offset.y == place
        log.scroll_pages(1)
        session._mail.put(hit(52))
        await until(pilot, lambda: "token 152" in shown(app))
