"""Sends only the cells that changed, and scrolls what only moved. What a terminal may have done alone is sent whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import textual
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

from moetui.tui.shift import Shift, find_shift

KNOWN_VERSION = "8.2.8"
"""The Textual whose updates this was written for and proven with; any other gets Textual's own way."""

_GAP = 5  # unchanged cells that are cheaper to send again than to jump over
_MOST_CELLS = 60_000  # different cells remembered
_MOST_RUNS = 8192  # segments whose cells are remembered

Look = tuple[str, str, str]
"""SGR parameters of attributes, foreground, background: what is seen of a style, without its metadata."""

Cell = tuple[str, Look]
_TAIL = ""  # text of the second cell of a wide character
_PLAIN: Look = ("", "39", "49")
_UNKNOWN = -1


def supported() -> bool:
    """Whether the installed Textual is the one this was proven with."""
    return textual.__version__ == KNOWN_VERSION


class _Pen:
    """Collects what to send; of a style only what differs from the one before."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.look = _PLAIN
        self._row = -1

    def move(self, y: int, x: int) -> None:
        """Go on at a cell."""
        self.out.append(f"\x1b[{x + 1}G" if y == self._row else f"\x1b[{y + 1};{x + 1}H")
        self._row = y

    def dip(self, look: Look) -> None:
        """Draw like this from now on."""
        attributes, foreground, background = look
        if attributes != self.look[0]:
            codes = [
                "0",
                attributes,
                foreground if foreground != "39" else "",
                background if background != "49" else "",
            ]
        else:
            codes = [new if new != old else "" for new, old in zip(look[1:], self.look[1:])]
        self.out.append(f"\x1b[{';'.join(filter(None, codes))}m")
        self.look = look

    def text(self) -> str:
        """All of it, ending in the plain style."""
        if self.look != _PLAIN:
            self.out.append("\x1b[m")
        return "".join(self.out)


class SentScreen:
    """The screen as the terminal has it, and what to send so that it becomes another one.

    Cells are kept as numbers into a table of the different ones, ``[rows, columns]``, so that lines compare quickly.
    """

    def __init__(self, color_system: ColorSystem | None = ColorSystem.TRUECOLOR) -> None:
        self._colors = color_system
        self._numbers: dict[Cell, int] = {}
        self._cells: list[Cell] = []
        self._runs: dict[tuple[str, Look], tuple[list[int], bool]] = {}
        self._sent: NDArray[np.int32] = np.empty((0, 0), np.int32)
        self._odd: NDArray[np.bool_] = np.empty(0, np.bool_)

    @property
    def known(self) -> bool:
        """Whether a full picture was sent, so that differences can be told."""
        return self._sent.size > 0

    def forget(self) -> None:
        """The terminal may show anything now; the next update must be a full one."""
        self._sent, self._odd = np.empty((0, 0), np.int32), np.empty(0, np.bool_)

    def encode(self, update: LayoutUpdate | ChopsUpdate) -> str:
        """What to send for an update; empty if it changes nothing."""
        if isinstance(update, LayoutUpdate):
            shape = (update.region.bottom, update.region.right)
            if len(self._cells) > _MOST_CELLS:
                self._numbers.clear()
                self._cells.clear()
                self._runs.clear()
                self.forget()
            if self._sent.shape != shape:
                self._sent, self._odd = np.full(shape, _UNKNOWN, np.int32), np.zeros(shape[0], np.bool_)
            x = update.region.x
            spans = [
                (y, x, [segment for strip in strips for segment in strip])
                for y, strips in enumerate(update.strips, update.region.y)
            ]
        else:
            spans = _spans_of(update)
        return self._change(spans)

    def _change(self, spans: list[tuple[int, int, list[Segment]]]) -> str:
        new, odd = self._sent.copy(), self._odd.copy()
        for y, x, segments in spans:
            if y < new.shape[0]:
                numbers, strange = self._numbers_of(segments)
                width = min(len(numbers), new.shape[1] - x)
                new[y, x : x + width] = numbers[:width]
                odd[y] |= strange
        changed = np.flatnonzero((new != self._sent).any(1))
        if not changed.size:
            return ""
        pen = _Pen()
        shift = find_shift(self._sent, new) if changed.size > 5 else None
        if shift is not None:
            pen.out.append(self._scroll(shift))
            changed = np.flatnonzero((new != self._sent).any(1))
        for y in changed.tolist():
            self._line(y, new[y], bool(odd[y] or self._odd[y]), pen)
            odd[y] = odd[y] and self._is_odd(new[y])
        self._sent, self._odd = new, odd
        return pen.text()

    def _scroll(self, shift: Shift) -> str:
        """Let the terminal move lines, and take note of what it then shows; the lines that come in are unknown."""
        first, stop, by = shift.first, shift.stop, shift.by
        self._sent, self._odd = self._sent.copy(), self._odd.copy()
        if by > 0:
            self._sent[first : stop - by], self._odd[first : stop - by] = (
                self._sent[first + by : stop].copy(),
                self._odd[first + by : stop].copy(),
            )
            self._sent[stop - by : stop] = _UNKNOWN
            move = f"\x1b[{stop};1H" + "\n" * by
        else:
            self._sent[first - by : stop], self._odd[first - by : stop] = (
                self._sent[first : stop + by].copy(),
                self._odd[first : stop + by].copy(),
            )
            self._sent[first : first - by] = _UNKNOWN
            move = f"\x1b[{first + 1};1H" + "\x1bM" * -by
        return f"\x1b[{first + 1};{stop}r{move}\x1b[r"

    def _line(self, y: int, new: NDArray[np.int32], odd: bool, pen: _Pen) -> None:
        # A terminal may draw a wide or combining character wider or narrower than it should: then cells that did not
        # change here may have moved there. Such a line is sent whole whenever anything in it changes.
        if odd:
            pen.move(y, 0)
            self._draw(new.tolist(), pen)
            return
        columns = np.flatnonzero(new != self._sent[y])
        breaks = np.flatnonzero(np.diff(columns) > _GAP)
        starts = columns[np.concatenate(([0], breaks + 1))]
        stops = columns[np.concatenate((breaks, [columns.size - 1]))] + 1
        for start, stop in zip(starts.tolist(), stops.tolist()):
            pen.move(y, start)
            self._draw(new[start:stop].tolist(), pen)

    def _draw(self, numbers: Sequence[int], pen: _Pen) -> None:
        for number in numbers:
            text, look = self._cells[number] if number >= 0 else (" ", _PLAIN)
            if look != pen.look:
                pen.dip(look)
            pen.out.append(text)

    def _number(self, cell: Cell) -> int:
        number = self._numbers.get(cell)
        if number is None:
            number = self._numbers[cell] = len(self._cells)
            self._cells.append(cell)
        return number

    def _numbers_of(self, segments: Iterable[Segment]) -> tuple[list[int], bool]:
        """The cells of segments, and whether any character is not one cell wide."""
        numbers: list[int] = []
        odd = False
        for text, style, control in segments:
            if control:
                continue
            look = _PLAIN if style is None else _look(style, self._colors)
            found = self._runs.get((text, look))
            if found is None:
                if len(self._runs) > _MOST_RUNS:
                    self._runs.clear()
                found = self._runs[text, look] = self._run(text, look)
            numbers += found[0]
            odd |= found[1]
        return numbers, odd

    def _run(self, text: str, look: Look) -> tuple[list[int], bool]:
        if text.isascii():
            return [self._number((char, look)) for char in text], False
        cells: list[Cell] = []
        odd = False
        for char in text:
            size = cell_len(char)
            odd |= size != 1
            if size == 0:
                # Onto the character it belongs to; with none before it in its segment a terminal would not show it.
                for at in range(len(cells) - 1, -1, -1):
                    if cells[at][0] != _TAIL:
                        cells[at] = (cells[at][0] + char, look)
                        break
                continue
            cells.append((char, look))
            if size == 2:
                cells.append((_TAIL, look))
        return [self._number(cell) for cell in cells], odd

    def _is_odd(self, numbers: NDArray[np.int32]) -> bool:
        return any(len(self._cells[number][0]) != 1 for number in numbers.tolist() if number >= 0)


@lru_cache(maxsize=16384)
def _look(style: Style, colors: ColorSystem | None) -> Look:
    system = colors or ColorSystem.TRUECOLOR
    foreground, background = style.color, style.bgcolor
    return (
        Strip.render_ansi(style.without_color, system),
        ";".join(foreground.downgrade(system).get_ansi_codes()) if foreground is not None else "39",
        ";".join(background.downgrade(system).get_ansi_codes(foreground=False)) if background is not None else "49",
    )


def _spans_of(update: ChopsUpdate) -> list[tuple[int, int, list[Segment]]]:
    """What a partial update draws: line, first column, segments."""
    out = []
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items()):
            if strip is not None and x < x2 and end > x1:
                out.append((y, x, list(strip.crop(0, min(end, x2) - x))))
    return out


class Encoded(CompositorUpdate):
    """Stands in for an update: the same picture, sent as the difference."""

    def __init__(self, update: LayoutUpdate | ChopsUpdate, screen: SentScreen) -> None:
        self._update = update
        self._screen = screen

    def render_segments(self, console: Console) -> str:
        """Called by Textual when it sends; only then does the terminal get it."""
        if not self._screen.known and not isinstance(self._update, LayoutUpdate):
            return self._update.render_segments(console)
        return self._screen.encode(self._update)
