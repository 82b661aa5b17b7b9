"""The debugger's verbs by key: breakpoints, fork, rewind, force, compare; and the console where they are typed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from moetui.routing.events import BreakpointHit, RunState
from moetui.session import Branched, Breakable, Halting, Rewindable, Session
from moetui.tui.keys import key_now
from moetui.tui.lines import Part
from moetui.tui.logged import LoggedHits
from moetui.tui.messages import ConsoleRequested, Selection, Stop
from moetui.tui.status import hit_parts
from moetui.tui.stops import Stops

if TYPE_CHECKING:
    from textual.app import App, SystemCommand
    from textual.screen import Screen
    from textual.widget import Widget

    from moetui.routing import TimelineView
    from moetui.tui.controls import RunControls

    class _Base(RunControls, App[int]):
        tab: str
        _panels: dict[str, Widget]

        async def action_drawer(self) -> None: ...
        async def action_tab(self, name: str) -> None: ...
        def _spread_selection(self) -> None: ...
        def _visible(self) -> Iterable[str]: ...
else:
    _Base = object

_UNWRITTEN = 1000  # lines; as many as the console's log keeps
_LINES_OF_A_RUN = 40
_MOMENT = 1.0  # s in which a key may still be meant for what has just ended


class Debugging(_Base):
    """Mixed into the app; ``session`` and ``selection`` are the app's."""

    session: Session
    selection: Selection
    _where: list[Part]
    _stops: Stops
    _logged: LoggedHits
    _unwritten: deque[str]  # what log points saw before the console was there
    _selected_by_hit: int | None = None

    def start_log(self) -> None:
        """Begin with nothing logged."""
        self._logged, self._unwritten = LoggedHits(), deque(maxlen=_UNWRITTEN)

    async def on_console_input_left(self) -> None:
        """From the console's tab: a terminal may keep the keys that go from tab to tab for itself."""
        await self.action_tab("network")

    def can(self, action: str) -> bool | None:
        """Whether the session can do an action at all, and now."""
        if action == "breakpoints":
            return isinstance(self.session, Breakable)
        if action in ("fork", "rewind") and not isinstance(self.session, Rewindable):
            return False
        if action == "drawer" and self.tab == "console":
            return False
        if action == "compare" and len(self.session.branches) < 2:
            return None
        return super().can(action)

    def show_hit(self, event: BreakpointHit) -> None:
        """Say where a breakpoint stopped the run and select the token, or say what a log point saw."""
        info = self.session.info
        site = info.sites[event.site].name if info is not None and 0 <= event.site < len(info.sites) else ""
        if event.log_only:
            self._log_hit(event, site)
            return
        self._stops.hit(event)
        if self.session.playback is not None and self.session.state is RunState.RUNNING:
            return  # it plays on, and whoever follows it goes on following
        self._where = hit_parts(event, site)
        self.selection = Selection(event.token, event.site if event.site >= 0 else None)
        self._selected_by_hit = event.token
        self._spread_selection()

    def _log_hit(self, event: BreakpointHit, site: str) -> None:
        place = f"token {event.token}" + (f" · {site}" if site else "")
        text = f"{event.expression}: {event.values} at {place}"
        line = self._logged.take(event)
        if line:
            self._write_log([text])
        if line == 1 and "console" not in self._visible():
            self.say(text, "what it sees from here on is in the console's log")

    def stand_logged(self) -> None:
        """The run stands: write down how many hits of log points have no line of their own."""
        self._write_log(self._logged.stood(self.session.breakpoints if isinstance(self.session, Breakable) else ()))

    def log_run(self) -> None:
        """A run is over: write its text into the log, unless a line that waited for it says so itself."""
        session, panel = self.session, self._panels.get("console")
        if session.playback is not None or (panel is not None and getattr(panel, "busy", False)):
            return
        # Not before the first picture, which waits for no array.
        from moetui.console.outcome import outcome
        from moetui.routing.branches import BranchTree

        tree = session.tree if isinstance(session, Branched) else BranchTree(tuple(session.branches))
        branch = None if tree.current is None else tree.find(tree.current)
        if branch is None:
            return
        found = outcome(session, tree, branch)
        lines = found.text.split("\n")
        cut = ["…"] if len(lines) > _LINES_OF_A_RUN else []
        self._write_log([*lines[:_LINES_OF_A_RUN], *cut, found.note])

    def stop_now(self, view: TimelineView) -> Stop | None:
        """Where a live run stands still, if it does."""
        session = self.session
        if session.playback is not None:
            return None
        tree = session.tree if isinstance(session, Branched) else None
        return self._stops.at(view, None if tree is None or tree.current is None else tree.line(tree.current))

    def open_log(self) -> None:
        """The console is there: write into its log what came before."""
        lines, self._unwritten = list(self._unwritten), deque(maxlen=_UNWRITTEN)
        self._write_log(lines)

    def _write_log(self, lines: Iterable[str]) -> None:
        panel: Any = self._panels.get("console")
        if panel is None:
            self._unwritten.extend(lines)
        else:
            for line in lines:
                panel.note(line)

    def leave_hit(self) -> None:
        """The run goes on from where it stopped: follow it again, unless another token was selected there."""
        token, self._selected_by_hit = self._selected_by_hit, None
        if token is not None and token == self.selection.token:
            self.selection = replace(self.selection, token=None)
            self._spread_selection()

    def place(self) -> int:
        """The token that is meant where none is named: the selected one, that of the hit, or the newest."""
        if self.selection.token is not None:
            return self.selection.token
        hit = self.session.hit if isinstance(self.session, Halting) else None
        if hit is not None:
            return hit.token
        from moetui.routing.kept import newest_token  # it brings NumPy, which a first picture does not wait for

        return newest_token(self.session.timeline.snapshot()) or 0

    def action_breakpoints(self) -> None:
        """List the breakpoints, to change them."""
        if isinstance(self.session, Breakable):
            from moetui.tui.breakpoints import BreakpointsScreen

            self.push_screen(BreakpointsScreen(self.session))

    def action_findings(self) -> None:
        """List what the diagnostics found."""
        from moetui.tui.findings import FindingsScreen

        self.push_screen(FindingsScreen(self.session.findings))

    def action_fork(self) -> None:
        """A branch from before the selected token; it waits there where the run is paused."""
        session = self.session
        if isinstance(session, Rewindable):
            token, paused = self.place(), session.state is RunState.PAUSED
            if self.ask(lambda: session.fork(token, paused=paused)):
                on = f"; {key_now(self, 'resume', 'c')} runs it on" if paused else ""
                self.say(f"forked {self._before(token)}{on}")

    def action_rewind(self) -> None:
        """Stand before the selected token."""
        session = self.session
        if isinstance(session, Rewindable):
            token = self.place()
            if self.ask(lambda: session.rewind(token)):
                self.say(f"{self._before(token)}; {key_now(self, 'resume', 'c')} goes on")

    def _before(self, token: int) -> str:
        from moetui.routing.kept import before_token

        return before_token(self.session.timeline.snapshot(), token)

    def action_force(self) -> None:
        """Begin to type which experts to force."""
        site, info = self.selection.site, self.session.info
        layer = f" --layers {info.sites[site].layer}" if info is not None and site is not None else ""
        expert = "" if self.selection.expert is None else f"{self.selection.expert}"
        self.post_message(ConsoleRequested(f"force_expert_selection {expert}{layer}", at=23 + len(expert)))

    def action_compare(self) -> None:
        """Compare the branch with its parent, in the console."""
        self.post_message(ConsoleRequested("compare", run=True))

    def action_interventions(self) -> None:
        """List the interventions in force, in the console."""
        self.post_message(ConsoleRequested("interventions", run=True))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: also the console's commands, which are looked for by name and typed there."""
        from textual.app import SystemCommand

        from moetui.console.commands import registry

        yield from super().get_system_commands(screen)
        for command in registry():
            if not command.why_not(self.session):
                line = f"{command.name} " if command.parameters else command.name
                ask = partial(self.post_message, ConsoleRequested(line))
                yield SystemCommand(command.name, command.doc.summary, ask, discover=False)

    async def on_console_requested(self, event: ConsoleRequested) -> None:
        """Open the console and type a line there, or run it."""
        if self.tab != "console" and not self.default_screen.has_class("-drawer"):
            await self.action_drawer()
        panel: Any = self._panels.get("console")
        if panel is not None and event.line:
            if event.run:
                panel.run_line(event.line)
            else:
                panel.type_in(event.line, event.at)

    def just_ended(self) -> bool:
        """Whether a run or the console's line was over a moment ago."""
        panel: Any = self._panels.get("console")
        since = max(self._stops.since, -math.inf if panel is None else panel.ended)
        return time.monotonic() - since < _MOMENT

    def interrupt_console(self) -> bool:
        """Give up the line that the console runs, if the console is on the screen."""
        panel: Any = self._panels.get("console")
        return panel is not None and bool(panel.display) and bool(panel.interrupt())
