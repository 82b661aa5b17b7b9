"""Every tab and every main state as a picture, at the smallest usual terminal and at a comfortable one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot

from moetui.routing.events import BreakpointHit, Finding, RunState
from moetui.session import Capability, Playback
from moetui.tui.app import MoetuiApp
from moetui.tui.options import Look, ScreenOptions
from moetui.tui.status import LineFacts
from tests.tui import snapshots
from tests.tui.scripted import LIVE, ScriptedSession
from tests.tui.test_app_shell import calm

SIZES = [(80, 24), (120, 40)]
LOOK = Look("truecolor", slow=False, ascii=False, mouse=True)
Scene = Callable[[MoetuiApp, Pilot[Any], ScriptedSession], Awaitable[None]]


async def settled(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, MoetuiApp)
    await calm(app, pilot)


async def run(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    session.generate("once there was a small river who lived in the old garden")
    session.advance(23)
    app._leave_prompt()


async def ready(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    pass


async def loading(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    session.progress("reading weights, 3 of 5 files", 0.62)


async def failed(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    session.fail("no model 'mixtrall-8x7b' here or on the hub", "did you mean 'mixtral-8x7b'?")


async def network(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)


async def paused(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    session._mail.put(BreakpointHit(1, "entropy < 0.4 and layer == 3", 31, 3, "entropy = 0.31", 3))
    session.set_state(RunState.PAUSED, "breakpoint 1")


async def finished(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    session.raise_finding(Finding("dead_expert", "warning", "expert 0 of L5 got no token", "give it other text", "L5"))
    session.set_state(RunState.FINISHED)


async def findings(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await finished(app, pilot, session)
    session.raise_finding(Finding("non_finite", "error", "router logits hold NaN", "look at the token before", "L2"))
    await settled(pilot)
    await pilot.press("exclamation_mark")


async def elements(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    await app.action_tab("elements")
    await settled(pilot)
    app.query_one("#elements").select(app.selection.__class__(None, 3, 5))  # type: ignore[attr-defined]


async def router(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    await app.action_tab("elements")
    await settled(pilot)
    app.query_one("#elements").select(app.selection.__class__(None, 3, None))  # type: ignore[attr-defined]


async def profiler(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    await app.action_tab("profiler")


async def console(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    await app.action_tab("console")
    await settled(pilot)
    await pilot.press(*"stats", "enter")
    await settled(pilot)
    await pilot.press(*"nonsense", "enter")


async def drawer(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    await settled(pilot)
    await app.action_drawer()
    await settled(pilot)
    await pilot.press(*"findings", "enter")


async def keys(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    await settled(pilot)
    await pilot.press("question_mark")


async def replay(app: MoetuiApp, pilot: Pilot[Any], session: ScriptedSession) -> None:
    await run(app, pilot, session)
    session.set_state(RunState.PAUSED)


SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        *(loading, failed, ready, network, paused, finished, findings),
        *(elements, router, profiler, console, drawer, keys, replay),
    )
}


class Recording(ScriptedSession):
    def __init__(self) -> None:
        super().__init__(capabilities=Capability.SEEK)
        self.name = "/data/runs/river.msgpack"
        self.playback = Playback(35, 96, 2.0, (3, 35))


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(rss=912_000_000))
    monkeypatch.setattr(MoetuiApp, "line_facts", lambda self: LineFacts(6.8, 4.0, 0.012))


async def draw(name: str, size: tuple[int, int], look: Look = LOOK, theme: str = "") -> None:
    if name == "replay":
        session: ScriptedSession = Recording()
    else:
        session = ScriptedSession(loads=name not in ("loading", "failed"), capabilities=LIVE & ~Capability.INSPECT)
    app = MoetuiApp(session, ScreenOptions(theme=theme, fps=60.0), look)
    async with app.run_test(size=size, notifications=True) as pilot:
        await settled(pilot)
        await SCENES[name](app, pilot, session)
        await settled(pilot)
        for _ in range(2):  # what changes slowly is looked at again
            app.mark_dirty(app.tab)
            await settled(pilot)
        kind = (
            f"-{look.colors}"
            if look.colors != "truecolor"
            else "-ascii"
            if look.ascii
            else f"-{theme}"
            if theme
            else ""
        )
        snapshots.check(app, f"{name}{kind}-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", SCENES)
async def test_scene(name: str, size: tuple[int, int]) -> None:
    await draw(name, size)


@pytest.mark.parametrize("name", ["network", "elements"])
async def test_light(name: str) -> None:
    await draw(name, (120, 40), theme="light")


async def test_sixteen_colors() -> None:
    await draw("network", (120, 40), Look("16", slow=False, ascii=False, mouse=True))


async def test_no_color_and_ascii() -> None:
    await draw("network", (80, 24), Look("none", slow=True, ascii=True, mouse=False))


async def test_the_smallest_terminal() -> None:
    await draw("network", (40, 12))
