"""The app: four tabs over one session. It drains the session's events, and repaints what is visible and dirty."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widget import Widget

from moetui.routing import MoetuiError
from moetui.routing.events import (
    BranchAdded,
    BranchChanged,
    BreakpointHit,
    Event,
    FindingRaised,
    LoadProgress,
    ModelChanged,
    Notice,
    RecordingChanged,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.session import ComingSession, Paced, Session
from moetui.tui.bars import TABS, KeyBar, TabBar
from moetui.tui.controls import RunControls
from moetui.tui.debugging import Debugging
from moetui.tui.frame import Frame
from moetui.tui.keys import KEYS
from moetui.tui.lines import LineWidget, Part
from moetui.tui.loading import LoadingView
from moetui.tui.messages import MarksStops, Panel, Selection, SiteSelected, TokenSelected
from moetui.tui.options import Look, ScreenOptions
from moetui.tui.prompt import PromptLine, on_one_line
from moetui.tui.prompting import Prompting
from moetui.tui.shell import Shell
from moetui.tui.stops import Stops
from moetui.tui.ticker import FASTEST, Rate, Ticker
from moetui.tui.widgets.sharing import Shared, nearest_shared

# tab → where its panel lives: imported after the first paint, built when first shown.
PANELS = {
    "network": ("moetui.tui.panels.network", "NetworkPanel"),
    "elements": ("moetui.tui.panels.elements", "ElementsPanel"),
    "console": ("moetui.tui.panels.console", "ConsolePanel"),
    "profiler": ("moetui.tui.panels.profiler", "ProfilerPanel"),
}
_SLOW_CEILING = 4.0  # Hz
_MEANWHILE = "type a prompt meanwhile: it runs as soon as the model is ready"


class _Unfocused(Screen[Any]):
    """Where nothing has the focus, no part takes it by itself: least of all the line for a prompt."""

    AUTO_FOCUS = ""


class MoetuiApp(Debugging, Prompting, RunControls, Frame, Shell):
    """The screen of one session.

    Args:
        session: live or replayed; opened after the first paint, and made only then if it is a ``ComingSession``.
            Whoever runs the app closes the one that it has at its end.
        options: how to draw.
        look: what the environment allows; found out if not given.
    """

    CSS_PATH = Path(__file__).with_name("app.tcss")  # absolute, so that a subclass elsewhere finds it
    BINDINGS: ClassVar[list[BindingType]] = KEYS
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (100, "-wide")]  # noqa: RUF012 - an instance attribute in the base
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012

    def __init__(self, session: Session, options: ScreenOptions, look: Look | None = None, **kwargs: Any) -> None:
        super().__init__(options, look, **kwargs)
        self.session = session
        self.tab = "network"
        self.selection = Selection()
        self.hint = ""
        self._given, self._script = options.prompt, options.script
        self._refused: MoetuiError | None = None
        self._panels: dict[str, Widget] = {}
        self._mounting = asyncio.Lock()
        self._dirty: set[str] = set(TABS)
        self._limit = session.settings.max_new_tokens
        self._limits: dict[int, int] = {}  # by branch
        self._where: list[Part] = []
        self._stood: str | None = None  # why the run stands still; None while it does not
        self._viewed = False
        self._stops = Stops()
        self.start_log()
        self._reader: asyncio.Task[None] | None = None
        self._painter: asyncio.Task[None] | None = None
        self.ticker = Ticker(
            self._paint,
            Rate(options.fps, _SLOW_CEILING if self.look.slow else FASTEST),
            may_paint=self.pacing.ready,
            round_trip=lambda: self.pacing.round_trip,
            sent=self.sent_bytes,
        )

    @property
    def _enter(self) -> str:
        return "enter" if self.look.ascii else "↵"

    def get_default_screen(self) -> Screen[Any]:
        """The screen under all dialogs."""
        return _Unfocused(id="_default")

    def compose(self) -> ComposeResult:
        """The frame; panels come into ``#body`` when they are first shown."""
        yield LineWidget(id="title")
        yield TabBar()
        yield LineWidget(id="transport") if self.replaying else PromptLine()
        yield LineWidget(id="state")
        yield LineWidget(id="state-keys")
        with Vertical(id="body"):
            yield LoadingView(self.session.name, "" if self.replaying else _MEANWHILE)
        yield KeyBar()
        yield LineWidget(id="too-small")

    def on_mount(self) -> None:
        """Paint the frame first, then begin."""
        self.watch_terminal()
        self.query_one(TabBar).show_tabs(self.tab)
        self.paint_bars()
        if not self.replaying:
            line = self.query_one(PromptLine)
            if self.look.ascii:
                line.plain()
            line.hint("when ready", self._enter)
            if self._given:  # who gave a prompt is not about to type one: a key does what it does while that runs
                self._show_given(line)
            else:
                line.input.focus()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.set_keymap(dict(self.options.keys))
        self.send_differences()
        # Before the model's libraries compete for the interpreter: the panel that will be shown first.
        importlib.import_module(PANELS[self.tab][0])
        if isinstance(self.session, ComingSession):
            self.session = self.session.make()
        self._reader = asyncio.create_task(self._guarded(self._read_events()), name="moetui-events")
        self._painter = asyncio.create_task(self._guarded(self.ticker.run()), name="moetui-ticker")
        self.session.open()
        if self.tab == "console":  # asked for before there was anything to type for
            self.call_later(self._show_tab)

    async def on_unmount(self) -> None:
        """Stop reading and painting."""
        for task in (self._reader, self._painter):
            if task is not None:
                task.cancel()

    # ------------------------------------------------------------------ what the session tells

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a bug in a task of ours ends the app, as one in Textual's tasks does
            self._handle_exception(error)

    async def _read_events(self) -> None:
        async for event in self.session.events():
            if not self.is_running:  # the widgets are going, or gone
                return
            await self._take(event)

    async def _take(self, event: Event) -> None:
        match event:
            case LoadProgress(message, fraction):
                for view in self.query(LoadingView):
                    view.progress(message, fraction)
            case ModelChanged():
                await self._show_model()
            case RunStateChanged(state, reason, hint):
                self._state_changed(state, reason, hint)
                await self._console_follows(state)
            case BranchAdded(branch, settings):
                self._limit = self._limits[branch.id] = settings.max_new_tokens
                if not self.replaying:
                    self.ticker.begin()
            case BranchChanged(number, "switched"):
                self._limit = self._limits.get(number, self._limit)
            case BreakpointHit():
                self.show_hit(event)
            case FindingRaised(finding):
                if finding.severity == "error":  # of others the title bar keeps count
                    self.say(finding.message, finding.suggestion, "error")
            case Notice(message, severity):
                self.say(message, severity="information" if severity == "info" else severity)
            case _:
                pass
        self._dirty.update(TABS)
        self.ticker.mark(soon=not self._streams(event))

    def _streams(self, event: Event) -> bool:
        """Whether this is one of many alike to come: the next live frame shows it in time."""
        match event:
            case RunStateChanged(state):
                return state is RunState.RUNNING
            case StepCaptured():  # the last one may come behind the pause that it led to
                return self.session.state is RunState.RUNNING
            case _:
                return isinstance(event, BranchAdded | RecordingChanged)

    async def _show_model(self) -> None:
        for view in self.query(LoadingView):
            await view.remove()
        if self.tab not in self._panels:  # told again, where more is known of it, it takes no keys from where they go
            await self._show_tab()

    def _state_changed(self, state: RunState, reason: str, hint: str) -> None:
        self.hint = hint
        self._stops.state(state)
        if state is not RunState.RUNNING:
            self.stand_logged()
        moved, self._stood = self._stood not in (None, reason), reason if state is RunState.PAUSED else None
        if moved or state is not RunState.PAUSED:  # where it was taken to without running on, it stands at no hit
            self._where = []
        if state is RunState.FAILED:
            self._typed = ""  # it stands in its line; whether to run it after that is the person's
            loading = self.query(LoadingView)
            if loading:
                loading.first().fail(reason, hint)
                self.call_later(self._show_tab)
                for line in self.query(PromptLine):  # there will be nothing to prompt: keys are to do what is said
                    line.display = False
            else:
                self.say(reason or "the run failed", hint, "error")
        if state is RunState.RUNNING:
            self._refused = None
            self.leave_hit()
        if state is RunState.RUNNING and not self.replaying:
            prompt = self.query_one(PromptLine).input
            if prompt.has_focus and (not prompt.value or prompt.value == on_one_line(self.options.prompt)):
                self._leave_prompt()  # a run that began without being typed here: its keys are meant for the panel
        if state is RunState.FINISHED:
            self.log_run()
        if state in (RunState.READY, RunState.FINISHED) and not self.replaying:
            self.query_one(PromptLine).hint("run", self._enter)
            self._run_pending()
        self.refresh_bindings()

    # ------------------------------------------------------------------ painting

    def touched(self) -> None:
        """Tell the ticker of what a person does."""
        self.ticker.touched()

    def _paint(self) -> None:
        if not self.is_running:
            return
        view = self.session.timeline.snapshot()
        if isinstance(self.session, Paced):
            self.session.pace(1.0 / self.ticker.rate.hz)
        self.live_frame()
        self.paint_bars(view)
        for name in self._visible():
            panel = self._panels.get(name)
            if panel is not None and name in self._dirty:
                self._dirty.discard(name)
                if isinstance(panel, MarksStops):
                    panel.show_stop(self.stop_now(view))
                cast(Panel, panel).refresh_from(view, self.session)
                if not self._viewed and not self.replaying and self.session.info is not None:
                    self._viewed = True
                    self.call_after_refresh(self._run_pending)

    def mark_dirty(self, tab: str) -> None:
        """Let a tab be drawn again at the next tick, if it is visible then."""
        self._dirty.add(tab)
        self.ticker.mark()

    @property
    def settled(self) -> bool:
        """Whether the visible panel shows all there is to show: nothing waits to be drawn, no count goes on."""
        panel = self._panels.get(self.tab)
        return panel is not None and not self.ticker.dirty and bool(getattr(panel, "settled", True))

    def frame_rate(self) -> float:
        """Live frames a second at present."""
        return self.ticker.recent()

    def _visible(self) -> Iterable[str]:
        yield self.tab
        if self.tab != "console" and self.default_screen.has_class("-drawer"):
            yield "console"

    # ------------------------------------------------------------------ tabs and the drawer

    async def action_tab(self, name: str) -> None:
        """Show a tab."""
        if name in TABS and name != self.tab:
            self.tab = name
            self.query_one(TabBar).show_tabs(name)
            await self._show_tab()

    async def action_next_tab(self, by: int) -> None:
        """The tab beside."""
        await self.action_tab(TABS[(TABS.index(self.tab) + by) % len(TABS)])

    async def _show_tab(self) -> None:
        there = self.session.info is not None or (self.tab == "console" and self.console_waits())
        if there:
            await self._ensure(self.tab)
        shown = set(self._visible()) if there else set()
        for name, panel in self._panels.items():
            panel.display = name in shown
        for view in self.query(LoadingView):
            view.display = not there
        self.default_screen.set_class(self.tab == "console", "-console-tab")
        focused = self.default_screen.focused
        prompt_used = focused is not None and focused.id == "prompt"
        if not prompt_used or self.tab == "console":
            self._focus_panel(self.tab if there else "")
        self._dirty.update(shown)
        self.refresh_bindings()
        self.ticker.mark(soon=True)

    async def _ensure(self, name: str) -> None:
        async with self._mounting:  # keys and events both may ask for a panel while it is being built
            if name in self._panels:
                return
            module, class_name = PANELS[name]
            panel: Widget = getattr(importlib.import_module(module), class_name)(id=name)
            # The console stays the last, so that it is a drawer under the others.
            await self.query_one("#body").mount(panel, before=self._panels.get("console"))
            self._panels[name] = panel  # from here on it can be painted
            if not self.is_running:  # left meanwhile: what the panel is made of is going, or gone
                return
            cast(Panel, panel).select(self.selection)
            if name == "console":
                self.open_log()

    def _focus_panel(self, name: str) -> None:
        panel = self._panels.get(name)
        inside = [] if panel is None else [panel] * panel.can_focus + list(panel.query("*").results(Widget))
        target = next((widget for widget in inside if widget.focusable), None)
        self.default_screen.set_focus(target)  # the panel's own: a dialog over it keeps its keys

    async def action_drawer(self) -> None:
        """Open the console under the tab, or close it."""
        if self.session.info is None or self.tab == "console":
            return
        opened = not self.default_screen.has_class("-drawer")
        self.default_screen.set_class(opened, "-drawer")
        if opened:
            await self._ensure("console")
        self._panels["console"].display = opened
        self._focus_panel("console" if opened else self.tab)
        self._dirty.add("console")
        self.ticker.mark(soon=True)

    # ------------------------------------------------------------------ one selection for all

    @on(TokenSelected)
    def _token_selected(self, event: TokenSelected) -> None:
        self.selection = Selection(event.token, self.selection.site, self.selection.expert)
        self._spread_selection(event)

    @on(SiteSelected)
    def _site_selected(self, event: SiteSelected) -> None:
        self.selection = Selection(self.selection.token, event.site, event.expert)
        self._spread_selection(event)

    def _spread_selection(self, event: TokenSelected | SiteSelected | None = None) -> None:
        for panel in self._panels.values():
            cast(Panel, panel).select(self.selection)
        self._dirty.update(TABS)
        self.ticker.mark(soon=True)

    # ------------------------------------------------------------------ the rest of the keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the keys of what the session cannot do; dim those that do nothing now."""
        return False if self.needs_model_in_vain(action) else self.can(action)

    def shared_part(self) -> Shared | None:
        """What the focus is in; with the focus at the prompt, the tab that is shown."""
        return super().shared_part() or nearest_shared(self._panels.get(self.tab))

    def on_resize(self, event: events.Resize) -> None:
        """Say so when the terminal is too small for anything."""
        self.fit_screen(event.size)
        self.ticker.mark(soon=True)

    def failure(self) -> MoetuiError | None:
        """What the command line asked for and did not get: a model, a run of its prompt, a whole recording."""
        from moetui.tui.leaving import shortfall

        return shortfall(self.session, self.hint, self._refused)
