"""Draws one token's row: numbers, the strip of first choices, marks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.style import Style

from moetui.routing import drawable
from moetui.routing.metrics import first_choices
from moetui.routing.phase import Phase
from moetui.routing.scores import NEAR_TIE, passed, site_margin
from moetui.routing.step import I64, NO_EXPERT, SiteFlag
from moetui.routing.timeline import RoutingBlock, TimelineView
from moetui.tui.cells import Line, fit
from moetui.tui.glyphs import expert_digit
from moetui.tui.ramps import contrast_text
from moetui.tui.widgets.context import Related
from moetui.tui.widgets.pens import Pens
from moetui.tui.widgets.token_columns import Column, TablePlan

# as plain integers: an enumeration's operators take a microsecond each, and there are some for every layer of a row
_UNDERLINED = Style(underline=True)
_DROPPED, _FORCED, _NON_FINITE = int(SiteFlag.DROPPED), int(SiteFlag.FORCED), int(SiteFlag.NON_FINITE)


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What a row shows, as plain values; ``chosen`` and ``flags`` are by site, ``ties`` counts near ties."""

    prefill: bool
    branch: int
    token_id: int
    entropy: float
    confidence: float
    margin: float
    logprob: float
    ms: float
    chosen: list[int]
    flags: list[int]
    ties: int


def row_facts(view: TimelineView, first: int, stop: int) -> dict[int, RowFacts]:
    """The rows of the tokens ``first .. stop - 1`` that are held: together they cost little more than one."""
    first = max(first, view.first)
    columns, block = view.tokens(first, stop), view.routing(first, stop)
    close = site_margin(block.logits, view.sites, len(block.indices)) < NEAR_TIE
    close &= (block.flags & _FORCED) == 0  # what an intervention chose was no choice of the router's
    rows = zip(
        (columns.phase == Phase.PREFILL).tolist(),
        columns.branch.tolist(),
        columns.token_id.tolist(),
        *(getattr(columns, name).tolist() for name in ("entropy", "confidence", "margin", "logprob", "ms")),
        _first(block),
        block.flags.tolist(),
        (close & passed(block.indices, block.flags)).sum(1).tolist(),
    )
    return {first + at: RowFacts(*row) for at, row in enumerate(rows)}


def _first(block: RoutingBlock) -> list[list[int]]:
    """Each token's first choices by site; a model without sites has none."""
    if not block.indices.shape[2]:
        return [[] for _ in block.indices]
    return first_choices(block.indices, block.weights).tolist()  # type: ignore[no-any-return]


def most_experts(view: TimelineView) -> int:
    """Experts of the largest site."""
    return max((site.num_experts for site in view.sites), default=0)


@dataclass(frozen=True, slots=True)
class RowLook:
    """How a row stands out: it is selected, marked, found by a search, where the run stopped, part of an answer."""

    selected: bool = False
    marked: bool = False
    lit: bool = False
    stopped: bool = False
    related: Related | None = None


class RowPainter:
    """Draws rows with a widget's pens."""

    def __init__(self, pens: Pens) -> None:
        self._pens = pens

    def row(self, view: TimelineView, plan: TablePlan, token: int, facts: RowFacts, look: RowLook) -> Line:
        """A held token's cells up to the waterfall."""
        selected, related = look.selected, look.related
        line = Line()
        glyphs, prefill = self._pens.ink.glyphs, facts.prefill
        dim = self._pens.row_pen("dim", selected)
        plain = self._pens.row_pen("", selected)
        line.add(glyphs.selected if selected else " ", self._pens.row_pen("accent", selected))
        line.add(glyphs.mark if look.marked else " ", self._pens.row_pen("warn", selected))
        if look.stopped:
            line.add(glyphs.stopped, self._pens.row_pen("warn", selected))
        else:
            line.add(glyphs.prefill if prefill else " ", dim)
        for column in sorted((*plan.columns, plan.strip), key=lambda column: column.start):
            line.to(column.start, plain)
            if column is plan.strip:
                self._draw_strip(line, facts, most_experts(view), plan, selected)
            elif column.name == "token":
                text = drawable(view.text(facts.token_id), spaces=True) or "‹›"
                style = self._pens.row_pen("strong" if selected else "head" if prefill else "", selected)
                shown = fit(text, column.width, "left", glyphs.ellipsis)
                level = 0 if related is None else related.level(token)
                if level and self._pens.ink.shaded:
                    ground = self._pens.ink.levels()[level]
                    body = shown.rstrip(" ")
                    line.add(body, self._pens.paint("", contrast_text(ground), ground))
                    shown = shown[len(body) :]
                line.add(shown, style)
            elif column.name is None:
                self._draw_share(line, column, related, token, selected)
            elif column.name == "index":
                pen = "warn" if look.stopped else "accent" if look.lit else "dim"
                line.add(fit(str(token), column.width, "right"), self._pens.row_pen(pen, selected))
            elif column.name == "flags":
                self._draw_flags(line, facts, column, selected)
            else:
                text = _number_text(column, facts, glyphs.dash)
                style = dim if text == glyphs.dash or (prefill and column.name == "ms") else plain
                line.add(fit(text, column.width, "right", glyphs.ellipsis), style)
        return line

    def _draw_share(self, line: Line, column: Column, related: Related | None, token: int, selected: bool) -> None:
        """A share in per cent, behind a bar where no ground can carry it."""
        ink, share = self._pens.ink, None if related is None else related.shares.get(token)
        if related is None or share is None:
            line.space(column.width, self._pens.row_pen("", selected))
            return
        level = related.level(token)
        bar = ink.glyphs.level(level) if level and not ink.shaded else " "
        text = "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"
        pen = "accent" if token == related.token else "" if level else "dim"
        line.add(fit(bar + fit(text, 4, "right"), column.width, "right"), self._pens.row_pen(pen, selected))

    def _draw_strip(self, line: Line, facts: RowFacts, experts: int, plan: TablePlan, selected: bool) -> None:
        chosen, flags = facts.chosen, facts.flags
        until = plan.strip_from + plan.strip.width * plan.fold
        for site in range(plan.strip_from, min(until, len(chosen)), plan.fold):
            if plan.fold == 2 and site + 1 < len(chosen):
                self._draw_pair(line, chosen[site], chosen[site + 1], flags[site] | flags[site + 1], selected)
            else:
                self._draw_choice(line, chosen[site], flags[site], experts, selected)

    def _draw_choice(self, line: Line, expert: int, flags: int, experts: int, selected: bool) -> None:
        ink = self._pens.ink
        glyphs = ink.glyphs
        if expert == NO_EXPERT:
            dropped = flags & _DROPPED
            line.add(
                glyphs.dropped if dropped else glyphs.zero, self._pens.row_pen("bad" if dropped else "dim", selected)
            )
            return
        forced, pen = bool(flags & _FORCED), self._pens.expert_pen(expert, selected)
        if ink.by_digit:  # which expert is told by the digit alone: forced ones are underlined
            line.add(expert_digit(expert, experts), pen + _UNDERLINED if forced else pen)
        else:
            line.add(glyphs.forced if forced else glyphs.block, pen)

    def _draw_pair(self, line: Line, left: int, right: int, flags: int, selected: bool) -> None:
        if flags & _DROPPED:
            line.add(self._pens.ink.glyphs.dropped, self._pens.row_pen("bad", selected))
        elif flags & _FORCED:
            line.add(
                self._pens.ink.glyphs.forced, self._pens.expert_pen(left if left != NO_EXPERT else right, selected)
            )
        elif NO_EXPERT in (left, right):
            present = left if right == NO_EXPERT else right
            style = (
                self._pens.row_pen("dim", selected)
                if present == NO_EXPERT
                else self._pens.expert_pen(present, selected)
            )
            line.add(self._pens.ink.glyphs.zero if present == NO_EXPERT else "▌" if right == NO_EXPERT else "▐", style)
        else:
            ink = self._pens.ink
            line.add("▌", self._pens.paint("", ink.expert(left), ink.expert(right)))

    def _draw_flags(self, line: Line, facts: RowFacts, column: Column, selected: bool) -> None:
        glyphs = self._pens.ink.glyphs
        flags = 0
        for each in facts.flags:
            flags |= each
        marks = (
            (flags & _DROPPED, glyphs.dropped, "bad"),
            (flags & _NON_FINITE, glyphs.broken, "bad"),
            (flags & _FORCED, glyphs.forced, "warn"),
            (facts.ties, glyphs.near_tie, "head"),
        )
        shown = [(text, pen) for on, text, pen in marks if on][: column.width]
        for text, pen in shown:
            line.add(text, self._pens.row_pen(pen, selected))
        line.space(column.width - len(shown), self._pens.row_pen("", selected))


def _number_text(column: Column, facts: RowFacts, dash: str) -> str:
    if column.name == "branch":
        return str(facts.branch)
    assert column.name is not None
    value: float = getattr(facts, column.name)
    if math.isnan(value):
        return dash
    if column.name == "ms":
        return f"{value:.1f}" if value < 1000 else f"{value:.0f}"
    text = f"{value:.2f}"
    return text[1:] if text == "-0.00" else text


def token_rows_for_sharing(
    view: TimelineView, numbers: I64, related: Related | None = None
) -> Iterator[Sequence[object]]:
    """Rows of a table's tokens with a header; token texts are drawable, experts by site joined by blanks."""
    yield (
        *("index", "branch", "phase", "sequence", "position", "token_id", "token", "first_experts"),
        *("entropy", "confidence", "margin", "logprob", "ms", "flags"),
        *(() if related is None else (related.title,)),
    )
    for token in numbers.tolist():
        columns, block = view.tokens(token, token + 1), view.routing(token, token + 1)
        first = _first(block)[0]
        yield (
            token,
            int(columns.branch[0]),
            Phase(int(columns.phase[0])).label,
            int(columns.sequence[0]),
            int(columns.position[0]),
            int(columns.token_id[0]),
            drawable(view.text(int(columns.token_id[0]))),
            " ".join("-" if expert == NO_EXPERT else str(expert) for expert in first),
            *(float(getattr(columns, name)[0]) for name in ("entropy", "confidence", "margin", "logprob", "ms")),
            int(columns.flags[0]),
            *(() if related is None else (related.shares.get(token, math.nan),)),
        )
