"""``--exec FILE``: console commands run from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from moetui.routing.errors import UsageError
from moetui.routing.text import drawable

if TYPE_CHECKING:
    from moetui.console import Result
    from moetui.session import Session

_MAX_BYTES = 2**20
_HINT = "a script is a text file of console commands, one a line"


def script_lines(path: str) -> list[str]:
    """The lines of a script.

    Raises:
        UsageError: there is no such file, it cannot be read, is too large or no UTF-8 text.
    """
    file = Path(path)
    try:
        if not file.is_file():
            what = "is no regular file" if file.exists() else "does not exist"
            raise UsageError(f"--exec: {file} {what}", _HINT)
        with file.open("rb") as stream:
            read = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--exec: {file}: {(error.strerror or str(error)).lower()}", _HINT) from error
    if len(read) > _MAX_BYTES:
        raise UsageError(f"--exec: {file} is too large for a script", _HINT)
    try:
        return read.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"--exec: {file} is no UTF-8 text", "save the script as UTF-8") from error


def commands(lines: list[str], name: str, *, quiet: bool, python: bool) -> Callable[[Session], None]:
    """What runs ``lines`` of the script ``name`` on a session, one by one; what they print goes to standard error.

    Args:
        quiet: print nothing.
        python: run what is no command as Python; without, it is an error.
    """

    def run(session: Session) -> None:
        from rich.console import Console as Terminal

        from moetui.console import Console, ScriptError

        terminal = Terminal(stderr=True, markup=False, highlight=False, emoji=False)

        def begin(line: str) -> None:  # what the run tells of meanwhile belongs below its line
            terminal.print(f"moe› {drawable(line)}")

        def show(line: str, result: Result) -> None:
            del line
            for renderable in result.renderables:
                terminal.print(renderable)

        try:
            console = Console(session, python=python)
            console.run_script(lines, None if quiet else show, begin=None if quiet else begin)
        except ScriptError as error:
            raise ScriptError(f"{name}, {error.message}", error.hint) from error

    return run
