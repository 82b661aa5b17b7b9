"""Handing on what is on the screen: to the clipboard, or to a file where that is too small or too far away."""

from __future__ import annotations

import asyncio
import csv
import io
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from textual.app import App
from textual.dom import DOMNode

from moetui.routing import drawable
from moetui.routing.text import no_formula

CLIPBOARD_BYTES = 70_000
"""Terminals drop longer OSC 52 sequences without a word."""

_TMUX_SECONDS = 2.0

Rows = Iterable[Sequence[object]]
Shared = tuple[str, Callable[[], Rows]]
"""The stem of a file's name, and what makes the rows, the first of them a header; it is called in another thread."""


@runtime_checkable
class Shares(Protocol):
    """A widget that hands on what it shows."""

    def shared(self) -> Shared | None:
        """What it shows now; None while that is nothing."""


def nearest_shared(at: DOMNode | None) -> Shared | None:
    """What the nearest of a widget and those around it hands on."""
    while at is not None:
        found = at.shared() if isinstance(at, Shares) else None
        if found is not None:
            return found
        at = at.parent
    return None


def as_csv(rows: Rows, delimiter: str = ",") -> str:
    """Rows as CSV; floats with six digits, NaN as nothing, no text that a spreadsheet would take for a formula."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return no_formula(value) if isinstance(value, str) else value


def free_path(folder: Path, stem: str, suffix: str = ".csv") -> Path:
    """``stem.csv`` in the folder, or the first ``stem-2.csv`` ... that does not exist."""
    number = 1
    while True:
        path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        if not path.exists():
            return path
        number += 1


def write_new(folder: Path, stem: str, suffix: str, text: str) -> Path:
    """Write a file that does not exist yet, and return its path.

    Raises:
        OSError: the folder cannot be written to.
    """
    while True:
        path = free_path(folder, stem, suffix)
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
        except FileExistsError:
            continue
        return path


def _write_rows(folder: Path, stem: str, rows: Callable[[], Rows]) -> tuple[Path, int]:
    text = as_csv(rows())
    return write_new(folder, stem, ".csv", text), max(0, text.count("\n") - 1)


async def save(app: App[Any], stem: str, rows: Callable[[], Rows]) -> None:
    """Write rows as a new CSV file into the working folder, off the event loop, and say where."""
    try:
        path, count = await asyncio.to_thread(_write_rows, Path.cwd(), stem, rows)
    except OSError as error:
        not_written(app, error)
        return
    app.notify(f"{count:,} rows in {drawable(path.name)}", markup=False)


def not_written(app: App[Any], error: OSError) -> None:
    """Say why there is no file."""
    app.notify(f"not written: {drawable(error.strerror or str(error))}", severity="error", markup=False)


async def copy(
    app: App[Any], stem: str, rows: Callable[[], Rows], most: int = CLIPBOARD_BYTES, *, tmux: bool = False
) -> None:
    """Put rows, tab-separated, on the terminal's clipboard (OSC 52); into a file if they are longer than ``most``.

    ``tmux`` drops what a program in it sends to the clipboard unless told otherwise: there tmux itself is asked.
    """
    text = await asyncio.to_thread(lambda: as_csv(rows(), "\t"))
    data = text.encode("utf-8", "replace")
    if len(data) > most:
        await save(app, stem, rows)
        return
    count = f"{max(0, text.count(chr(10)) - 1):,} rows"
    if tmux and await asyncio.to_thread(_given_to_tmux, data):
        app.notify(f"{count} in tmux's buffer and the clipboard", markup=False)
        return
    app.copy_to_clipboard(text)
    app.notify(f"{count} sent to the terminal's clipboard", markup=False)


def _given_to_tmux(data: bytes) -> bool:
    """Whether tmux took a text as its newest buffer, and for the clipboard of the terminal that it is shown in."""
    command = ["tmux", "load-buffer", "-w", "-"]
    try:
        return subprocess.run(command, input=data, capture_output=True, timeout=_TMUX_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
