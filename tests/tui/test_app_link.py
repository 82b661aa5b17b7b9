"""The wire: differences must leave the terminal exactly as whole pictures do, and pacing must never wait for ever."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pyte
import pytest
from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.pilot import Pilot

from moetui.routing.events import Finding, RunState
from moetui.tui.app import MoetuiApp
from moetui.tui.delta import SentScreen, supported
from moetui.tui.driver import Meter
from moetui.tui.link import IN_FLIGHT, PATIENCE, Linked, Pacing
from moetui.tui.options import Look, ScreenOptions
from moetui.tui.ticker import FASTEST, LEAST_SHARE, LIGHT, MOST_SHARE, SLOWEST, USUAL, Rate, Ticker, need_of
from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import calm

LOOK = Look("truecolor", slow=False, ascii=False, mouse=True)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class TwoTerminals(MoetuiApp):
    """Sends each update to two emulated terminals: whole to one, as the difference to the other."""

    def start_link(self, *, delta: bool = True) -> None:
        super().start_link(delta=False)
        self.screens = self.streams = None
        self.sent = SentScreen(ColorSystem.TRUECOLOR)
        self.console_of_test = Console(color_system="truecolor", force_terminal=True)
        self.bytes = [0, 0]
        self.frames = 0

    def terminals(self, width: int, height: int) -> None:
        self.screens = [pyte.Screen(width, height), pyte.Screen(width, height)]
        self.streams = [pyte.Stream(screen) for screen in self.screens]

    def _display(self, screen: Any, renderable: Any) -> None:
        if isinstance(renderable, CompositorUpdate) and not self._batch_count:
            assert isinstance(renderable, LayoutUpdate | ChopsUpdate)
            if self.screens is None or (self.screens[0].columns, self.screens[0].lines) != tuple(self.size):
                self.terminals(*self.size)
                self.sent.forget()
            if self.sent.known or isinstance(renderable, LayoutUpdate):
                whole = renderable.render_segments(self.console_of_test)
                part = self.sent.encode(renderable)
                # Textual ends a line of a picture with a line feed before it moves on; at the last line that would
                # scroll a terminal, which Textual avoids by sending no last one.
                for text, stream, at in ((whole, self.streams[0], 0), (part, self.streams[1], 1)):
                    stream.feed(text)
                    self.bytes[at] += len(text.encode())
                self.frames += 1
        super()._display(screen, renderable)

    def differences(self) -> list[tuple[int, int, Any, Any]]:
        one, other = (screen.buffer for screen in self.screens)
        cells = ((y, x) for y in range(self.screens[0].lines) for x in range(self.screens[0].columns))
        return [(y, x, one[y][x], other[y][x]) for y, x in cells if one[y][x] != other[y][x]]


@asynccontextmanager
async def two_terminals(width: int, height: int) -> AsyncIterator[tuple[TwoTerminals, Pilot[Any], ScriptedSession]]:
    session = ScriptedSession()
    app = TwoTerminals(session, ScreenOptions(), LOOK)
    async with app.run_test(size=(width, height)) as pilot:
        await calm(app, pilot)
        yield app, pilot, session
        await calm(app, pilot)
        assert app.frames
        assert app.differences() == []


def test_it_is_proven_with_the_installed_textual() -> None:
    assert supported(), "another Textual: prove the scenarios below with it, then name it in delta.KNOWN_VERSION"


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12)])
async def test_a_run_and_every_tab(size: tuple[int, int]) -> None:
    async with two_terminals(*size) as (app, pilot, session):
        session.generate("once there was a small river")
        for tab in ("network", "elements", "profiler", "console"):
            await app.action_tab(tab)
            for _ in range(3):
                session.advance(4)
                await pilot.pause(0.15)
            assert app.differences() == []


class OwnSending(TwoTerminals):
    """The other terminal gets what the app itself sends."""

    def start_link(self, *, delta: bool = True) -> None:
        super().start_link()
        Linked.start_link(self)
        self.console._color_system = ColorSystem.TRUECOLOR
        self.before = [0, 0]

    def send_differences(self) -> None:
        super().send_differences()
        self.before = list(self.bytes)

    def _display(self, screen: Any, renderable: Any) -> None:
        if isinstance(renderable, CompositorUpdate) and not self._batch_count:
            if self.screens is None:
                self.terminals(*self.size)
            for at, update in enumerate((renderable, self._stand_in(renderable))):  # type: ignore[arg-type]
                text = update.render_segments(self.console_of_test)
                self.streams[at].feed(text)
                self.bytes[at] += len(text.encode())
        MoetuiApp._display(self, screen, renderable)


async def test_the_first_pictures_go_out_whole_and_are_not_sent_again() -> None:
    session = ScriptedSession(loads=False)
    app = OwnSending(session, ScreenOptions(), LOOK)
    async with app.run_test(size=(100, 30)) as pilot:
        await calm(app, pilot)
        assert app.before[0] == app.before[1] > 2000, "there was a picture before what finds differences was loaded"
        app.refresh(layout=True)
        await calm(app, pilot)
        whole, part = (now - before for now, before in zip(app.bytes, app.before))
        assert part < whole / 4, "a line of progress, and nothing of the first picture"
        session.finish_loading()
        await calm(app, pilot)
        assert app.differences() == []


async def test_overlays_scrolling_and_resizing() -> None:
    async with two_terminals(100, 30) as (app, pilot, session):
        session.generate("once there was a small river")
        session.advance(40)
        session.raise_finding(Finding("dead_expert", "warning", "expert 0 of L5 got no token", "look at L5", "L5"))
        await pilot.pause(0.3)
        app.screen.set_focus(None)
        app._focus_panel("network")
        for key in ("up", "up", "pageup", "home", "pagedown", "end"):
            await pilot.press(key)
            assert app.differences() == []
        await pilot.press("question_mark")
        await pilot.pause(0.1)
        assert app.differences() == []
        await pilot.press("escape", "exclamation_mark")
        await pilot.pause(0.1)
        await pilot.press("escape", "ctrl+p")
        await pilot.pause(0.3)
        await pilot.press("t", "h", "e")
        await pilot.pause(0.3)
        assert app.differences() == []
        await pilot.press("escape")
        for size in ((80, 24), (40, 12), (30, 8), (120, 40)):
            await pilot.resize_terminal(*size)
            session.advance(3)
            await pilot.pause(0.3)
            assert app.differences() == [], size
        await pilot.press("escape")
        await pilot.pause(0.2)
        await pilot.press(*"help", "enter")
        session.advance(5)
        await pilot.pause(0.3)
        app.theme = "moetui-light"
        await pilot.pause(0.3)


async def test_wide_combining_and_hostile_text() -> None:
    async with two_terminals(100, 30) as (app, pilot, session):
        words = ["日本語", "e\u0301te\u0301", "👩\u200d🚀", "\x1b[2J", "[/b]", "a\u202eb", "हिन्दी", "ü" * 30]
        await app.action_tab("console")
        await pilot.pause(0.2)
        for word in words:
            session.raise_finding(Finding("dead_expert", "info", f"the token {word} is odd", "", "L5"))
            await pilot.press(*"findings", "enter")
            await pilot.pause(0.15)
            assert app.differences() == [], word
        await app.action_tab("elements")
        await app.action_tab("console")
        await pilot.pause(0.2)


async def test_little_is_sent_when_little_changes() -> None:
    async with two_terminals(120, 40) as (app, pilot, session):
        session.generate("once there was a small river")
        session.advance(20)
        await app.action_tab("profiler")
        await calm(app, pilot)
        app.bytes = [0, 0]
        for _ in range(5):
            session.advance(1)
            await calm(app, pilot)
        whole, part = app.bytes
        assert 0 < part < whole / 4


async def test_nothing_is_sent_when_nothing_changes() -> None:
    async with two_terminals(120, 40) as (app, pilot, session):
        session.generate("once there was")
        session.advance(5)
        session.pause()
        await calm(app, pilot)
        app.bytes = [0, 0]
        await pilot.pause(0.6)
        assert app.bytes == [0, 0]


def test_a_frame_waits_for_the_answers_to_those_before() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    for _ in range(IN_FLIGHT):
        assert pacing.ready()
        pacing.asked()
    assert not pacing.ready()
    clock.now += 0.3
    pacing.answered()
    assert pacing.ready()
    assert pacing.round_trip == pytest.approx(0.3)


def test_a_terminal_that_never_answers_is_not_waited_for() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    for _ in range(2):
        for _ in range(IN_FLIGHT):
            pacing.asked()
        assert not pacing.ready()
        clock.now += PATIENCE + 0.1
        assert pacing.ready()
    assert not pacing.asking
    assert pacing.round_trip is None


def test_an_answer_too_many_does_no_harm() -> None:
    pacing = Pacing(Clock())
    pacing.answered()
    assert pacing.round_trip is None
    assert pacing.ready()


def test_the_rate_follows_cost_and_line() -> None:
    rate = Rate()
    for _ in range(50):
        rate.painted(0.001, 0.005)
    assert rate.hz == pytest.approx(FASTEST)
    for _ in range(50):
        rate.painted(0.001, 0.6)
    assert rate.hz == pytest.approx(SLOWEST, abs=0.1)
    for _ in range(50):
        rate.painted(0.01, 0.005)
    assert rate.hz * 0.01 == pytest.approx(LEAST_SHARE)
    for _ in range(50):
        rate.painted(0.06, 0.005)
    assert rate.hz == pytest.approx(SLOWEST, abs=0.1)
    for _ in range(50):
        rate.painted(0.001, 0.005, 14_000)
    assert rate.hz * 14_000 == pytest.approx(LIGHT)
    for _ in range(50):
        rate.painted(0.001, None)
    assert rate.hz == pytest.approx(USUAL)


def test_a_model_that_hardly_needs_the_interpreter_leaves_more_of_it_to_the_screen() -> None:
    python_bound, slow = need_of(250.0, 6), need_of(1.0, 32)
    assert python_bound == 1.0
    assert slow < 0.1
    assert need_of(math.nan, 6) == 1.0
    shares = []
    for need in (python_bound, 0.4, slow):
        rate = Rate(need=need)
        for _ in range(50):
            rate.painted(0.02, 0.005)
        shares.append(rate.hz * 0.02)
    assert shares == pytest.approx([LEAST_SHARE, LEAST_SHARE / 0.4, MOST_SHARE], rel=0.01)


def test_a_model_that_is_slow_because_the_machine_is_busy_gives_the_screen_no_more() -> None:
    rate = Rate(need=need_of(83.0, 6))
    for _ in range(50):
        rate.drawn(0.010, 0.005)
        rate.painted(0.02, 0.005)
    assert rate.hz * 0.02 == pytest.approx(LEAST_SHARE, rel=0.01)


class Loop:
    """A ticker on the real event loop that is told how late it is and what processor time was spent."""

    def __init__(self, hz: float) -> None:
        self.spent = 0.0
        self.painted = 0
        self.clock = Clock()
        self.ticker = Ticker(self._paint, Rate(), spent=lambda: self.spent, round_trip=lambda: 0.001, clock=self.clock)
        self.ticker.rate.hz = hz

    def _paint(self) -> None:
        self.painted += 1

    async def until_painted(self, times: int) -> None:
        end = time.monotonic() + 10.0
        while self.painted < times:
            assert time.monotonic() < end, "it was not painted"
            await asyncio.sleep(0.005)


async def test_all_that_the_screens_thread_does_counts_but_for_what_a_person_set_going() -> None:
    loop = Loop(hz=20.0)
    running = asyncio.create_task(loop.ticker.run())
    try:
        for touched in (True, False):
            loop.ticker.rate.hz = 20.0
            for _ in range(3):
                loop.clock.now += 0.06
                loop.ticker.mark()
                await loop.until_painted(loop.painted + 1)
                loop.spent += 0.5
                if touched:
                    loop.ticker.touched()
            assert (loop.ticker.rate.hz == 20.0) == touched
    finally:
        running.cancel()


async def test_what_a_person_waits_for_is_painted_before_its_turn() -> None:
    loop = Loop(hz=0.01)  # its turn would come in minutes
    running = asyncio.create_task(loop.ticker.run())
    try:
        loop.ticker.mark()
        await loop.until_painted(1)
        loop.ticker.mark()
        await asyncio.sleep(0.2)
        assert loop.painted == 1
        loop.ticker.mark(soon=True)
        await loop.until_painted(2)
    finally:
        running.cancel()


async def test_the_first_picture_of_a_run_comes_with_its_first_tokens_whatever_it_costs() -> None:
    loop = Loop(hz=0.01)
    running = asyncio.create_task(loop.ticker.run())
    try:
        loop.ticker.mark()
        await loop.until_painted(1)
        loop.clock.now += 60.0
        begun = time.monotonic()
        loop.ticker.begin()
        await loop.until_painted(2)
        assert time.monotonic() - begun > 0.9 / FASTEST, "there was nothing to see yet"
        loop.ticker.mark()
        await asyncio.sleep(0.3)
        assert loop.painted == 2
    finally:
        running.cancel()


def test_a_rate_that_was_asked_for_stays() -> None:
    rate = Rate(fixed=1.0)
    rate.painted(0.001, 0.001)
    assert rate.hz == 1.0


def test_the_meter_forgets() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.count(4000)
    assert meter.kilobytes() == pytest.approx(2.0)
    clock.now += 3.0
    assert meter.kilobytes() == 0.0
    assert meter.total == 4000


def test_states_are_all_marked() -> None:
    from moetui.tui.status import state_part

    texts = {state_part(state, ascii_only=True).text for state in RunState}
    assert len(texts) == len(RunState)
    assert all(text.isascii() for text in texts)
