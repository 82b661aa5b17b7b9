"""The token table's first line: titles over their columns, the one that sorts lit."""

from __future__ import annotations

from rich.style import Style
from textual.strip import Strip

from moetui.routing.timeline import TimelineView
from moetui.tui.cells import Line, fit
from moetui.tui.glyphs import digit_share
from moetui.tui.widgets.pens import Pens
from moetui.tui.widgets.token_columns import TablePlan
from moetui.tui.widgets.token_painter import most_experts
from moetui.tui.widgets.token_rows import Sort
from moetui.tui.widgets.token_timing import Span


def draw_header(
    pens: Pens, view: TimelineView, plan: TablePlan, sort: Sort, site: int, span: Span, width: int
) -> Strip:
    """The header of a plan's columns; ``site`` is marked over the strip, ``span`` is the waterfall's."""
    head, glyphs = pens.pen("head"), pens.ink.glyphs
    line = Line()
    for column in sorted((*plan.columns, plan.strip, plan.waterfall), key=lambda column: column.start):
        if not column.width:
            continue
        title = column.title
        lit = (column.name is not None and column.name == sort.key) or (column is plan.strip and sort.key == "layers")
        arrow = (glyphs.down if sort.descending else glyphs.up) if lit else ""
        # The gap before a column of numbers is the arrow's where the title takes all of it.
        line.to(column.start - (column.right and bool(arrow) and len(title) >= column.width), head)
        if column is plan.strip:
            _strip_header(line, pens, view, plan, site, arrow)
            continue
        if column is plan.waterfall:
            title = span.text(column.width - 2, title)
            line.add(glyphs.rule + " ", pens.pen("dim"))
            line.add(fit(title, column.width - 2), pens.pen("dim"))
            continue
        room = column.start + column.width - line.width
        text = fit(arrow + title if column.right else title + arrow, room, "right" if column.right else "left")
        line.add(text, pens.pen("accent") if lit else head)
    return line.strip(width, head)


def _strip_header(line: Line, pens: Pens, view: TimelineView, plan: TablePlan, site: int, arrow: str) -> None:
    title = plan.strip.title
    share = digit_share(most_experts(view)) if pens.ink.by_digit else 1
    if share > 1:
        title += f" E/{share}"
    at = (site - plan.strip_from) // plan.fold
    room = plan.strip.width - len(arrow)
    text = (title[:room].ljust(room) if room + len(arrow) >= len(title) else " " * room) + arrow
    pen = pens.pen("accent" if arrow else "head")
    if not 0 <= at < len(text):
        line.add(text, pen)
        return
    mark = text[at] if text[at] != " " else "v" if pens.ink.ascii_only else "▾"
    line.add(text[:at], pen).add(mark, pens.pen("accent") + Style(underline=mark == text[at]))
    line.add(text[at + 1 :], pen)
