"""The screen on a scripted session, as a command: for a real terminal without a model. ``python -m tests.tui.play``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from moetui.routing import MoetuiError
from moetui.routing.events import GenerationSettings
from moetui.tui import ScreenOptions, run_app
from tests.tui.scripted import ScriptedSession


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--never-loads", action="store_true")
    parser.add_argument("--color", default="auto")
    parser.add_argument("--ascii", action="store_true")
    parser.add_argument("--low-bandwidth", action="store_true")
    options = parser.parse_args()
    session = ScriptedSession(rate=options.rate, loads=not (options.fail or options.never_loads))
    session.settings = GenerationSettings(max_new_tokens=options.tokens)
    if options.fail:
        opened = session.open

        def open_and_fail() -> None:
            opened()
            session.fail("no such model: nothing", "'moetui models' lists names")

        session.open = open_and_fail  # type: ignore[method-assign]
    screen = ScreenOptions(
        color=options.color, ascii=options.ascii, low_bandwidth=options.low_bandwidth or None, theme=""
    )
    try:
        status = run_app(session, screen)
    except MoetuiError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_status
    # A terminal that reads nothing any more must not keep this program either.
    os.set_blocking(sys.stdout.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        os.write(sys.stdout.fileno(), b"closed\n" if session.asked[-1][0] == "close" else b"left open\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
