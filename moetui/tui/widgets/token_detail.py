"""The detail of one token: its experts layer by layer, what nearly won, and what the model expected next."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.strip import Strip

from moetui.routing import drawable
from moetui.routing.timeline import TimelineView
from moetui.tui.cells import Line, chance, fit, number
from moetui.tui.messages import SiteSelected
from moetui.tui.ramps import contrast_text
from moetui.tui.widgets.heat_grid import keep_in_view
from moetui.tui.widgets.pens import PEN_CSS, Pens
from moetui.tui.widgets.sharing import Rows
from moetui.tui.widgets.token_columns import NEAR_TIE
from moetui.tui.widgets.token_facts import Choice, SiteFacts, TokenFacts, token_facts

_NUMBERS = 17
_SLOT_WITH_BAR, _SLOT_PLAIN = 13, 8


class TokenDetail(Pens, can_focus=True):
    """Draws one token; the line of the selected site is lit and stays in view."""

    DEFAULT_CSS = "TokenDetail { height: 1fr; " + PEN_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = Pens.COMPONENT_CLASSES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "up,k,left,h", "layer(-1)", "Layer before", show=False, id="detail.layer_before", tooltip="The layer before"
        ),
        Binding(
            "down,j,right,l", "layer(1)", "Layer after", show=False, id="detail.layer_after", tooltip="The layer after"
        ),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.facts: TokenFacts | None = None
        self.site = 0
        self._top = 0
        self._key: object = None

    def show(self, view: TimelineView, token: int | None) -> None:
        """Draw this token of the view; a token once drawn is not looked up again."""
        self.renew_ink()
        key = (token, id(view.sites), token is not None and view.first <= token < view.end)
        if key == self._key:
            return
        self._key = key
        self.facts = None if token is None else token_facts(view, token)
        self._frame()

    def select_site(self, site: int) -> None:
        """Light a site's line, without telling anyone."""
        if site != self.site:
            self.site = site
            self._frame()

    def shared(self) -> tuple[str, Callable[[], Rows]]:
        """The routing shown, as rows with a header."""
        facts = self.facts

        def rows() -> Rows:
            yield ("site", "layer", "slot", "expert", "weight", "entropy", "margin")
            for one in facts.sites if facts is not None else ():
                for slot, choice in enumerate(one.choices):
                    name = drawable(one.site.name)
                    yield (name, one.site.layer, slot, choice.expert, choice.weight, one.entropy, one.margin)

        return f"moetui-token-{facts.token if facts is not None else 0}", rows

    def lines_wanted(self) -> int:
        """Content lines that show everything."""
        return (len(self.facts.sites) if self.facts is not None else 0) + 2

    def action_layer(self, by: int) -> None:
        """Select the layer before or after."""
        if self.facts is not None and self.facts.sites:
            self.post_message(SiteSelected((self.site + by) % len(self.facts.sites)))

    def on_click(self, event: events.Click) -> None:
        """Select the layer that was clicked."""
        offset = event.get_content_offset(self)
        if offset is not None and self.facts is not None and offset.y < self._shown():
            site = self._top + offset.y
            if site < len(self.facts.sites):
                self.post_message(SiteSelected(site))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll the layers."""
        self._scroll(2)
        event.stop()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll the layers."""
        self._scroll(-2)
        event.stop()

    def on_resize(self) -> None:
        """What fits depends on the room."""
        self._frame()

    def _scroll(self, by: int) -> None:
        total = len(self.facts.sites) if self.facts is not None else 0
        self._top = max(0, min(total - self._shown(), self._top + by))
        self.refresh()

    def _shown(self) -> int:
        return max(1, self.room.height - (2 if self.room.height > 4 else 1))

    def _frame(self) -> None:
        facts = self.facts
        if facts is not None:
            self._top = keep_in_view(self._top, self.site, self._shown(), len(facts.sites))
            dash = self.ink.glyphs.dash
            text = fit(drawable(facts.text, spaces=True), 24, "left", self.ink.glyphs.ellipsis).rstrip()
            words = [f'token {facts.token}  "{text}"', "prefill" if facts.prefill else "decode"]
            words.append(f"p {chance(facts.probability, dash)}")
            words.append(f"{facts.ms:.1f} ms" if not math.isnan(facts.ms) else f"{dash} ms")
            self.border_title = Content("  ".join(words))
            hidden = len(facts.sites) - self._shown()
            below = f"layers {self._top}–{self._top + self._shown() - 1} of {len(facts.sites)}" if hidden > 0 else ""
            self.border_subtitle = Content(self.ink.words(below)) if below else None
        else:
            self.border_title, self.border_subtitle = "token", None
        self.refresh()

    # -- drawing ------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """One line: a layer, a blank, or the candidates at the bottom."""
        width, height = self.room
        plain, facts = self.pen(), self.facts
        if facts is None:
            return (
                Line().space(1, plain).add("no token selected" if y == 0 else "", self.pen("dim")).strip(width, plain)
            )
        if y == height - 1 and height > 1:
            return self._candidates(facts, width)
        row = self._top + y
        if y >= self._shown() or row >= len(facts.sites):
            return Strip.blank(width, plain)
        return self._site(facts.sites[row], row == self.site, width)

    def _site(self, facts: SiteFacts, lit: bool, width: int) -> Strip:
        plain, dim, glyphs = self.row_pen("", lit), self.row_pen("dim", lit), self.ink.glyphs
        assert self.facts is not None
        label = min(12, max(len(drawable(one.site.name)) for one in self.facts.sites)) + 2
        line = Line().add(fit(" " + drawable(facts.site.name), label), self.row_pen("accent" if lit else "head", lit))
        line.space(1, plain)
        end = width - (_NUMBERS if width > 44 else 0)
        if facts.dropped and not facts.choices:
            line.add(f"{glyphs.dropped} dropped: no expert took it", self.row_pen("bad", lit))
        elif not facts.choices:
            line.add("not passed", dim)
        else:
            self._choices(line, facts, end - line.width, lit)
        line = Line().extend(line.clip(end)).to(end, plain)
        if end < width:
            self._numbers(line, facts, lit)
        return line.strip(width, plain)

    def _numbers(self, line: Line, facts: SiteFacts, lit: bool) -> None:
        glyphs = self.ink.glyphs
        dash = glyphs.dash if not facts.passed else glyphs.unknown
        dim, plain = self.row_pen("dim", lit), self.row_pen("", lit)
        line.add(" H ", dim).add(fit(number(facts.entropy, 2, dash), 4, "right"), plain)
        line.add(f" {glyphs.delta} ", dim).add(fit(number(facts.margin, 2, dash), 4, "right"), plain)
        mark, pen = " ", "head"
        if facts.broken:
            mark, pen = glyphs.broken, "bad"
        elif facts.margin < NEAR_TIE:
            mark, pen = glyphs.near_tie, "warn"
        line.add(" " + mark, self.row_pen(pen, lit))

    def _choices(self, line: Line, facts: SiteFacts, room: int, lit: bool) -> None:
        choices = facts.choices
        if facts.forced:
            line.add(self.ink.glyphs.forced + " ", self.row_pen("warn", lit))
            room -= 2
        slots = max(len(choices), min(facts.site.top_k, 8))
        each = room // max(1, slots)
        if each >= _SLOT_PLAIN or not self.ink.shaded or any(math.isnan(choice.weight) for choice in choices):
            each = max(each, len(str(facts.site.num_experts - 1)) + 6)
            kept = choices if each * len(choices) <= room else choices[: max(0, (room - 3) // each)]
            most = max((abs(choice.weight) for choice in choices if not math.isnan(choice.weight)), default=0.0)
            for choice in kept:
                self._slot(line, choice, min(each, 34), max(1.0, most), lit)
            if len(kept) < len(choices):
                line.add(f"+{len(choices) - len(kept)}", self.row_pen("dim", lit))
                return
            self._runners_up(line, facts, room - min(each, 34) * len(choices), lit)
        else:
            self._stack(line, choices, room, lit)

    def _slot(self, line: Line, choice: Choice, width: int, full: float, lit: bool) -> None:
        """``●3 ━━━━━━ .71``: the bar's full length is a weight of one."""
        glyphs = self.ink.glyphs
        pen = self.expert_pen(choice.expert, lit)
        name = f"{glyphs.dot}{choice.expert}"
        weight = number(choice.weight, 2, glyphs.unknown)
        if math.isnan(choice.weight):
            line.add(fit(f"{name} {weight}", width), pen)
            return
        line.add(name, pen).add(" ", self.row_pen("", lit))
        used = len(name) + 1
        room = width - used - len(weight) - 2
        if width >= _SLOT_WITH_BAR and room >= 2:
            halves = round(abs(choice.weight) / full * room * 2)
            bar = glyphs.bar * (halves // 2) + (glyphs.half_bar if halves % 2 else "")
            bar = bar or glyphs.half_bar
            line.add(bar, pen).add(" ", self.row_pen("", lit))
            used += len(bar) + 1
        line.add(weight, self.row_pen("", lit))
        line.space(width - used - len(weight), self.row_pen("", lit))

    def _stack(self, line: Line, choices: tuple[Choice, ...], room: int, lit: bool) -> None:
        """One bar, divided among many experts by weight, each part with its expert's number where it fits."""
        total = sum(abs(choice.weight) for choice in choices)
        at, passed = 0, 0.0
        for choice in choices:
            passed += abs(choice.weight)
            until = round(passed / total * room) if total > 0 else at
            color = self.ink.expert(choice.expert)
            cells = until - at
            if cells <= 0:
                continue
            text = str(choice.expert)
            shown = text.center(cells) if len(text) < cells or len(text) == cells == 1 else " " * cells
            line.add(shown, self.paint("", None if color is None else contrast_text(color), color))
            at = until
        line.space(room - at, self.row_pen("", lit))

    def _runners_up(self, line: Line, facts: SiteFacts, room: int, lit: bool) -> None:
        dim = self.row_pen("dim", lit)
        used = 0
        for index, other in enumerate(facts.runners_up):
            text = (
                "then " if not index else ""
            ) + f"{other.expert} {number(other.weight, 2, self.ink.glyphs.unknown)}  "
            if used + len(text) > room:
                break
            line.add(text, dim)
            used += len(text)

    def _candidates(self, facts: TokenFacts, width: int) -> Strip:
        dim, plain, glyphs = self.pen("dim"), self.pen(), self.ink.glyphs
        line = Line().add(" next ", self.pen("head"))
        if not facts.candidates:
            line.add(glyphs.dash, dim)
            line.add("  known only for the last token of a step" if facts.prefill else "", dim)
            return Line().extend(line.clip(width)).strip(width, plain)
        for index, candidate in enumerate(facts.candidates):
            text = fit_quoted(drawable(candidate.text, spaces=True), 14, glyphs.ellipsis)
            part = Line()
            if index:
                part.add("  ", dim)
            part.add(text, self.pen("strong") if not index else plain).add(
                " " + chance(candidate.probability, glyphs.unknown), plain if not index else dim
            )
            if line.width + part.width > width:
                break
            line.extend(part)
        return line.strip(width, plain)


def fit_quoted(text: str, most: int, ellipsis: str) -> str:
    """A token's text in quotation marks, cut to at most ``most`` cells within them."""
    cut = fit(text, most, "left", ellipsis)
    return f'"{cut.rstrip()}"'
