"""The diff screen: two recordings side by side, from the first token that differs to the experts that flipped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content

from moetui.routing import drawable
from moetui.tui.bars import KeyBar
from moetui.tui.lines import LineWidget, Part
from moetui.tui.messages import SiteSelected
from moetui.tui.options import Look, ScreenOptions
from moetui.tui.shell import Shell
from moetui.tui.status import short_architecture
from moetui.tui.widgets.diff_lists import FlipList, PairList, SiteList
from moetui.tui.widgets.diff_rows import NOBODY, TwoRuns
from moetui.tui.widgets.heatmap import Heatmap
from moetui.tui.widgets.row_list import RowList

_BESIDE = ("sites", "shift", "flips")


class DiffApp(Shell):
    """The screen of two runs."""

    CSS_PATH = Path(__file__).with_name("diff.tcss")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012 - an instance attribute in the base
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "difference(1)", "next", id="diff.next", tooltip="To the next difference"),
        Binding("N", "difference(-1)", "previous", id="diff.previous", tooltip="To the difference before"),
        Binding("d", "first", "first", id="diff.first", tooltip="To the first other token; again: first other experts"),
        Binding(
            "p", "prefix", "all/prefix", id="diff.prefix", tooltip="Measure all pairs, or those before any differs"
        ),
        Binding("v", "beside", "view", id="diff.beside", tooltip="The next of sites, load shift and flips"),
        Binding(
            "left_square_bracket", "site(-1)", "layer", id="diff.site_before", show=False, tooltip="The site before"
        ),
        Binding(
            "right_square_bracket", "site(1)", "layer", id="diff.site_after", key_display="[ ]", tooltip="The next site"
        ),
        Binding("question_mark,f1", "help", "help", id="help", tooltip="All keys that do something here"),
        Binding("q", "quit", "quit", id="quit", tooltip="Leave"),
        Binding("ctrl+q,ctrl+c", "quit", "quit", show=False, priority=True, tooltip="Leave, from anywhere"),
        Binding("ctrl+z", "suspend_process", "suspend", show=False, tooltip="Back to the shell; fg returns"),
        Binding("ctrl+l", "redraw", "redraw", id="redraw", show=False, tooltip="Draw everything anew"),
    ]

    def __init__(self, runs: TwoRuns, options: ScreenOptions, look: Look | None = None, **kwargs: Any) -> None:
        super().__init__(options, look, **kwargs)
        self.runs = runs
        self.prefix = False

    def compose(self) -> ComposeResult:
        """Pairs at the left (or above), what they add up to at the right (or below)."""
        yield LineWidget(id="title")
        with Container(id="body"):
            yield PairList(self.runs, id="pairs")
            with Container(id="beside"):
                yield SiteList(self.runs, id="sites")
                yield Heatmap(id="shift")
                yield FlipList(self.runs, id="flips")
        yield LineWidget(id="pair")
        yield KeyBar()
        yield LineWidget(id="too-small")

    def on_mount(self) -> None:
        """Show everything, and stand where the runs part."""
        self.watch_terminal()
        self.screen.set_class(self.look.ascii, "-ascii")
        self.set_keymap(dict(self.options.keys))
        self.query_one("#title", LineWidget).show(*self._title())
        self.pairs.border_title = Content(self.ink.words(self._pairs_title()))
        self.query_one("#sites").add_class("-shown")
        self._show_measured()
        # As long as the model has sites, and no longer: what is left is for the flips.
        self.query_one("#sites").styles.max_height = len(self.runs.a.sites) + 3
        self.query_one("#shift").styles.max_height = len(self.runs.a.sites) + 4
        self.pairs.focus()
        self.call_after_refresh(self._begin)

    @property
    def pairs(self) -> PairList:
        """The tokens."""
        return self.query_one(PairList)

    def _begin(self) -> None:
        self.send_differences()
        first = self.runs.next_difference(NOBODY, 1)
        self._go(first if first is not None else 0)

    # -- what is shown ------------------------------------------------------------------------------------------

    def _title(self) -> tuple[list[Part], list[Part]]:
        runs, found = self.runs, self.runs.comparison
        left = [
            Part(" moetui ", "accent", 5),
            Part(" A ", "accent"),
            Part(drawable(runs.a.name), "strong"),
            Part("  B ", "warn"),
            Part(drawable(runs.b.name), "strong"),
            Part(f" · {short_architecture(runs.a.info)}", "", 6),
        ]
        if found.identical:
            return left, [Part(f"identical: {found.tokens:,} tokens ", "good")]
        same = "all the same" if found.same_tokens == found.tokens else f"{found.same_tokens:,} the same"
        same = same if found.aligned == "tokens" else "tokens unknown"
        right = [Part(f"{found.tokens:,} pairs, {same}", "", 1), Part(f"  {found.flips:,} flips", "warn", 2)]
        lone = [f"{count:,} of {name} alone" for name, count in (("A", found.only_a), ("B", found.only_b)) if count]
        if lone:
            right.append(Part("  " + ", ".join(lone), "dim", 3))
        if not any(site.tokens for site in found.sites):
            right.append(Part("  no routing known in both", "bad", 4))
        elif found.routing_unknown:
            right.append(Part(f"  {found.routing_unknown:,} routings in one alone", "bad", 4))
        missing = len(found.sites_only_a) + len(found.sites_only_b)
        if missing:
            right.append(Part(f"  {missing} sites not in both", "bad", 4))
        return left, [*right, Part(" ")]

    def _pairs_title(self) -> str:
        found = self.runs.comparison
        if found.aligned == "position":
            return "tokens by position · which they are is unknown"
        if found.first_token is not None:
            return f"tokens · {found.common_prefix:,} before the first that differs"
        return "tokens · the same all the way" if not found.only_a + found.only_b else "tokens · one run is longer"

    def _show_measured(self) -> None:
        self.query_one(SiteList).show(prefix=self.prefix)
        self.query_one(FlipList).show(prefix=self.prefix)
        self.query_one(Heatmap).show(self.runs.shift_picture(prefix=self.prefix))

    def _show_pair(self) -> None:
        if not self.pairs.total:
            return
        runs, row = self.runs, self.pairs.cursor
        parts = [Part(" ")]
        texts = []
        for side, token, role in zip((runs.a, runs.b), runs.numbers[row].tolist(), ("accent", "warn"), strict=True):
            if token != NOBODY:
                text = drawable(side.view.text(int(side.view.tokens(token, token + 1).token_id[0])), spaces=True)
                texts.append(Part(f'"{text}"', "" if runs.same[row] else role))
        parts += texts[:1] if runs.same[row] else [part for text in texts for part in (text, Part("  "))]
        before, after = runs.experts(row)
        if before is None or after is None:
            parts.append(Part(f"  in {'B' if before is None else 'A'} alone", "dim"))
        elif not runs.flips[row]:
            parts.append(Part("  the same experts at every site", "dim"))
        else:
            parts += self._changes(before, after)
        self.query_one("#pair", LineWidget).show(parts, more=f"   {self.ink.glyphs.ellipsis}")

    def _changes(self, before: tuple[tuple[int, ...], ...], after: tuple[tuple[int, ...], ...]) -> Iterable[Part]:
        arrow = ">" if self.look.ascii else "→"
        rank = 1
        for site, one, other in zip(self.runs.a.sites, before, after):
            if set(one) != set(other) and one and other:
                yield Part(f"   {drawable(site.name)} ", "dim", rank)
                yield Part(f"{_numbers(one)} {arrow} {_numbers(other)}", "", rank)
                rank += 1

    # -- what keys do -------------------------------------------------------------------------------------------

    def _go(self, row: int) -> None:
        self.pairs.move_cursor(row)
        self._show_pair()

    def action_difference(self, direction: int) -> None:
        """To the next or the previous difference."""
        row = self.runs.next_difference(self.pairs.cursor, direction)
        if row is not None:
            self._go(row)
        else:
            self.notify("no difference " + ("after this" if direction > 0 else "before this"), markup=False)

    def action_first(self) -> None:
        """To the first other token; from there to the first other experts, and back."""
        rows = [row for row in (self.runs.first_other_token, self.runs.first_other_experts) if row is not None]
        if not rows:
            self.notify("the two do not differ", markup=False)
        else:
            self._go(rows[-1] if self.pairs.cursor == rows[0] else rows[0])

    def action_prefix(self) -> None:
        """Measure and list all pairs, or only those before any token differs."""
        self.prefix = not self.prefix
        self._show_measured()

    def action_beside(self) -> None:
        """Go to the next of sites, load shift and flips; on a narrow screen it takes the place of the others."""
        panels = [self.query_one(f"#{name}") for name in _BESIDE]
        shown = next(number for number, panel in enumerate(panels) if panel.has_class("-shown"))
        inside = self.focused in panels
        following = panels[(shown + 1) % len(panels)] if inside or self.screen.has_class("-narrow") else panels[shown]
        for panel in panels:
            panel.set_class(panel is following, "-shown")
        following.focus()

    def action_site(self, by: int) -> None:
        """Select the site before or after."""
        sites = len(self.runs.a.sites)
        self._select_site((self.query_one(SiteList).cursor + by) % sites)

    def _select_site(self, site: int, expert: int | None = None) -> None:
        self.query_one(SiteList).move_cursor(site)
        self.query_one(Heatmap).move_cursor(site, expert)
        self.pairs.site = site
        self.pairs.refresh()

    @on(RowList.Moved)
    def _moved(self, event: RowList.Moved) -> None:
        rows = event.rows
        if isinstance(rows, FlipList):
            row = self.runs.row_of(rows.flips[event.row].a)
            names = [site.name for site in self.runs.a.sites]
            self._select_site(names.index(rows.flips[event.row].site))
            if row is not None:
                self._go(row)
        elif isinstance(rows, SiteList):
            self._select_site(event.row)
        else:
            self._show_pair()

    @on(SiteSelected)
    def _site_selected(self, event: SiteSelected) -> None:
        self._select_site(event.site, event.expert)

    def on_resize(self, event: events.Resize) -> None:
        """Everything is sent anew, and the place in the lists kept."""
        self.fit_screen(event.size)


def _numbers(experts: tuple[int, ...]) -> str:
    return " ".join(str(expert) for expert in experts)
