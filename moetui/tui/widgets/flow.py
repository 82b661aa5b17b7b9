"""Token → expert flow: layers from left to right, experts from top to bottom, a line wherever weight goes on."""

from __future__ import annotations

import math
from typing import ClassVar

from textual.content import Content
from textual.strip import Strip

from moetui.tui.cells import Line, fit
from moetui.tui.widgets.braille import Canvas, Curve
from moetui.tui.widgets.pens import PEN_CSS, Pens
from moetui.tui.widgets.token_facts import Choice, SiteFacts, TokenFacts

LINES_FROM = 2
"""Lines are drawn from and to this many experts a layer, by weight; every expert chosen is a node."""


class FlowView(Pens):
    """Draws the flow of one token's facts."""

    DEFAULT_CSS = "FlowView { height: 1fr; " + PEN_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = Pens.COMPONENT_CLASSES

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._facts: TokenFacts | None = None
        self._site = 0
        self._lines: list[Strip] | None = None

    def show(self, facts: TokenFacts | None, site: int) -> None:
        """Draw these facts with a site lit."""
        self.renew_ink()
        if facts is self._facts and site == self._site:
            return
        self._facts, self._site = facts, site
        self.forget_lines()

    def forget_lines(self) -> None:
        """Draw anew at the next repaint."""
        self._lines = None
        most = max((len(one.choices) for one in self._facts.sites), default=0) if self._facts is not None else 0
        lines = f" · lines of the {LINES_FROM} heaviest" if most > LINES_FROM else ""
        self.border_title = Content(self.ink.words(f"flow{lines}"))
        self.refresh()

    def forget_drawn(self) -> None:
        """Drop cached lines."""
        super().forget_drawn()
        self._lines = None

    def on_resize(self) -> None:
        """The canvas depends on the room."""
        self.forget_lines()

    def render_line(self, y: int) -> Strip:
        """One line of the drawing."""
        width, height = self.room
        if self._lines is None or len(self._lines) != height:
            self._lines = self._draw(width, height)
        return self._lines[y] if y < len(self._lines) else Strip.blank(width, self.pen())

    def _draw(self, width: int, height: int) -> list[Strip]:
        plain, facts = self.pen(), self._facts
        sites = facts.sites if facts is not None else ()
        experts = max((one.site.num_experts for one in sites), default=0)
        label = len(str(max(0, experts - 1))) + 2
        room, rows = width - label - 2, height - 1
        if not sites or room < 2 or rows < 2:
            return [Strip.blank(width, plain)] * height
        places = _Places(len(sites), experts, room, rows)
        nodes = self._node_cells(sites, places)
        canvas = self._curves(sites, places) if not self.ink.ascii_only else None
        return [
            *(self._line(y, label, width, experts, places, canvas, nodes) for y in range(rows)),
            self._axis(sites, label, width, places),
        ]

    def _curves(self, sites: tuple[SiteFacts, ...], places: _Places) -> Canvas:
        curves: list[Curve] = []
        before: list[tuple[tuple[float, float], float]] = [((0.0, 2.0 * places.rows), 1.0)]
        for column, one in enumerate(sites):
            heavy = [(places.dots(column, choice.expert), choice) for choice in one.choices[:LINES_FROM]]
            for start, weight in before:
                curves += [Curve(start, stop, choice.expert, weight * _known(choice)) for stop, choice in heavy]
            if heavy:
                before = [(stop, _known(choice)) for stop, choice in heavy]
        return Canvas(places.room, places.rows, curves)

    def _node_cells(self, sites: tuple[SiteFacts, ...], places: _Places) -> dict[tuple[int, int], tuple[Choice, bool]]:
        """Cells with a node: the heaviest choice that falls on each, and whether it was forced."""
        nodes: dict[tuple[int, int], tuple[Choice, bool]] = {}
        for column, one in enumerate(sites):
            for choice in reversed(one.choices):
                nodes[places.cell(column, choice.expert)] = (choice, one.forced)
        return nodes

    def _line(
        self,
        y: int,
        label: int,
        width: int,
        experts: int,
        places: _Places,
        canvas: Canvas | None,
        nodes: dict[tuple[int, int], tuple[Choice, bool]],
    ) -> Strip:
        plain, glyphs = self.pen(), self.ink.glyphs
        line = Line().add(fit(places.row_label(y, experts), label - 1, "right") + " ", self.pen("dim"))
        drawn = canvas.row(y) if canvas is not None else [(" ", -1)] * places.room
        lit = places.cell(self._site, 0)[0] if self._site < places.sites else -1
        for x, (text, tag) in enumerate(drawn):
            node = nodes.get((x, y))
            if node is not None and places.spaced:
                choice, forced = node
                line.add(glyphs.forced if forced else glyphs.dot, self.expert_pen(choice.expert))
            elif node is not None:
                line.add(text if text != " " else glyphs.zero, self.expert_pen(node[0].expert))
            elif text != " ":
                line.add(text, self.expert_pen(tag))
            else:
                line.add(glyphs.rule if x == lit and places.spaced else " ", self.pen("dim"))
        return line.strip(width, plain)

    def _axis(self, sites: tuple[SiteFacts, ...], label: int, width: int, places: _Places) -> Strip:
        line = Line().space(label, self.pen())
        widest = max(len(str(one.site.layer)) for one in sites) + 2
        every = max(1, math.ceil(widest / max(0.01, places.step)))
        for column, one in enumerate(sites):
            at = label + places.cell(column, 0)[0]
            text = f"L{one.site.layer}"
            if column == self._site and line.width <= at:
                line.to(at, self.pen()).add(text, self.pen("accent"))
            elif column % every == 0 and line.width < at + (not line.width) and not 0 < self._site - column < every:
                line.to(at, self.pen()).add(text, self.pen("dim"))
        return Line().extend(line.clip(width)).strip(width, self.pen())


class _Places:
    """Where a layer's expert stands, in cells and in dots."""

    def __init__(self, sites: int, experts: int, room: int, rows: int) -> None:
        self.sites, self.experts, self.room, self.rows = sites, experts, room, rows
        self.step = (room - 3) / max(1, sites)

    @property
    def spaced(self) -> bool:
        """Whether nodes of neighbouring layers stand apart."""
        return self.step >= 2

    def cell(self, column: int, expert: int) -> tuple[int, int]:
        """Cell (x, y)."""
        x = min(self.room - 1, int(2 + (column + 0.5) * self.step))
        return x, min(self.rows - 1, int((expert + 0.5) * self.rows / max(1, self.experts)))

    def dots(self, column: int, expert: int) -> tuple[float, float]:
        """Dot (x, y) at the middle of the cell."""
        x, y = self.cell(column, expert)
        inside = (expert + 0.5) * self.rows / max(1, self.experts) - y if self.experts > self.rows else 0.5
        return 2 * x + 0.5, 4 * y + 4 * inside - 0.5

    def row_label(self, y: int, experts: int) -> str:
        """Experts whose nodes fall on a row: one number, or the first of several where the row begins a tick."""
        first = math.ceil(y * experts / self.rows - 0.5)
        if experts <= self.rows:
            return str(first) if 0 <= first < experts and self.cell(0, first)[1] == y else ""
        return str(first) if y % 2 == 0 else ""


def _known(choice: Choice) -> float:
    """A weight for drawing; unknown ones are drawn as if they were even."""
    return 0.5 if math.isnan(choice.weight) else min(1.0, abs(choice.weight))
