"""Makes the README's pictures: the four tabs on a live run of the demo model, drawn without a terminal.

``python snapshots/readme.py`` writes ``readme-*.svg`` beside this file. Look at them before committing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from moetui.engine.models import LoadRequest
from moetui.routing.events import GenerationSettings, RunState
from moetui.session.live import LiveSession
from moetui.session.options import LiveOptions
from moetui.tui.messages import SiteSelected
from moetui.tui.picture import PictureApp
from moetui.tui.svg import self_contained

FOLDER = Path(__file__).resolve().parent
SIZE = (112, 32)
PROMPT = "Once there was a small river"
PATIENCE = 180.0


async def until(pilot: Pilot[Any], true: Callable[[], object]) -> None:
    """Wait until something holds, and until it is drawn."""
    end = time.monotonic() + PATIENCE
    quiet = 0
    while quiet < 5:
        if time.monotonic() > end:
            raise TimeoutError("the screen did not come to be")
        quiet = quiet + 1 if true() and pilot.app.settled else 0  # type: ignore[attr-defined]
        await pilot.pause(0.05)


async def take(pilot: Pilot[Any], session: LiveSession) -> None:
    """Walk through the tabs and write a picture of each."""
    app: Any = pilot.app

    def write(name: str) -> None:
        svg = self_contained(app.export_screenshot(title="moetui"))
        (FOLDER / f"readme-{name}.svg").write_text(svg, encoding="utf-8")

    await until(pilot, lambda: session.state is RunState.FINISHED)
    app._leave_prompt()
    network = app._panels["network"]
    await pilot.press(*["up"] * 7, "right", "right", "A")
    await until(pilot, lambda: network.tokens.related is not None)
    await pilot.press("W")
    await until(pilot, lambda: len(network.detail._related) == 2)
    await pilot.press("A")
    await until(pilot, lambda: True)
    write("network")
    await pilot.press("2")
    app.post_message(SiteSelected(3, 5))
    await until(pilot, lambda: True)
    await pilot.pause(1.0)
    write("elements")
    await pilot.press("3")
    await until(pilot, lambda: True)
    for line in (
        "force_expert_selection 0 3 7 --layers 2-4",
        f'generate "{PROMPT}" -n 24',
        "compare --rows 2",
    ):
        app._panels["console"].type_in(line)
        await pilot.press("enter")
        await pilot.pause(0.5)
        await until(pilot, lambda: session.state is RunState.FINISHED)
    await pilot.pause(1.0)
    write("console")
    app.screen.set_focus(None)
    await app.action_tab("profiler")
    await pilot.pause(2.5)
    app._panels["profiler"].action_parts()
    await until(pilot, lambda: app._panels["profiler"]._parts._answer is not None)
    write("profiler")
    app.exit(0)


def main() -> int:
    """Run the demo model and write the pictures."""
    settings = GenerationSettings(max_new_tokens=48)
    session = LiveSession(LiveOptions(LoadRequest("demo"), prompt=PROMPT, settings=settings))
    app = PictureApp(session)
    try:
        asyncio.run(app.run_async(headless=True, size=SIZE, mouse=False, auto_pilot=lambda pilot: take(pilot, session)))
    finally:
        session.close()
    if app.crash is not None:
        raise app.crash
    return 0


if __name__ == "__main__":
    sys.exit(main())
