"""Makes the pictures of the README's story: a live run of the demo model is stopped, looked at, forced, compared.

``python snapshots/story.py`` writes ``story-*.svg`` beside this file. Look at them before committing.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from readme import FOLDER, SIZE, until
from textual.pilot import Pilot

from moetui.engine.models import LoadRequest
from moetui.routing.events import GenerationSettings, RunState
from moetui.session.live import LiveSession
from moetui.session.options import LiveOptions
from moetui.tui.panels.console import ConsolePanel
from moetui.tui.picture import PictureApp
from moetui.tui.svg import self_contained

PROMPT = "Once there was a"


async def tell(pilot: Pilot[Any], session: LiveSession) -> None:
    """Type the story and take its pictures."""
    app: Any = pilot.app

    async def write(name: str) -> None:
        await until(pilot, lambda: True)
        svg = self_contained(app.export_screenshot(title="moetui"))
        (FOLDER / f"story-{name}.svg").write_text(svg, encoding="utf-8")

    async def typed(text: str) -> None:
        panel = app.query_one(ConsolePanel)
        panel.type_in(text)
        await pilot.press("enter")
        await until(pilot, lambda: not panel.busy)

    await until(pilot, lambda: session.state is RunState.READY)
    app._leave_prompt()
    await app.action_drawer()
    await typed("break_when entropy < 0.4 and layer == 5")
    await typed(f"generate {PROMPT}")
    await until(pilot, lambda: session.state is RunState.PAUSED)
    await pilot.press("escape")
    await write("stopped")
    await pilot.press("b")
    await pilot.pause(0.5)
    await write("breakpoints")
    await pilot.press("escape")
    await app.action_tab("console")
    await until(pilot, lambda: app.query_one(ConsolePanel).display)
    await typed("why")
    await write("why")
    await typed("clear")
    await typed("breakpoints --disable 1")
    await typed("continue")
    await until(pilot, lambda: session.state is RunState.FINISHED)
    await typed("clear")
    await typed("force_expert_selection 0 3 7 --layers 2-4")
    await typed("fork 7 --name forced")
    await until(pilot, lambda: session.state is RunState.FINISHED and len(session.branches) == 2)
    session.flush()
    await typed("compare --rows 3")
    await typed("undo")
    await write("compared")
    app.exit(0)


def main() -> int:
    """Run the model and draw."""
    session = LiveSession(LiveOptions(LoadRequest("demo"), settings=GenerationSettings(max_new_tokens=32)))
    app = PictureApp(session)

    async def run() -> None:
        await app.run_async(headless=True, size=SIZE, mouse=False, auto_pilot=lambda pilot: tell(pilot, session))

    try:
        asyncio.run(run())
    finally:
        session.close()
    if app.crash is not None:
        raise app.crash
    return 0


if __name__ == "__main__":
    sys.exit(main())
