"""The tables of an answer as plain rows: numbers where numbers are drawn, nothing where something is unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

PlainRow = Sequence[object]
_NUMBER = re.compile(r"([+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[+-]?\d+(?:\.\d+)?)([%×]?)\Z", re.ASCII)
_UNKNOWN = "–"
_ENDLESS = {"∞": math.inf, "-∞": -math.inf}


@runtime_checkable
class Tabular(Protocol):
    """What can be drawn and also be read as rows."""

    def plain_rows(self) -> Iterator[PlainRow]:
        """A row of heads, then the others."""


class HeatTable:
    """A heatmap as drawn, with the values behind it.

    Args:
        draw: makes what is shown, in so many cells.
        names: of the rows.
        values: ``[n, m]``; NaN where unknown.
    """

    def __init__(self, draw: Callable[[int], RenderableType], names: Sequence[str], values: NDArray[Any]) -> None:
        self._draw, self._names, self._values = draw, names, values

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The picture."""
        yield self._draw(options.max_width)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As wide as the picture."""
        return Measurement.get(console, options, self._draw(options.max_width))

    def plain_rows(self) -> Iterator[PlainRow]:
        """A row a name, a column a number from 0 on."""
        yield ("", *range(self._values.shape[1]))
        for name, row in zip(self._names, self._values.tolist()):
            yield (name, *row)


class PairTable(Table):
    """Names and values beside each other."""

    def plain_rows(self) -> Iterator[PlainRow]:
        """Two columns."""
        yield ("name", "value")
        for name, value in zip(*(column.cells for column in self.columns)):
            yield (plain_text(name), plain_value(plain_text(value)))


def plain_text(cell: RenderableType) -> str:
    """What a cell says, without how it looks."""
    if isinstance(cell, Table):
        return " ".join(plain_text(inner) for row in zip(*(column.cells for column in cell.columns)) for inner in row)
    return cell.plain if isinstance(cell, Text) else str(cell)


def plain_value(text: str) -> object:
    """The number that a text draws (``1,234``, ``12%`` as 0.12, ``1.3×``), NaN for ``–``; any other text as it is."""
    short = text.strip()
    if short == _UNKNOWN:
        return math.nan
    if short in _ENDLESS:
        return _ENDLESS[short]
    found = _NUMBER.match(short)
    if found is None:
        return text
    digits, unit = found[1].replace(",", ""), found[2]
    if unit == "%":
        return float(digits) / 100
    return float(digits) if "." in digits else int(digits)


def tables_of(renderables: Iterable[RenderableType]) -> list[Tabular]:
    """What of an answer can be read as rows, in the order in which it is shown."""
    found: list[Tabular] = []
    for one in renderables:
        if isinstance(one, Group):
            found += tables_of(one.renderables)
        elif isinstance(one, Tabular):
            found.append(one)
    return found
