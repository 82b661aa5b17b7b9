"""``moetui replay``: a recording on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moetui.cli.common import FILE, Common, common_options
from moetui.cli.options import CONSOLE, SCREEN, FiniteRange, grouped


@click.command("replay")
@click.argument("trace", type=FILE)
@click.option("--speed", type=FiniteRange(0.25, 64), default=1.0, show_default=True, help="Times real time.")
@click.option("--follow", is_flag=True, help="Go on reading while the file is being written.")
@grouped(CONSOLE, SCREEN)
@common_options
@click.pass_context
def command(ctx: click.Context, /, trace: Path, speed: float, follow: bool, **options: Any) -> int:
    """Open the recording TRACE; needs no model and no torch."""
    from moetui.cli.screen import screen_options
    from moetui.session import ComingSession, Playback, Session
    from moetui.tui import run_app

    def replay() -> Session:
        from moetui.session import ReplaySession

        return ReplaySession(trace, speed=speed, follow=follow)

    screen = screen_options(options, ctx.ensure_object(Common).keys)
    if not _begins_well(trace):  # it is refused, and before there is a screen
        return run_app(replay(), screen)
    return run_app(ComingSession(str(trace), replay, playback=Playback(0, 0, speed)), screen)


def _begins_well(path: Path) -> bool:
    from moetui.trace.frames import PREFIX

    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(PREFIX)) == PREFIX
    except OSError:
        return False
