"""The screen: a Textual app over one session. It gets a session and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moetui.tui.options import ColorMode, ScreenOptions

if TYPE_CHECKING:
    from moetui.session import Session

__all__ = ["ColorMode", "ScreenOptions", "run_app"]


def run_app(session: Session, options: ScreenOptions | None = None) -> int:
    """Show a session until the person leaves; the session is closed then.

    Args:
        session: live or replayed, not yet opened.
        options: how to draw.

    Returns:
        The exit status: 0, or 128 plus the number of the signal that ended it.

    Raises:
        UsageError: no terminal, one that cannot show a screen, or no theme of the name asked for.
        ModelError: there never was a model; raised after the person has left the screen.
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
        session.close()
    if app.crash is not None:
        raise app.crash
    failure = app.failure()
    if failure is not None:
        raise failure
    return status if status is not None else app.return_code or 0
