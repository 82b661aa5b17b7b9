"""The Network screen as a picture: the app itself, run without a terminal on a recording at its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from textual.filter import LineFilter
from textual.pilot import Pilot

from moetui.session import ReplaySession
from moetui.tui.app import MoetuiApp
from moetui.tui.options import Look, ScreenOptions
from moetui.tui.svg import self_contained

SIZE = (120, 40)
_LOOK = Look("truecolor", slow=False, ascii=False, mouse=False)
_RATE = 30.0  # Hz; nobody looks, so that only the end matters


class PictureApp(MoetuiApp):
    """The app, drawn alike whatever the environment says of colours, and without what is there for a moment only."""

    def __init__(self, session: ReplaySession) -> None:
        super().__init__(session, ScreenOptions(fps=_RATE), _LOOK)
        self.no_color = False

    def get_line_filters(self) -> Sequence[LineFilter]:
        """None: ``NO_COLOR`` speaks of terminals."""
        return ()

    def notify(self, *_: Any, **__: Any) -> None:
        """Say nothing: a message in a corner would hide the picture under it."""


def network_svg(trace: Path, size: tuple[int, int] = SIZE) -> str:
    """The Network screen of a recording at its end, as SVG that fetches nothing; the same for the same recording.

    Args:
        trace: the recording.
        size: columns and lines.

    Raises:
        TraceError: no trace, or damaged beyond use.
    """
    session = ReplaySession(trace, start="end", paused=True)
    given_up = threading.Event()
    try:
        session.open()
        session.diagnosed()
        # A thread of its own, because the caller's may have an event loop already.
        with ThreadPoolExecutor(1, "moetui-picture") as thread:
            try:
                return thread.submit(lambda: asyncio.run(_drawn(session, size, given_up))).result()
            finally:
                given_up.set()  # an interrupt comes here: the thread is waited for
    finally:
        session.close()


async def _drawn(session: ReplaySession, size: tuple[int, int], given_up: threading.Event) -> str:
    app = PictureApp(session)
    taken: list[str] = []

    async def take(pilot: Pilot[Any]) -> None:
        settled = False
        while not settled and app.crash is None and not given_up.is_set():
            settled = app.settled  # twice in a row: what was drawn then is on the screen now
            await pilot.pause()
            settled &= app.settled
        if settled:
            taken.append(app.export_screenshot(title="moetui"))
        app.exit(0)

    await app.run_async(headless=True, size=size, mouse=False, auto_pilot=take)
    if app.crash is not None:
        raise app.crash
    return self_contained(taken[0]) if taken else ""
