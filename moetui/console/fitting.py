"""Tables that fit: heads and lists go on in a line below, texts are cut, columns left out; no number loses a digit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from moetui.console.tables import PlainRow, plain_text, plain_value

Cell = Text | Table
_GAP = 2
_LEAST_TEXT = 8  # cells down to which a text is cut
_BETWEEN = re.compile(r"(?<=,) |  ")  # what stands between the parts of a list


@dataclass(frozen=True, slots=True)
class _Column:
    head: Text
    is_text: bool
    natural: int
    least: int


class FittingTable:
    """Rows under dim heads, without borders.

    Args:
        heads: drawable.
        rows: as many drawable cells each.
        left: places of the columns that hold text; those of the others align right.
        lists: those among them whose texts are parts with two spaces or a comma between them, all shown, each whole.
    """

    def __init__(
        self,
        heads: Sequence[Text],
        rows: Sequence[Sequence[Cell]],
        left: frozenset[int],
        lists: frozenset[int] = frozenset(),
    ) -> None:
        self.heads, self.rows, self._left, self._lists = heads, rows, left, lists

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As wide as its cells, at most as wide as there is room."""
        whole = _total([column.natural for column in self._columns(console)])
        return Measurement(min(whole, options.max_width), min(whole, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, and the names of the columns that had to be left out."""
        columns = self._columns(console)
        kept = len(columns)
        while kept > 1 and _total([column.least for column in columns[:kept]]) > options.max_width:
            kept -= 1
        out = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False)
        widths = _widths(columns[:kept], options.max_width)
        for place, (column, width) in enumerate(zip(columns, widths)):
            if place in self._lists:
                out.add_column(column.head, overflow="fold", width=width)
            elif column.is_text:
                out.add_column(column.head, overflow="ellipsis", no_wrap=True, width=width)
            else:
                out.add_column(column.head, justify="right", overflow="fold", width=width)
        for row in self.rows:
            cells = [
                _folded(cell, width) if place in self._lists and isinstance(cell, Text) else cell
                for place, (cell, width) in enumerate(zip(row, widths))
            ]
            out.add_row(*cells)
        yield out
        missing = ", ".join(name for column in columns[kept:] if (name := column.head.plain.strip()))
        if missing:
            yield Text(f"no room for: {missing}", "dim", overflow="ellipsis", no_wrap=True)

    def plain_rows(self) -> Iterator[PlainRow]:
        """Heads and rows of all columns, also of those that had no room; texts stay texts."""
        yield [head.plain for head in self.heads]
        for row in self.rows:
            texts = [plain_text(cell) for cell in row]
            yield [text if place in self._left else plain_value(text) for place, text in enumerate(texts)]

    def _columns(self, console: Console) -> list[_Column]:
        out = []
        for place, head in enumerate(self.heads):
            cells = [_width(row[place], console) for row in self.rows]
            widest, is_text = max(cells, default=0), place in self._left
            words = max(map(cell_len, head.plain.split()), default=0)
            least = min(max(widest, words), _LEAST_TEXT) if is_text else max(widest, words)
            if place in self._lists:
                parts = [part for row in self.rows for part in _BETWEEN.split(plain_text(row[place]))]
                least = max([words, *map(cell_len, parts)])
            out.append(_Column(head, is_text, max(1, widest, head.cell_len), max(1, least)))
        return out


def _folded(cell: Text, width: int) -> Text:
    """A list on as many lines as its parts need."""
    lines, start, end, after = [], 0, 0, 0
    for gap in [*_BETWEEN.finditer(cell.plain), None]:
        until = len(cell) if gap is None else gap.start()
        if cell_len(cell.plain[start:until]) > width and end > start:
            lines.append(cell[start:end])
            start = after
        end, after = until, until if gap is None else gap.end()
    return Text("\n").join([*lines, cell[start:]])


def _width(cell: Cell, console: Console) -> int:
    return cell.cell_len if isinstance(cell, Text) else console.measure(cell).maximum


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * max(0, len(widths) - 1)


def _widths(columns: Sequence[_Column], room: int) -> list[int]:
    """Natural widths; where they are too wide, heads of numbers give way first, then texts from the last one on."""
    widths = [column.natural for column in columns]
    for place, column in enumerate(columns):
        if not column.is_text:
            over = _total(widths) - room
            widths[place] = max(column.least, widths[place] - max(0, over))
    while _total(widths) > room:
        texts = [place for place, column in enumerate(columns) if column.is_text and widths[place] > column.least]
        if not texts:
            break
        widths[texts[-1]] -= 1
    return widths
