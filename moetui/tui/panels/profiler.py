"""The Profiler tab: rates, times by layer and part, experts' tokens, memory, and what the debugger itself costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from rich.style import Style
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from moetui.routing import TimelineView
from moetui.session import Session
from moetui.tui.ink import ink_of
from moetui.tui.lines import styles_of
from moetui.tui.messages import Selection, Stop
from moetui.tui.panels.element_text import Rows, rows_text
from moetui.tui.panels.profile_facts import ExpertLoads, expert_loads, step_facts, stretches
from moetui.tui.panels.profile_parts import QUESTION, PartsMeasured
from moetui.tui.panels.profile_sharing import cost_shared, loads_shared, rate_shared, stretch_shared
from moetui.tui.panels.profile_text import (
    cost_rows,
    expert_rows,
    memory_held,
    memory_rows,
    nothing_rows,
    rate_rows,
    stretch_rows,
)
from moetui.tui.panels.questions import can_ask
from moetui.tui.run_facts import run_facts
from moetui.tui.status import LineFacts, current_last
from moetui.tui.widgets.box import Box, Facts
from moetui.tui.widgets.sharing import Rows as SharedRows
from moetui.tui.widgets.sharing import Shared

_LABEL = 11  # cells
_SLOWLY = 2.0  # s between two counts of what changes slowly and costs much


class ProfilerPanel(Vertical):
    """Four boxes and a chart."""

    HELP_TITLE = "profiler"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "parts", "measure", id="profiler.parts", tooltip="Measure attention, router and experts apart"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"prof--{name}" for name in ("label", "dim", "strong", "bar", "bad")}
    DEFAULT_CSS = """
    ProfilerPanel {
        height: 1fr;
        & .box { border: round $border-blurred; border-title-color: $foreground-muted; padding: 0 1; }
        & .box:focus { border: round $border; border-title-color: $accent; }
        & .box > Static { width: 1fr; height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
        & > #profile-top { height: 13; }
        & > #profile-bottom { height: 1fr; }
        & #profile-rate { width: 1fr; }
        & #profile-chart { width: 1fr; height: 1fr; }
        & #profile-self { width: 44; }
        & #profile-layers { width: 1fr; }
        & #profile-experts { width: 1fr; }
        & .prof--label { color: $foreground-muted; }
        & .prof--dim { color: $foreground-muted; }
        & .prof--strong { text-style: bold; }
        & .prof--bar { color: $accent; }
        & .prof--bad { color: $text-warning; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._loads: ExpertLoads | None = None
        self._counted = -_SLOWLY
        self._counted_end = -1
        self._plotted = -_SLOWLY
        self._step: int | None = None
        self._selection = Selection()
        self._stop: Stop | None = None
        self._parts = PartsMeasured(self, self._again)
        self._view: TimelineView | None = None
        self._session: Session | None = None

    def compose(self) -> ComposeResult:
        """The boxes; the chart comes with the first data."""
        with Horizontal(id="profile-top"):
            with Box(id="profile-rate", classes="box") as rate:
                rate.border_title = "tokens a second"
                yield Facts(id="profile-rate-text")
            with Box(id="profile-self", classes="box") as own:
                own.border_title = "memory · the debugger itself"
                yield Facts(id="profile-self-text")
        with Horizontal(id="profile-bottom"):
            with Box(id="profile-layers", classes="box"):
                yield Facts(id="profile-layers-text")
            with Box(id="profile-experts", classes="box"):
                yield Facts(id="profile-experts-text")

    def shared(self) -> Shared | None:
        """The rates: what is handed on where no box has the focus."""
        return self.query_one("#profile-rate", Box).shared()

    def select(self, selection: Selection) -> None:
        """Show the times of the selected token's step."""
        self._selection = selection

    def show_stop(self, stop: Stop | None) -> None:
        """Mark the layer at which the run stands."""
        self._stop = stop

    def refresh_from(self, view: TimelineView, session: Session) -> None:
        """Draw this view."""
        known, self._view, self._session = self._session, view, session
        if known is not session:
            self.refresh_bindings()
        now = time.monotonic()
        ink = ink_of(self)
        steps = view.steps()
        facts = step_facts(steps)
        replayed = session.playback is not None
        nothing = nothing_rows(view.end - view.first, replayed=replayed)
        run = run_facts(view, current_last(session))
        rates = rate_rows(facts, run, ink, self._room("profile-rate") - _LABEL) or nothing
        self._fill("profile-rate", rates, lambda: rate_shared(facts))
        rss, line, costs = memory_held(), self._line(), dict(session.costs)
        self._fill(
            "profile-self",
            [*memory_rows(rss, session.info), *cost_rows(costs, line)],
            lambda: cost_shared(rss, session.info, costs, line),
        )
        step = self._selected_step(view)
        parts, number = stretches(steps, view.sites, step)
        about = f" · step {step}" if step is not None else f" · mean of {number} steps" if number else ""
        self.query_one("#profile-layers").border_title = f"host time by layer{about}"
        site = None if self._stop is None else self._stop.site
        stopped = "" if site is None or site >= len(view.sites) else view.sites[site].name
        room = self._room("profile-layers")
        shown = stretch_rows(parts, ink, room, stopped) or nothing
        if parts and can_ask(session, QUESTION):
            shown = [*self._parts.rows(view, ink, room), *shown]
        self._fill("profile-layers", shown, lambda: self._parts.shared(view) or stretch_shared(parts))
        if view.end != self._counted_end and now - self._counted > _SLOWLY:
            self._loads, self._counted, self._counted_end = expert_loads(view), now, view.end
            self.set_timer(_SLOWLY, self._again)
        about = "" if self._loads is None else f" · last {self._loads.tokens:,} · × uniform"
        self.query_one("#profile-experts").border_title = f"busiest experts{about}"
        loads, sites = self._loads, view.sites
        shown = expert_rows(loads, sites, ink, self._room("profile-experts")) or nothing_rows(0, replayed=replayed)
        self._fill("profile-experts", shown, lambda: loads_shared(loads, sites))
        if facts.number > 1 and now - self._plotted > _SLOWLY:
            self._plotted = now
            self._plot([float(rate) for rate in facts.rate])

    def action_parts(self) -> None:
        """Ask the model where a step's time goes."""
        if self._session is not None and self._view is not None:
            self._parts.ask(self._session, self._view)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the key where there is no model to ask."""
        if action == "parts":
            return self._session is not None and can_ask(self._session, QUESTION)
        return super().check_action(action, parameters)

    def on_resize(self) -> None:
        """Bars as long as there is room for."""
        self._again()

    def _again(self) -> None:
        # The last tokens of a run may have come right after a count: look once more when it may be done again.
        mark = getattr(self.app, "mark_dirty", None)
        if mark is not None:
            mark("profiler")

    def _line(self) -> LineFacts:
        facts = getattr(self.app, "line_facts", None)
        return facts() if facts is not None else LineFacts()

    def _selected_step(self, view: TimelineView) -> int | None:
        token = self._selection.token
        if token is None or not view.first <= token < view.end:
            return None
        return int(view.tokens(token, token + 1).step[0])

    def _fill(self, name: str, rows: Rows, shared: Callable[[], SharedRows]) -> None:
        style = styles_of(self, "prof")
        styles: dict[str, Style] = {name: style(name) for name in ("label", "dim", "strong", "bar", "bad")}
        box = self.query_one(f"#{name}", Box)
        text = rows_text(rows, styles, ink_of(self), label=_LABEL, width=box.room)
        self.query_one(f"#{name}-text", Facts).say(text)
        box.offer((f"moetui-{name}", shared))

    def _room(self, name: str) -> int:
        return self.query_one(f"#{name}", Box).room

    def _plot(self, rates: list[float]) -> None:
        from moetui.tui.panels.rate_chart import RateChart

        found = self.query(RateChart)
        chart = found.first() if found else RateChart(id="profile-chart")
        chart_style = self.get_component_rich_style("prof--bar", partial=True)
        if not found:
            self.query_one("#profile-rate").mount(chart)
        chart.draw(rates, chart_style)
