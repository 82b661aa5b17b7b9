"""The detail of one token: its experts layer by layer, what nearly won, and what the model expected next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.strip import Strip

from moetui.routing import drawable
from moetui.routing.timeline import TimelineView
from moetui.session import Underway
from moetui.tui.cells import Line, chance, fit
from moetui.tui.messages import SiteSelected
from moetui.tui.widgets.context import Related
from moetui.tui.widgets.heat_grid import keep_in_view
from moetui.tui.widgets.pens import PEN_CSS, Pens
from moetui.tui.widgets.sharing import Rows
from moetui.tui.widgets.token_changes import UNCHANGED, SiteChanges
from moetui.tui.widgets.token_facts import TokenFacts, token_facts
from moetui.tui.widgets.token_site import SiteLook, SitePainter


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
        self._painter = SitePainter(self)
        self._before: int | None = None  # the site that the token stands before, if it is still on its way
        self._related: tuple[Related, ...] = ()
        self._stopped_site: int | None = None
        self._changes: tuple[SiteChanges, ...] = ()
        self._since: int | None = None

    def show(self, view: TimelineView, token: int | None) -> None:
        """Draw this token of the view; a token once drawn is not looked up again."""
        self.renew_ink()
        key = (token, id(view.sites), token is not None and view.first <= token < view.end)
        if key == self._key:
            return
        self._key, self._before = key, None
        self.facts = None if token is None else token_facts(view, token)
        self._frame()

    def show_underway(self, underway: Underway) -> None:
        """Draw the last token of a step that stands before a site, as far as it has come."""
        self.renew_ink()
        if self._key is underway:
            return
        self._key, self._before = underway, underway.site
        facts = token_facts(underway.view, underway.view.end - 1)
        self.facts = None if facts is None else replace(facts, token=underway.first + facts.token)
        self._frame()

    def relate(self, related: tuple[Related, ...]) -> None:
        """Say what earlier tokens were to this one, one line each."""
        if related != self._related:
            self._related = related
            self._frame()

    def mark(self, site: int | None, changes: tuple[SiteChanges, ...], since: int | None) -> None:
        """Mark the site at which the run stands, and what of this token changed since another, ``since``."""
        if (site, changes, since) != (self._stopped_site, self._changes, self._since):
            self._stopped_site, self._changes, self._since = site, changes, since
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
        return (len(self.facts.sites) if self.facts is not None else 0) + 2 + len(self._related)

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
        height, footers = self.room.height, self._footers()
        sites = len(self.facts.sites) if self.facts is not None else 0
        blank = height > 4 and height - 1 - footers != sites  # rather the last layer than a blank
        return max(1, height - 1 - blank - footers)

    def _footers(self) -> int:
        """Lines of ``related`` that fit under the layers."""
        return min(len(self._related), max(0, self.room.height - 4))

    def _frame(self) -> None:
        facts = self.facts
        if facts is not None:
            self._top = keep_in_view(self._top, self.site, self._shown(), len(facts.sites))
            dash = self.ink.glyphs.dash
            text = fit(drawable(facts.text, spaces=True), 24, "left", self.ink.glyphs.ellipsis).rstrip()
            words = [f'token {facts.token}  "{text}"', "prefill" if facts.prefill else "decode"]
            if self._before is None:
                words.append(f"p {chance(facts.probability, dash)}")
                words.append(f"{facts.ms:.1f} ms" if not math.isnan(facts.ms) else f"{dash} ms")
            else:
                words.append(f"before {drawable(facts.sites[self._before].site.name)}")
            self.border_title = Content("  ".join(words))
            below = []
            if len(facts.sites) > self._shown():
                below.append(f"layers {self._top}–{self._top + self._shown() - 1} of {len(facts.sites)}")
            if any(each != UNCHANGED for each in self._changes):
                below.append(f"underlined: changed since token {self._since}")
            self.border_subtitle = Content(self.ink.words(" · ".join(below))) if below else None
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
        above = height - 2 - y
        if height > 1 and 0 <= above < self._footers():
            return self._shares(self._related[self._footers() - 1 - above], width)
        row = self._top + y
        if y >= self._shown() or row >= len(facts.sites):
            return Strip.blank(width, plain)
        label = min(12, max(len(drawable(one.site.name)) for one in facts.sites)) + 1
        changed = self._changes[row] if row < len(self._changes) else UNCHANGED
        look = SiteLook(label, row == self.site, row == self._stopped_site, self._before is not None, changed)
        return self._painter.line(facts.sites[row], look, width)

    def _shares(self, related: Related, width: int) -> Strip:
        """``why next  "garden" 44%  "the" 21%``, and how that is known where there is room."""
        dim, plain, glyphs = self.pen("dim"), self.pen(), self.ink.glyphs
        head = Line().add(f" {related.head} ", self.pen("head"))
        parts = []
        for index, (text, share) in enumerate(related.most):
            part = Line().add("  " if index else "", dim)
            part.add(
                fit_quoted(drawable(text, spaces=True), 14, glyphs.ellipsis), self.pen("strong" if not index else "")
            )
            parts.append(part.add(" <1%" if share < 0.005 else f" {100 * share:.0f}%", plain))
        # The note comes before the third share, and in few words before it goes.
        gap = 2 if parts else 0
        room = width - head.width - gap
        note, brief = self.ink.words(related.note), self.ink.words(related.brief)
        if cell_len(note) > room - sum(part.width for part in parts[:2]):
            note = brief
        if cell_len(note) > room - sum(part.width for part in parts[:1]):
            note = note.partition(", ")[0]
        room -= cell_len(note)
        line = Line().extend(head)
        for index, part in enumerate(parts):
            room -= part.width
            if room < 0 and index:
                break
            line.extend(part)
        left = width - line.width - gap
        if not parts or cell_len(note) <= left:
            line.space(gap, dim).add(fit(note, max(0, left), "left", glyphs.ellipsis), dim)
        return Line().extend(line.clip(width)).strip(width, plain)

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
                " " + chance(candidate.probability, glyphs.dash), plain if not index else dim
            )
            if line.width + part.width > width:
                break
            line.extend(part)
        return line.strip(width, plain)


def fit_quoted(text: str, most: int, ellipsis: str) -> str:
    """A token's text in quotation marks, cut to at most ``most`` cells within them."""
    cut = fit(text, most, "left", ellipsis)
    return f'"{cut.rstrip()}"'
