"""The token table's columns: which fit into a width, and what stands in them."""

from __future__ import annotations

from dataclasses import dataclass

from moetui.tui.widgets.token_rows import SortKey


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what it sorts by (None: not sortable), its title, first cell and width."""

    name: SortKey | None
    title: str
    start: int
    width: int
    right: bool = True


@dataclass(frozen=True, slots=True)
class TablePlan:
    """The columns that fit.

    Attributes:
        columns: from left to right, the strip and the waterfall left out.
        strip: first cell and width of the layer strip; ``fold`` layers share a cell, from layer ``strip_from`` on.
        waterfall: first cell and width; width 0 for none.
    """

    columns: tuple[Column, ...]
    strip: Column
    fold: int
    strip_from: int
    waterfall: Column

    def at(self, x: int) -> SortKey | None:
        """What a click on a header cell sorts by."""
        for column in (*self.columns, self.strip):
            if column.start <= x < column.start + column.width + 1:
                return column.name
        return None


_NUMBERS: tuple[tuple[SortKey, str, int, int], ...] = (
    # name, title, width, importance (the least important leaves first)
    ("entropy", "H", 5, 6),
    ("confidence", "conf", 5, 4),
    ("margin", "margin", 6, 2),
    ("logprob", "logp", 6, 3),
    ("ms", "ms", 5, 5),
)
_GUTTER, _FLAGS, _SHARE = 3, 3, 5
_GAPS = 8  # two cells behind index, token and strip; flags close up by one


def plan_columns(
    width: int,
    sites: int,
    newest: int,
    *,
    branches: bool,
    foldable: bool,
    site: int = 0,
    text: int = 16,
    related: str = "",
) -> TablePlan:
    """Lay columns out.

    Args:
        width: cells there are.
        sites: layers in the strip.
        newest: largest token number shown.
        branches: more than one branch is to be told apart.
        foldable: two layers may share a cell (needs colour).
        site: the layer that must be visible if not all are.
        text: widest token text worth room.
        related: heading of the column of shares in one token; empty for none.
    """
    digits = max(3, len(str(newest)))
    fixed = _GUTTER + digits + (3 if branches else 0) + (_SHARE + 2 if related else 0)
    numbers = list(_NUMBERS)
    token = max(6, min(text, 24))
    least_strip = min(sites, 8)
    while numbers and fixed + token + least_strip + _GAPS + sum(w + 2 for _, _, w, _ in numbers) > width:
        if token > 10:
            token = max(10, token - 2)
        else:
            numbers.remove(min(numbers, key=lambda entry: entry[3]))
    room = max(0, width - fixed - token - _GAPS - sum(w + 2 for _, _, w, _ in numbers))
    strip, fold, first = _fit_strip(sites, room, foldable=foldable, site=site)
    columns, at = [], _GUTTER
    columns.append(Column("index", "#", at, digits))
    at += digits + 2
    if branches:
        columns.append(Column("branch", "b", at - 1, 2))
        at += 3
    columns.append(Column("token", "token", at, token, right=False))
    at += token + 2
    if related:
        columns.append(Column(None, related, at, _SHARE))
        at += _SHARE + 2
    strip_column = Column("layers", "layers", at, strip, right=False)
    at += strip + 2 if strip else 0
    for name, title, cells, _ in numbers:
        columns.append(Column(name, title, at, cells))
        at += cells + 2
    columns.append(Column("flags", "", at - 1, _FLAGS, right=False))
    at += _FLAGS
    rest = width - at
    waterfall = Column(None, "waterfall", at, rest if rest >= 6 else 0, right=False)
    return TablePlan(tuple(columns), strip_column, fold, first, waterfall)


def _fit_strip(sites: int, room: int, *, foldable: bool, site: int) -> tuple[int, int, int]:
    """Cells of the strip, layers that share one, and the first layer in it, so that ``site`` is visible."""
    if sites <= room - (12 if sites > 24 else 0) or (sites <= room and not foldable):
        return sites, 1, 0
    fold = 2 if foldable else 1
    strip = min(-(-sites // fold), room)
    shown = strip * fold
    return strip, fold, max(0, min(sites - shown, site - shown // 2)) if shown < sites else 0
