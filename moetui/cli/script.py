"""``--exec FILE``: console commands run from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moetui.console import Console, Result
from moetui.routing.errors import UsageError
from moetui.routing.text import drawable
from moetui.session import Session

_MAX_BYTES = 2**20


def script_lines(path: str) -> list[str]:
    """The lines of a script.

    Raises:
        UsageError: it is too large or no UTF-8 text.
    """
    file = Path(path)
    if file.stat().st_size > _MAX_BYTES:
        raise UsageError(f"{file} is too large for a script", "a script is a list of console commands")
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no UTF-8 text", "save the script as UTF-8") from error


def commands(lines: list[str], *, quiet: bool) -> Callable[[Session], None]:
    """What runs ``lines`` on a session, one after the other; what they print goes to standard error."""

    def run(session: Session) -> None:
        from rich.console import Console as Terminal

        terminal = Terminal(stderr=True, markup=False, highlight=False, emoji=False)

        def show(line: str, result: Result) -> None:
            terminal.print(f"moe› {drawable(line)}")
            for renderable in result.renderables:
                terminal.print(renderable)

        Console(session).run_script(lines, None if quiet else show)

    return run
