"""Where the parts of the Network tab stand, for every size of screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.geometry import NULL_OFFSET, Region, Size, Spacing
from textual.layout import ArrangeResult, Layout, WidgetPlacement
from textual.widget import Widget

Part = Literal["filter", "heatmap", "tokens", "detail", "flow", "balance"]
NARROW, WIDE = 100, 160
FRAME = 2
LEAST_TABLE = 8
"""Lines of the table, frame included, that a heatmap showing every row must leave."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the parts would like.

    Attributes:
        heat_lines: content lines of the heatmap that show every row.
        heat_folded: those that do with two rows a line.
        detail_lines: content lines of the detail that show every layer.
        drawer: the detail is open where it is a drawer.
    """

    heat_lines: int = 8
    heat_folded: int = 8
    detail_lines: int = 8
    drawer: bool = False


def place(size: Size, wanted: Wanted) -> dict[Part, Region]:
    """Regions of the parts that are shown, without gaps or overlaps.

    From 160 columns the detail stands at the right, with the flow below it; from 100 beside the heatmap; below that it
    is a drawer under the table. The filter and the balance line go first where lines are few, then the heatmap.
    """
    width, height = size
    out: dict[Part, Region] = {}
    top, bottom = 0, height
    if height >= 8:
        out["filter"] = Region(0, 0, width, 1)
        top = 1
    if height >= 14:
        bottom -= 1
        out["balance"] = Region(0, bottom, width, 1)
    body = Region(0, top, width, max(0, bottom - top))
    if width >= WIDE and body.height >= 16:
        out.update(_wide(body, wanted))
    elif width >= NARROW and body.height >= 12:
        out.update(_normal(body, wanted))
    else:
        out.update(_narrow(body, wanted))
    return out


def _upper(body: Region, lines: int, share: float) -> int:
    return max(6, min(lines + FRAME, int(body.height * share)))


def _above(body: Region, wanted: Wanted) -> int:
    """Lines of a heatmap over the tokens: all its rows, or two a line, or as many as there is room for."""
    whole, folded = wanted.heat_lines + FRAME, wanted.heat_folded + FRAME
    half = body.height // 2
    if whole <= max(half, body.height - LEAST_TABLE):
        return max(6, whole)
    return max(6, min(folded, half))


def _wide(body: Region, wanted: Wanted) -> dict[Part, Region]:
    left, right = body.split_vertical(int(body.width * 0.56))
    heatmap, tokens = left.split_horizontal(_above(left, wanted))
    detail = min(wanted.detail_lines + FRAME, right.height - 10)
    if right.height - detail < 10 or detail < 6:
        return {"heatmap": heatmap, "tokens": tokens, "detail": right}
    above, below = right.split_horizontal(detail)
    return {"heatmap": heatmap, "tokens": tokens, "detail": above, "flow": below}


def _normal(body: Region, wanted: Wanted) -> dict[Part, Region]:
    upper, tokens = body.split_horizontal(_upper(body, max(wanted.heat_lines, wanted.detail_lines), 0.46))
    heatmap, detail = upper.split_vertical(body.width // 2)
    return {"heatmap": heatmap, "tokens": tokens, "detail": detail}


def _narrow(body: Region, wanted: Wanted) -> dict[Part, Region]:
    out: dict[Part, Region] = {}
    rest = body
    if wanted.drawer and body.height >= 8:
        rest, out["detail"] = body.split_horizontal(body.height - min(wanted.detail_lines + FRAME, body.height // 2))
    if rest.height >= 14:
        out["heatmap"], rest = rest.split_horizontal(_above(rest, wanted))
    out["tokens"] = rest
    return out


class NetworkLayout(Layout):
    """Arranges children by their ids, as ``place`` says; a child without a place is not drawn."""

    name = "network"

    def __init__(self) -> None:
        self.wanted = Wanted()

    def arrange(self, parent: Widget, children: list[Widget], size: Size, greedy: bool = True) -> ArrangeResult:
        """Place the children."""
        regions: dict[str, Region] = {str(part): region for part, region in place(size, self.wanted).items()}
        return [
            WidgetPlacement(regions[child.id], NULL_OFFSET, Spacing(), child, order)
            for order, child in enumerate(children)
            if child.id is not None and child.id in regions
        ]
