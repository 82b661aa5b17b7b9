"""Draws one site's routing of one token in one line: experts with bars, runners-up, entropy, margin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.style import Style
from textual.strip import Strip

from moetui.routing import drawable
from moetui.routing.metrics import NEAR_TIE
from moetui.tui.cells import Line, fit, number
from moetui.tui.ramps import contrast_text
from moetui.tui.widgets.pens import Pens
from moetui.tui.widgets.token_changes import UNCHANGED, SiteChanges
from moetui.tui.widgets.token_facts import Choice, SiteFacts

_NUMBERS = 17
_CHANGED = Style(underline=True)  # there is no terminal that it takes a colour for
_SLOT_WITH_BAR, _SLOT_PLAIN = 13, 8


@dataclass(frozen=True, slots=True)
class SiteLook:
    """How a site's line stands out.

    Attributes:
        label: cells for the site's name.
        lit: it is selected.
        stopped: the run stands there.
        ahead: the token is still on its way.
        changes: what is marked as changed.
    """

    label: int
    lit: bool = False
    stopped: bool = False
    ahead: bool = False
    changes: SiteChanges = UNCHANGED


class SitePainter:
    """Draws lines with a widget's pens."""

    def __init__(self, pens: Pens) -> None:
        self._pens = pens

    def line(self, facts: SiteFacts, look: SiteLook, width: int) -> Strip:
        """A site's experts with their weights, who came next, and the site's numbers where there is room."""
        lit, glyphs = look.lit, self._pens.ink.glyphs
        plain, dim = self._pens.row_pen("", lit), self._pens.row_pen("dim", lit)
        pen = self._pens.row_pen("warn" if look.stopped else "accent" if lit else "head", lit)
        line = Line().add(glyphs.stopped if look.stopped else " ", pen)
        line.add(fit(drawable(facts.site.name), look.label), pen).space(1, plain)
        end = width - (_NUMBERS if width > 44 else 0)
        if facts.dropped and not facts.choices:
            line.add(f"{glyphs.dropped} dropped: no expert took it", self._pens.row_pen("bad", lit))
        elif not facts.choices:
            line.add("not reached yet" if look.ahead else "no routing known", dim)
        else:
            self._choices(line, facts, end - line.width, look)
        line = Line().extend(line.clip(end)).to(end, plain)
        if end < width:
            self._numbers(line, facts, look)
        return line.strip(width, plain)

    def _numbers(self, line: Line, facts: SiteFacts, look: SiteLook) -> None:
        lit, changes = look.lit, look.changes
        glyphs = self._pens.ink.glyphs
        dim, plain = self._pens.row_pen("dim", lit), self._pens.row_pen("", lit)
        for name, value, changed in (
            (" H ", facts.entropy, changes.entropy),
            (f" {glyphs.delta} ", facts.margin, changes.margin),
        ):
            text = number(value, 2, glyphs.dash)
            text = text if len(text) <= 4 else number(value, 1, glyphs.dash)
            line.add(name, dim).space(4 - len(text), plain).add(text, self._number_pen(changed, lit))
        mark, pen = " ", "head"
        if facts.broken:
            mark, pen = glyphs.broken, "bad"
        elif facts.margin < NEAR_TIE and not facts.forced:
            mark, pen = glyphs.near_tie, "warn"
        line.add(" " + mark, self._pens.row_pen(pen, lit))

    def _number_pen(self, changed: bool, lit: bool) -> Style:
        pen = self._pens.row_pen("", lit)
        return pen + _CHANGED if changed else pen

    def _choices(self, line: Line, facts: SiteFacts, room: int, look: SiteLook) -> None:
        choices, lit = facts.choices, look.lit
        if facts.forced:
            line.add(self._pens.ink.glyphs.forced + " ", self._pens.row_pen("warn", lit))
            room -= 2
        slots = max(len(choices), min(facts.site.top_k, 8))
        each = room // max(1, slots)
        if each >= _SLOT_PLAIN or not self._pens.ink.shaded or any(math.isnan(choice.weight) for choice in choices):
            each = max(each, len(str(facts.site.num_experts - 1)) + 6)
            kept = choices if each * len(choices) <= room else choices[: max(0, (room - 3) // each)]
            most = max((abs(choice.weight) for choice in choices if not math.isnan(choice.weight)), default=0.0)
            for choice in kept:
                self._slot(line, choice, min(each, 34), max(1.0, most), look)
            if len(kept) < len(choices):
                line.add(f"+{len(choices) - len(kept)}", self._pens.row_pen("dim", lit))
                return
            self._runners_up(line, facts, room - min(each, 34) * len(choices), lit)
        else:
            self._stack(line, choices, room, lit)

    def _slot(self, line: Line, choice: Choice, width: int, full: float, look: SiteLook) -> None:
        """``●3 ━━━━━━ .71``: the bar's full length is a weight of one."""
        glyphs, lit = self._pens.ink.glyphs, look.lit
        pen = self._pens.expert_pen(choice.expert, lit)
        named = pen + _CHANGED if choice.expert in look.changes.experts else pen
        name = f"{glyphs.dot}{choice.expert}"
        weight = number(choice.weight, 2, glyphs.dash)
        if math.isnan(choice.weight):
            line.add(fit(f"{name} {weight}", width), pen)
            return
        line.add(name, named).add(" ", self._pens.row_pen("", lit))
        used = len(name) + 1
        room = width - used - len(weight) - 2
        if width >= _SLOT_WITH_BAR and room >= 2:
            halves = round(abs(choice.weight) / full * room * 2)
            bar = glyphs.bar * (halves // 2) + (glyphs.half_bar if halves % 2 else "")
            bar = bar or glyphs.half_bar
            line.add(bar, pen).add(" ", self._pens.row_pen("", lit))
            used += len(bar) + 1
        line.add(weight, self._number_pen(choice.expert in look.changes.weights, lit))
        line.space(width - used - len(weight), self._pens.row_pen("", lit))

    def _stack(self, line: Line, choices: tuple[Choice, ...], room: int, lit: bool) -> None:
        """One bar, divided among many experts by weight, each part with its expert's number where it fits."""
        total = sum(abs(choice.weight) for choice in choices)
        at, passed = 0, 0.0
        for choice in choices:
            passed += abs(choice.weight)
            until = round(passed / total * room) if total > 0 else at
            color = self._pens.ink.expert(choice.expert)
            cells = until - at
            if cells <= 0:
                continue
            text = str(choice.expert)
            shown = text.center(cells) if len(text) < cells or len(text) == cells == 1 else " " * cells
            line.add(shown, self._pens.paint("", None if color is None else contrast_text(color), color))
            at = until
        line.space(room - at, self._pens.row_pen("", lit))

    def _runners_up(self, line: Line, facts: SiteFacts, room: int, lit: bool) -> None:
        dim = self._pens.row_pen("dim", lit)
        used = 0
        for index, other in enumerate(facts.runners_up):
            text = (
                "then " if not index else ""
            ) + f"{other.expert} {number(other.weight, 2, self._pens.ink.glyphs.dash)}  "
            if used + len(text) > room:
                break
            line.add(text, dim)
            used += len(text)
