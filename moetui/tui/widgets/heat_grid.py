"""How a matrix of any size is laid out in the cells there are: cell width, folding, scrolling."""

from __future__ import annotations

from dataclasses import dataclass

CELL_WIDTHS = (6, 5, 4, 3, 2, 1)
FOLDS = (2, 4, 8, 16, 32, 64)
ZOOMS: tuple[tuple[int, int], ...] = tuple((width, 1) for width in CELL_WIDTHS) + tuple((1, fold) for fold in FOLDS)
"""From near to far: (cells a column, columns a cell)."""

STATS_WIDTH = 12
SPARK_WIDTH = 9


@dataclass(frozen=True, slots=True)
class Grid:
    """A layout of R rows and C columns.

    Attributes:
        cell: terminal cells of one drawn column.
        fold: columns pooled into one.
        stacked: rows drawn in one line by half blocks, 1 or 2.
        label: width of the row labels.
        stats, spark: width of what stands behind the cells, 0 for nothing.
        lines: lines for rows.
        columns: drawn columns that fit beside each other.
    """

    cell: int
    fold: int
    stacked: int
    label: int
    stats: int
    spark: int
    lines: int
    columns: int


def plan_grid(
    rows: int,
    columns: int,
    width: int,
    lines: int,
    *,
    label: int,
    stats: bool,
    zoom: int | None = None,
    stackable: bool = True,
) -> Grid:
    """Choose a layout.

    Args:
        rows, columns: of the matrix.
        width, lines: terminal cells for everything, lines for rows alone.
        label: cells that row labels need.
        stats: whether numbers behind the row are wanted.
        zoom: index into ``ZOOMS``; None takes the nearest that shows every column.
        stackable: half blocks can be drawn.
    """
    lines = max(1, lines)
    stacked = 2 if stackable and rows > lines else 1
    extras = ((STATS_WIDTH, SPARK_WIDTH), (STATS_WIDTH, 0), (0, 0)) if stats else ((0, 0),)
    chosen, extra = _nearest(columns, width - label, extras, stacked) if zoom is None else (ZOOMS[zoom], None)
    cell, fold = chosen
    if stacked == 2 and zoom is not None and cell > 2:
        stacked = 1
    if extra is None:
        need = -(-columns // fold) * cell
        extra = next((e for e in extras if label + need + sum(e) <= width), extras[-1])
    stats_width, spark_width = extra
    room = max(1, (width - label - stats_width - spark_width) // cell)
    return Grid(cell, fold, stacked, label, stats_width, spark_width, lines, min(room, -(-columns // fold)))


def _nearest(
    columns: int, room: int, extras: tuple[tuple[int, int], ...], stacked: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    widest = CELL_WIDTHS[0] if stacked == 1 else 2
    # Numbers behind the row are worth more than wide cells, but not more than seeing each expert by itself.
    for cell, fold in ZOOMS:
        if cell > widest:
            continue
        for extra in extras if (cell, fold) == (1, 1) else extras[:2]:
            if -(-columns // fold) * cell + sum(extra) <= room and (cell <= 4 or extra == extras[0]):
                return (cell, fold), extra
    return ZOOMS[-1], extras[-1]


def keep_in_view(offset: int, cursor: int, shown: int, total: int) -> int:
    """The offset nearest to ``offset`` at which ``cursor`` is shown and no room is wasted."""
    if cursor < offset:
        offset = cursor
    elif cursor >= offset + shown:
        offset = cursor - shown + 1
    return max(0, min(offset, total - shown))


def number_columns(grid: Grid, left: int, total: int, cursor: int) -> tuple[str, str, str]:
    """The header's column numbers: what stands before the cursor's own number, that number, and what comes after.

    Args:
        grid: the layout.
        left: first drawn column shown.
        total: columns of the matrix.
        cursor: the cursor's column of the matrix.
    """
    end = grid.label + grid.columns * grid.cell
    cells = [" "] * end

    def place(column: int, text: str) -> int:
        inside = max(0, grid.cell - len(text)) // 2 if grid.cell > 2 else 0
        return grid.label + (column - left) * grid.cell + inside

    every = next(n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n * grid.cell > len(str(total)))
    for column in range(left, min(left + grid.columns, -(-total // grid.fold))):
        text = str(column * grid.fold)
        at = place(column, text)
        if column % every == 0 and at + len(text) <= end:
            cells[at : at + len(text)] = text
    # The cursor's own number is written over the ticks, and those that it touches go.
    text = str(cursor)
    at = max(grid.label, min(place(cursor // grid.fold, text), end - len(text)))
    low, high = max(0, at - 1), min(end, at + len(text) + 1)
    while low > 0 and cells[low - 1] != " " and cells[low] != " ":
        low -= 1
    while high < end and cells[high] != " " and cells[high - 1] != " ":
        high += 1
    return "".join(cells[:low]).ljust(at), text, "".join(cells[high:]).rjust(max(0, end - at - len(text)))
