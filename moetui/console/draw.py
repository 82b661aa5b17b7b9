"""Results as Rich renderables: tables, small heatmaps, bars. No markup anywhere; every string is made drawable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from moetui.console.fitting import FittingTable
from moetui.console.tables import HeatTable, PairTable
from moetui.routing import drawable

UNKNOWN = "–"
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#%@"
_COLD, _HOT = (104, 116, 150), (255, 176, 60)
_LONGEST = 400
_WIDE = 24  # experts up to which a heatmap's cells are three wide


def text(value: Any, style: str = "", *, spaces: bool = False) -> Text:
    """A string on one line, safe to draw."""
    return Text(drawable(str(value), spaces=spaces), style)


def token_text(value: str, style: str = "") -> Text:
    """A token's text, quoted by its own spaces: ``·garden``."""
    return Text(drawable(value, spaces=True), style)


def brief(message: str) -> str:
    """A message on one line, safe to draw and no longer than a person reads."""
    line = " ".join(message.split())
    return drawable(line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…")


def quoted(value: str, style: str = "") -> Text:
    """A token's text in a line of words and numbers, where its own spaces do not set it apart: ``"·="``."""
    return Text.assemble('"', token_text(value, style), '"')


def lines(value: str, most: int = 200) -> list[Text]:
    """A text of several lines, each safe to draw; what is more than ``most`` is counted."""
    rows = value.expandtabs(4).split("\n")
    shown = [text(row) for row in rows[:most]]
    if len(rows) > most:
        shown.append(Text(f"… {len(rows) - most:,} lines more", "dim"))
    return shown


def number(value: Any, digits: int = 2) -> str:
    """A number with ``digits`` decimals; ``–`` where it is unknown."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    value = float(value)
    if math.isnan(value):
        return UNKNOWN
    return f"{value:.{digits}f}" if math.isfinite(value) else ("∞" if value > 0 else "-∞")


def likelier(nats: float, error: float | None = None) -> str:
    """How a log-probability changed, in words: ``1.145 nats less likely``; ``error`` is told if given."""
    told = number(abs(nats), 3) + ("" if error is None else f" ± {number(error, 3)}")
    return f"{told} nats {'less likely' if nats < 0 else 'likelier'}"


def percent(value: Any, digits: int = 0) -> str:
    """A share as per cent."""
    return UNKNOWN if value is None or math.isnan(float(value)) else f"{100 * float(value):.{digits}f}%"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], left: Sequence[str] = (), lists: Sequence[str] = ()
) -> FittingTable:
    """A table with a dim head and no borders; columns named in ``left`` hold text, the others align right.

    Those also named in ``lists`` hold parts with two spaces or a comma between them, which go on in a line below.
    """
    return FittingTable(
        [text(head) for head in heads],
        [[cell if isinstance(cell, Text | Table) else text(cell) for cell in row] for row in rows],
        frozenset(place for place, head in enumerate(heads) if head in left),
        frozenset(place for place, head in enumerate(heads) if head in lists),
    )


def named(rows: Sequence[Sequence[Text]]) -> Table:
    """Names, each with a text or more beside it that go on in further lines."""
    out = Table.grid(padding=(0, 2, 0, 0))
    for place in range(len(rows[0]) if rows else 0):
        out.add_column(no_wrap=not place, overflow="ellipsis" if not place else "fold")
    for row in rows:
        out.add_row(*row)
    return out


def pairs(rows: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, a row each."""
    out = PairTable.grid(padding=(0, 2, 0, 0))
    for name, value in rows:
        out.add_row(text(name, "dim"), value if isinstance(value, Text) else text(value))
    return out


def intensity(share: float) -> Style:
    """A colour between cold and hot for a share of 0..1."""
    part = min(max(share, 0.0), 1.0)
    red, green, blue = (round(cold + part * (hot - cold)) for cold, hot in zip(_COLD, _HOT))
    return Style(color=f"rgb({red},{green},{blue})")


def glyph(share: float, *, ascii_only: bool = False) -> str:
    """A block whose height says the same as its colour: nothing is told by colour alone."""
    ramp = _ASCII if ascii_only else _BLOCKS
    if math.isnan(share):
        return "?" if ascii_only else "·"
    part = min(max(share, 0.0), 1.0)
    return ramp[max(1, math.ceil(part * (len(ramp) - 1)))] if part > 0 else ramp[0]


def bar(share: float, width: int = 12, *, ascii_only: bool = False) -> Text:
    """A horizontal bar of a share of 0..1."""
    if math.isnan(share):
        return Text(UNKNOWN)
    filled = round(min(max(share, 0.0), 1.0) * width)
    return Text(("#" if ascii_only else "━") * filled + " " * (width - filled), intensity(share))


def spark(values: Sequence[float], *, ascii_only: bool = False) -> Text:
    """Values as a row of blocks, the largest the highest."""
    known = [value for value in values if not math.isnan(value)]
    top = max(known, default=0.0)
    out = Text()
    for value in values:
        share = value / top if top > 0 else 0.0
        out.append(glyph(share, ascii_only=ascii_only), intensity(share if not math.isnan(share) else 0.0))
    return out


def heat(
    values: NDArray[Any],
    rows: Sequence[str],
    top: float,
    *,
    ascii_only: bool = False,
    legend: str = "",
    beside: Sequence[Sequence[str]] = (),
) -> RenderableType:
    """A heatmap: a row a name, a cell a column; NaN is drawn as nothing known.

    Args:
        values: ``[n, m]``.
        rows: n names.
        top: the value of the hottest cell.
        legend: what the cells say.
        beside: n rows of further cells at the right.
    """

    def draw(room: int) -> RenderableType:
        names = max((cell_len(drawable(name)) for name in rows), default=0)
        right = max((sum(cell_len(drawable(cell)) + 1 for cell in row) for row in beside), default=0)
        space, count = max(8, room - names - right - 1), values.shape[1]
        width = 3 if count <= _WIDE and 3 * count <= space else 1
        fold = max(1, -(-count * width // space))
        out = Table.grid(padding=(0, 1, 0, 0))
        out.add_row(Text(""), _ruler(count, width, fold))
        for name, row, extra in zip(rows, _folded(values, fold).tolist(), beside or [()] * len(rows)):
            cells = Text()
            for value in row:
                share = value / top if top > 0 else 0.0
                mark = glyph(share, ascii_only=ascii_only)
                cells.append((mark * 2 + " ") if width == 3 else mark, intensity(0.0 if math.isnan(share) else share))
            out.add_row(text(name), cells, *(text(cell) for cell in extra))
        said = [part for part in (legend, f"a cell: max of {fold} columns" if fold > 1 else "") if part]
        return Group(out, text("; ".join(said), "dim")) if said else out

    return HeatTable(draw, rows, values)


def _folded(values: NDArray[Any], fold: int) -> NDArray[Any]:
    """The largest of each ``fold`` columns; NaN where none of them is known."""
    if fold == 1:
        return values
    rows, columns = values.shape
    wide = np.full((rows, -(-columns // fold) * fold), -np.inf)
    wide[:, :columns] = np.where(np.isnan(values), -np.inf, values)
    out = wide.reshape(rows, -1, fold).max(-1)
    return np.where(np.isneginf(out), np.nan, out)


def _ruler(count: int, width: int, fold: int) -> Text:
    if width == 3:
        return Text("".join(f"{column:<3}" for column in range(count)), "dim")
    cells = -(-count // fold)
    marks = [" "] * cells
    for cell in range(0, cells, 10):
        label = str(cell * fold)
        if cell + len(label) <= cells:
            marks[cell : cell + len(label)] = label
    return Text("".join(marks), "dim")
