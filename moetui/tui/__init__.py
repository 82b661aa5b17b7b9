"""The screen: a Textual app over one session. It gets a session and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moetui.tui.options import ColorMode, ScreenOptions

if TYPE_CHECKING:
    from pathlib import Path

    from moetui.session import Session

__all__ = ["ColorMode", "ScreenOptions", "run_app", "run_diff"]


def run_app(session: Session, options: ScreenOptions | None = None) -> int:
    """Show a session until the person leaves; the session is closed then.

    Args:
        session: live or replayed, not yet opened; a ``ComingSession`` is made behind the first picture.
        options: how to draw.

    Returns:
        The exit status: 0, or 128 plus the number of the signal that ended it.

    Raises:
        UsageError: no terminal, one that cannot show a screen, or no theme of the name asked for.
        MoetuiError: raised after the person has left the screen: there never was a model, the prompt that the session
            was opened with was refused and nothing ran since, or the recording is incomplete.
    """
    import os

    from moetui.tui.options import check_terminal, prepare_environment, resolve

    options = options or ScreenOptions()
    check_terminal(os.environ)
    look = resolve(options, os.environ)
    prepare_environment(look)  # Textual reads its environment when it is imported

    from moetui.tui.app import MoetuiApp
    from moetui.tui.driver import TerminalDriver

    app = MoetuiApp(session, options, look, driver_class=TerminalDriver)
    try:
        status = app.run(mouse=look.mouse)
    finally:
        app.session.close()
    if app.crash is not None:
        raise app.crash
    failure = app.failure()
    if failure is not None:
        raise failure
    return status if status is not None else app.return_code or 0


def run_diff(a: Path, b: Path, options: ScreenOptions | None = None) -> int:
    """Show two recordings side by side until the person leaves.

    Args:
        a: the first recording; ``b`` the one that is held against it.
        b: may be the same.
        options: how to draw.

    Returns:
        The exit status, as of ``run_app``.

    Raises:
        TraceError: no trace, or damaged beyond use.
        UsageError: no terminal, one that cannot show a screen, no theme of the name asked for, or recordings of models
            that cannot be compared.
    """
    import os
    from contextlib import ExitStack

    from moetui.session import ReplaySession
    from moetui.tui.options import check_terminal, prepare_environment, resolve

    options = options or ScreenOptions()
    with ExitStack() as closing:
        sessions = []
        for path in (a, b):
            session = ReplaySession(path, start="end", paused=True)
            closing.callback(session.close)
            session.open()
            sessions.append(session)
        check_terminal(os.environ)
        look = resolve(options, os.environ)
        prepare_environment(look)

        from moetui.tui.diff import DiffApp
        from moetui.tui.driver import TerminalDriver
        from moetui.tui.widgets.diff_rows import two_runs

        app = DiffApp(two_runs(*sessions), options, look, driver_class=TerminalDriver)
        status = app.run(mouse=look.mouse)
    if app.crash is not None:
        raise app.crash
    return status if status is not None else app.return_code or 0
