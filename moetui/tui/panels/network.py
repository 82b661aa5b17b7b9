"""The Network tab: the traffic of tokens through the routers, as heatmap, table and detail with one selection."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from textual import events, on
from textual.app import ComposeResult
from textual.layout import Layout

from moetui.routing import query
from moetui.routing.events import Branch, RunState
from moetui.routing.metrics import dead_experts, dead_pairs
from moetui.routing.timeline import TimelineView
from moetui.routing.totals import RoutingTotals, chunk_tokens
from moetui.session import Layered, Session, Underway
from moetui.tui.ink import ink_of
from moetui.tui.messages import Selection, SiteSelected, Stop, TokenSelected
from moetui.tui.panels.network_keys import NetworkKeys
from moetui.tui.panels.network_layout import NetworkLayout, Wanted, place
from moetui.tui.panels.questions import Questions
from moetui.tui.panels.signs import network_signs
from moetui.tui.run_facts import run_facts
from moetui.tui.status import current_last
from moetui.tui.widgets.balance import BalanceStrip, balance_gauges
from moetui.tui.widgets.filter_line import FilterLine
from moetui.tui.widgets.flow import FlowView
from moetui.tui.widgets.heat_source import HeatSource
from moetui.tui.widgets.heatmap import Heatmap
from moetui.tui.widgets.token_changes import changes
from moetui.tui.widgets.token_detail import TokenDetail
from moetui.tui.widgets.token_facts import TokenFacts, token_facts
from moetui.tui.widgets.token_rows import TokenQuery
from moetui.tui.widgets.token_table import TokenTable
from moetui.tui.widgets.windows import BalanceTrail, Matched, token_rate

_WORK_SECONDS = 0.012  # counted at a time, before keys are answered
_REST_SECONDS = 0.012  # till the next time: what a key sets going passes through many queues, and no count between them
_PARTS = 8  # of a chunk of routing: what is counted before the time is looked at
_SHOW_SECONDS = 0.3  # how often a count that goes on is shown


class NetworkPanel(NetworkKeys):
    """The content of the Network tab."""

    DEFAULT_CSS = """
    NetworkPanel {
        height: 1fr;
        & > Heatmap, & > TokenTable, & > TokenDetail, & > FlowView {
            border: round $border-blurred;
            border-title-color: $foreground-muted;
            border-subtitle-color: $foreground-muted;
            &:focus { border: round $accent; border-title-color: $accent; }
        }
        &.-ascii > Heatmap, &.-ascii > TokenTable, &.-ascii > TokenDetail, &.-ascii > FlowView {
            border: ascii $border-blurred;
            &:focus { border: ascii $accent; }
        }
        &.-bare > TokenTable { border: none; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._arrangement = NetworkLayout()
        self._view: TimelineView | None = None
        self._session: Session | None = None
        self.selection = Selection()
        self.source = HeatSource()
        self._balance = BalanceTrail()
        self._totals: RoutingTotals | None = None
        self._query: TokenQuery | None = None
        self._hide = True
        self._drawer = False
        self._going_on = False
        self._drawn = 0.0
        self.questions = Questions(self, self._draw)
        self._stop: Stop | None = None
        self._marked: Stop | None = None
        self._compared: TokenFacts | None = None

    @property
    def layout(self) -> Layout:
        """The parts stand as ``network_layout.place`` says."""
        return self._arrangement

    def compose(self) -> ComposeResult:
        """The parts; the table comes first, so that it has the focus first."""
        yield TokenTable(id="tokens")
        yield Heatmap(id="heatmap")
        yield TokenDetail(id="detail")
        yield FlowView(id="flow")
        yield FilterLine(self._parse, self._complete, id="filter")
        yield BalanceStrip(id="balance")

    def help_signs(self) -> Sequence[tuple[str, str]]:
        """What the help is to say of the columns and signs."""
        return network_signs(ink_of(self).glyphs)

    # -- what the app calls -------------------------------------------------------------------------------------

    def refresh_from(self, view: TimelineView, session: Session) -> None:
        """Draw this view."""
        self._view, self._session = view, session
        self._draw()

    def select(self, selection: Selection) -> None:
        """Show this selection, without telling anyone."""
        self.selection = selection
        if not self.is_mounted:
            return
        self.tokens.select(selection.token, selection.site)
        self.heatmap.move_cursor(selection.site, selection.expert)
        self.detail.select_site(selection.site or 0)
        if self._view is not None:
            self._draw_selected(self._view)

    def show_stop(self, stop: Stop | None) -> None:
        """Mark where the run stands, and in its token what is not as it was at the stop before."""
        self._stop = stop

    def compare_with(self, name: str, view: TimelineView) -> None:
        """Let the heatmap show the difference to another recording of the same model."""
        self.source.compare_with(name, view)
        if self._view is not None:
            self._draw()

    @property
    def settled(self) -> bool:
        """Whether something was drawn, no count goes on, and the parts have the places they are meant to have."""
        table = place(self.size, self._arrangement.wanted)["tokens"]
        return self._view is not None and not self._going_on and self.tokens.placed_in(table.size)

    # -- drawing ------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        view = self._view
        if view is None or not self.is_mounted:
            return
        self._drawn = time.perf_counter()
        self.set_class(self.tokens.ink.ascii_only, "-ascii")
        self.tokens.stop_at(None if self._stop is None else self._stop.token)
        underway = self._underway()
        stopped = None if self._stop is None else self._stop.site
        self.heatmap.stop_at(stopped if underway is None else underway.site)
        done = self.tokens.show(view)
        self._say_matches()
        done &= self._draw_heat(view)
        self._draw_detail(view)
        done &= self._draw_balance(view)
        if not done:
            self._go_on_later()

    def _go_on_later(self) -> None:
        """Long counts go on between other messages, so that keys are answered meanwhile."""
        if not self._going_on:
            self._going_on = True
            self.set_timer(_REST_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._going_on = False
        view = self._view
        if view is None or not self.is_mounted:
            return
        now = time.perf_counter()
        done = False
        while not done and time.perf_counter() - now < _WORK_SECONDS:
            done = self._advance(view)
        if done or now - self._drawn > _SHOW_SECONDS:
            self._draw()
        else:
            self._go_on_later()

    def _advance(self, view: TimelineView) -> bool:
        """One portion more of each count, without drawing."""
        done = self.tokens.rows.update(view, self.tokens.sort)
        done &= self.source.advance(view, token=self.tokens.token, matched=self._matched(), branches=self._branches)
        return (self._totals is None or self._totals.update(view, _portion(view))) and done

    @property
    def _branches(self) -> Sequence[Branch]:
        return current_last(self._session) if self._session is not None else ()

    def _matched(self) -> Matched | None:
        rows = self.tokens.rows
        return Matched(rows.matched, rows.version) if rows.filtered and rows.progress >= 1.0 else None

    def _draw_heat(self, view: TimelineView) -> bool:
        picture, done = self.source.picture(
            view, token=self.tokens.token, matched=self._matched(), branches=self._branches
        )
        self.heatmap.show(picture)
        return done

    def _draw_balance(self, view: TimelineView) -> bool:
        if self._totals is None or self._totals.sites is not view.sites:
            self._totals = RoutingTotals(view.sites, entropy=False)
        totals = self._totals
        done = totals.update(view, _portion(view))
        course = self._balance.of(view)
        rates = token_rate(view)
        state = RunState.LOADING if self._session is None else self._session.state
        rate, unit = run_facts(view, self._branches).speed(state)
        dead = dead_experts(totals.loads, totals.routed, view.sites)
        gauges = balance_gauges(
            [point.fairness for point in course],
            [point.variation for point in course],
            [point.peak for point in course],
            dead=len(dead_pairs(dead, view.sites)),
            sure=all(one.enough for one in dead),
            dropped=int(totals.dropped.sum()),
            rate=rates.overall if math.isnan(rate) else rate,
            rates=rates.by_step,
            unit=unit,
            counted=done,
            dash=self.heatmap.ink.glyphs.dash,
        )
        self.query_one(BalanceStrip).show(gauges)
        return done

    def _draw_detail(self, view: TimelineView) -> None:
        token, site = self.tokens.token, self.tokens.site
        underway = self._underway()
        if underway is not None:
            self.detail.show_underway(underway)
        else:
            self.detail.show(view, token)
        self.tokens.relate(self.questions.overlay(view, site), self.questions.note)
        self.detail.relate(self.questions.lines(view, token, site) if underway is None else ())
        self._mark_changes(view, underway)
        self._arrange()
        flow = self.query_one(FlowView)
        if flow.display:
            flow.show(self.detail.facts, self.tokens.site)

    def _underway(self) -> Underway | None:
        """The step that the run stands within, while the newest token is followed: it is newer still."""
        if self.selection.token is not None:
            return None
        return self._session.underway if isinstance(self._session, Layered) else None

    def _mark_changes(self, view: TimelineView, underway: Underway | None) -> None:
        stop, now = self._stop, self.detail.facts
        if underway is not None:
            stop = Stop(underway.first + underway.view.end - 1, underway.site, None if stop is None else stop.token)
        if stop == self._marked and now is self._compared:
            return
        self._marked, self._compared = stop, now
        if stop is None or now is None or now.token != stop.token:
            self.detail.mark(None, (), None)
        else:
            before = None if stop.before is None else token_facts(view, stop.before)
            self.detail.mark(stop.site, changes(before, now), stop.before)

    def _draw_selected(self, view: TimelineView) -> None:
        if self.tokens.token is not None and self.tokens.token >= view.end:
            return  # it came after this view: it is drawn with the next one
        self._draw_detail(view)
        if self.source.window.kind == "token":
            self._draw_heat(view)

    def _say_matches(self) -> None:
        rows = self.tokens.rows
        if not rows.filtered:
            text = f"{rows.total:,} tokens" if rows.total != 1 else "1 token"
        else:
            text = f"{len(rows.matched):,} of {rows.total:,} tokens"
            if rows.progress < 1.0:
                text += f" · {100 * rows.progress:.0f}% looked at"
        self.query_one(FilterLine).note(text)

    def _arrange(self) -> None:
        if not self.size.area:  # not laid out yet: what has no room now would be hidden when there is some
            return
        wanted = Wanted(*self.heatmap.lines_wanted(), self.detail.lines_wanted(), self._drawer)
        places = place(self.size, wanted)
        if wanted != self._arrangement.wanted:
            self._arrangement.wanted = wanted
            # Asked of a child: a widget keeps its own arrangement when it asks for a layout itself.
            self.tokens.refresh(layout=True)
        for child in self.children:
            shown = child.id in places
            if child.display != shown:
                child.display = shown
        table = places.get("tokens")
        self.set_class(table is not None and table.height < 8, "-bare")

    def on_resize(self, _event: events.Resize) -> None:
        """Another size, other places."""
        if self.is_mounted:
            self._arrange()
            if self._view is not None:
                self._draw_detail(self._view)

    # -- one selection ------------------------------------------------------------------------------------------

    @on(TokenSelected)
    def _token_selected(self, event: TokenSelected) -> None:
        self.selection = Selection(event.token, self.selection.site, self.selection.expert)
        if self._view is not None:
            self._draw_selected(self._view)

    @on(SiteSelected)
    def _site_selected(self, event: SiteSelected) -> None:
        self.selection = Selection(self.selection.token, event.site, event.expert)
        self.select(self.selection)

    @on(TokenTable.Opened)
    def _opened(self) -> None:
        self._drawer = not self._drawer
        self._arrange()

    @on(Heatmap.CellChosen)
    def _cell_chosen(self, event: Heatmap.CellChosen) -> None:
        if self._view is not None:
            layer = self._view.sites[event.site].layer
            self.query_one(FilterLine).value = f"layer:{layer} expert:{event.expert}"

    # -- the filter ---------------------------------------------------------------------------------------------

    def _parse(self, text: str) -> TokenQuery:
        info = self._session.info if self._session is not None else None
        return query.parse(text, self._branch_numbers(), () if info is None else info.sites)

    def _complete(self, text: str, cursor: int) -> Sequence[str]:
        info = self._session.info if self._session is not None else None
        found = query.complete(text, cursor, info, self._branch_numbers())
        return [text[: one.start] + one.text + text[one.stop :] for one in found if one.start < cursor]

    def _branch_numbers(self) -> dict[str, int]:
        return {branch.name: branch.id for branch in self._branches}

    @on(FilterLine.Changed)
    def _filter_changed(self, event: FilterLine.Changed) -> None:
        self._query = event.query
        self._filter()

    @on(FilterLine.Left)
    def _filter_left(self) -> None:
        self.tokens.focus()

    def _filter(self) -> None:
        self.tokens.filter_by(self._query, hide=self._hide)
        self._draw()


def _portion(view: TimelineView) -> int:
    return chunk_tokens(view.sites) // _PARTS
