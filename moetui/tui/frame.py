"""The bars around the panels, drawn from what the session says of itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from moetui.routing.events import RunState
from moetui.session import Capability, Session
from moetui.tui.keys import key_now
from moetui.tui.lines import LineWidget, Part
from moetui.tui.shell import LEAST_WIDTH
from moetui.tui.status import (
    LEAST_RATE,
    RunFacts,
    current_last,
    fits,
    state_parts,
    title_parts,
    transport_parts,
)
from moetui.tui.ticker import need_of

if TYPE_CHECKING:
    from moetui.routing import TimelineView
    from moetui.tui.shell import Shell
    from moetui.tui.ticker import Ticker

    _Base = Shell
else:
    _Base = object

_TWO_LINES = 20  # rows of a terminal that has room for the keys of a stop on a line of their own
_SOON = 2.5  # s


class Frame(_Base):
    """Mixed into the app: title, transport line of a recording, and the lines of a run that stands."""

    session: Session
    ticker: Ticker
    hint: str
    _limit: int
    _where: list[Part]
    _settling = False

    @property
    def replaying(self) -> bool:
        """Whether a recording plays."""
        return Capability.SEEK in self.session.capabilities

    def paint_bars(self, view: TimelineView | None = None) -> None:
        """Draw them; without a view there is no run to tell of yet."""
        run = RunFacts()
        if view is not None:
            from moetui.tui.run_facts import run_facts  # it brings NumPy, which a first picture does not wait for

            run = run_facts(view, current_last(self.session))
            if self.replaying:
                self.ticker.rate.need = 0.0
            elif self.session.state is RunState.RUNNING:
                self.ticker.rate.need = need_of(run.rate, len(view.sites))
        line = self.line_facts()
        left, right = title_parts(self.session, run, line, self._limit, ascii_only=self.look.ascii)
        if line.kilobytes >= LEAST_RATE and not self._settling:
            self._settling = True  # a rate is true for a moment only: look again when nothing else happens
            self.set_timer(_SOON, self._settle)
        self.query_one("#title", LineWidget).show(left, right)
        if self.replaying:
            self._paint_transport()
        else:
            self._paint_state()

    def _paint_state(self) -> None:
        state, keys = self.query_one("#state", LineWidget), self.query_one("#state-keys", LineWidget)
        stands = self.session.state in (RunState.PAUSED, RunState.FAILED) and self.session.info is not None
        state.display = stands
        keys.display = False
        if stands:
            left, right = state_parts(
                self.session, self._where, partial(key_now, self), ascii_only=self.look.ascii, hint=self.hint
            )
            if right and self.size.height >= _TWO_LINES and not fits(left, right, self.size.width):
                count = left.pop() if self._where else Part("")
                state.show(left)
                keys.show([Part(" " * 9, "", 1), count, Part("  ", "", 1), *right])
                keys.display = True
            else:
                state.show(left, right)

    def _paint_transport(self) -> None:
        playback = self.session.playback
        if playback is not None:
            playing = self.session.state is RunState.RUNNING
            width = max(LEAST_WIDTH, self.size.width)
            parts = transport_parts(playback, playing, width, ascii_only=self.look.ascii)
            self.query_one("#transport", LineWidget).show(parts)

    def _settle(self) -> None:
        self._settling = False
        self.ticker.mark()
