"""What a command works with: the session, and what the console itself remembers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moetui.console.history import History
from moetui.console.undo import UndoStack
from moetui.console.waiting import Waiter
from moetui.console.window import EVERY, Window, kept_rows
from moetui.routing import ModelInfo, Site, TimelineView, UnsupportedError, UsageError
from moetui.routing.branches import BranchTree, Line
from moetui.routing.events import Branch, GenerationSettings, RunState
from moetui.routing.query import Query, parse
from moetui.routing.totals import RoutingTotals
from moetui.session import (
    Branched,
    Branching,
    Configurable,
    Halting,
    Layered,
    Recording,
    Session,
    Underway,
    Waitable,
)

if TYPE_CHECKING:
    from moetui.console.registry import Registry

_MOMENT = 0.3  # s


@dataclass(eq=False)
class Context:
    """The one argument that every command has.

    Attributes:
        session: what the commands act on.
        registry: the commands, for ``help``.
        undo: interventions as they were.
        history: lines typed.
        waiter: how a command waits for the model, and is interrupted.
        blocking: ``generate`` and the like return when the run is over: a script.
        ascii: draw with ASCII alone.
        python: what is no command is Python.
        watches: queries whose values ``watch`` shows.
        recording: what ``load`` opened.
        looks_at: number of the branch that commands look at on a session that cannot go there itself.
    """

    session: Session
    registry: Registry
    history: History
    undo: UndoStack = field(default_factory=UndoStack)
    waiter: Waiter = field(default_factory=Waiter)
    blocking: bool = False
    ascii: bool = False
    python: bool = True
    watches: list[Query] = field(default_factory=list)
    recording: Recording | None = None
    looks_at: int | None = None
    _settings: GenerationSettings | None = None

    @property
    def info(self) -> ModelInfo:
        """The model.

        Raises:
            UsageError: it is not loaded yet.
        """
        info = self.session.info
        if info is None:
            raise UsageError("the model is not loaded yet", "wait until it is")
        return info

    @property
    def view(self) -> TimelineView:
        """The tokens held now."""
        return self.session.timeline.snapshot()

    @property
    def settings(self) -> GenerationSettings:
        """Settings of the next run."""
        return self._settings or self.session.settings

    def configure(self, changes: Mapping[str, Any]) -> GenerationSettings:
        """Change settings of the runs to come; where the session has no way to, of those started from this console."""
        settings = replace(self.settings, **changes)
        if isinstance(self.session, Configurable):
            self.session.configure(settings)
        else:
            self._settings = settings
        return settings

    @property
    def tree(self) -> BranchTree:
        """How runs and branches hang together, and where the session stands."""
        session = self.session
        tree = session.tree if isinstance(session, Branched) else BranchTree(tuple(session.branches))
        if self.looks_at is not None and tree.find(self.looks_at) is not None:
            return replace(tree, current=self.looks_at, chosen=True)
        # What a recording's person had gone to is no choice of the one who looks at it.
        return tree if isinstance(session, Branching) else replace(tree, chosen=False)

    @property
    def standing(self) -> Branch:
        """The branch that the session stands on.

        Raises:
            UsageError: nothing has run yet.
        """
        tree = self.tree
        found = None if tree.current is None else tree.find(tree.current)
        if found is None and not tree.branches:
            raise UsageError("nothing has run yet", "generate a prompt first")
        return found or tree.branches[-1]

    @property
    def line(self) -> Line | None:
        """What commands look at that were told of no branch: the one switched to, from its start; None for all."""
        tree = self.tree
        return tree.line(tree.current) if tree.chosen and tree.current is not None else None

    @property
    def newest(self) -> int | None:
        """The newest token that commands look at; None if there is none."""
        return self.counted_back(1)

    def counted_back(self, number: int) -> int | None:
        """The token that is the newest (1), the one before (2), ... of those that commands look at."""
        view, line = self.view, self.line
        if not 0 < number <= view.end - view.first:
            return None
        if line is None and not view.tokens(view.end - number, view.end).pad.any():
            return view.end - number
        rows = np.flatnonzero(kept_rows(view, line))
        return view.first + int(rows[-number]) if 0 < number <= rows.size else None

    def _start_of(self, last: int) -> int:
        """Where the newest tokens begin, so many; where there are fewer, at the first."""
        view = self.view
        found = self.counted_back(last)
        return view.first if found is None else found

    @property
    def place(self) -> int:
        """The token that is meant where none was named: the one at which a breakpoint stopped, or the newest.

        Raises:
            UsageError: there is no token yet.
        """
        hit = self.session.hit if isinstance(self.session, Halting) else None
        newest = self.newest
        if newest is None:
            raise UsageError("no tokens yet", "generate a prompt first")
        return newest if hit is None else hit.token

    @property
    def underway(self) -> Underway | None:
        """The step that the run stands within; None while it does not."""
        return self.session.underway if isinstance(self.session, Layered) else None

    @property
    def branch_names(self) -> dict[str, int]:
        """Branches by name, for queries."""
        return {branch.name: branch.id for branch in self.session.branches}

    def read_query(self, text: str, *, values: bool = False) -> Query:
        """A query as typed; with ``values`` a number may stand alone in it, to be looked at.

        Raises:
            QueryError: it does not parse, or names what this session's model does not have.
        """
        info = self.session.info
        return parse(text, self.branch_names, () if info is None else info.sites, values=values)

    def sites(self, layers: Sequence[int] | None = None, names: Sequence[str] | None = None) -> list[Site]:
        """The sites of these layers and names, all if neither is given.

        Raises:
            UsageError: none is left.
        """
        found = [
            site
            for site in self.info.sites
            if (layers is None or site.layer in layers) and (names is None or site.name in names)
        ]
        if not found:
            raise UsageError("no site lies in both --layers and --sites", "give one of them")
        return found

    def window(self, last: int | None = None, start: int | None = None, stop: int | None = None) -> Window:
        """Tokens to look at.

        Raises:
            UsageError: there are none.
        """
        view = self.view
        if last is not None:
            start = self._start_of(last)
        window = Window(view, start, stop)
        if window.end <= window.first:
            hint = "generate a prompt first" if self.session.playback is None else "let the recording play, or seek"
            if view.end > view.first:
                hint = f"tokens {view.first} to {view.end - 1} are held"
            raise UsageError("no tokens yet" if view.end <= view.first else "no tokens there", hint)
        return window

    def totals(self, window: TimelineView, branch: Branch | None = None, *, entropy: bool = True) -> RoutingTotals:
        """Sums over a window's tokens, padding left out."""
        totals = RoutingTotals(window.sites, entropy=entropy, line=self._looked_at(branch))
        totals.update(window)
        if not totals.tokens.any():
            raise UsageError("no tokens there", "'branches' lists the branches and their tokens")
        return totals

    def rows(self, window: TimelineView, branch: Branch | None = None) -> Any:
        """``[n]`` the window's tokens that are no padding, of one branch's own if one is given."""
        return kept_rows(window, self._looked_at(branch))

    def _looked_at(self, branch: Branch | None) -> Line | None:
        if branch is None:
            return self.line
        return None if branch is EVERY else ((branch.id, None),)

    def result(self, future: Future[Any]) -> Any:
        """Wait for what the generation thread does.

        Raises:
            UnsupportedError: this *is* the generation thread, which would wait for itself.
            MoetuiError: what the work raised.
        """
        return self.waiter.result(future)

    def settle(self) -> None:
        """Give a command that stops or steps a run a moment to do so, that what is said next is true."""
        if self.blocking:
            self.await_run()
        elif isinstance(self.session, Waitable) and not self.waiter.inside(threading.get_ident()):
            self.session.wait(_MOMENT)

    def await_run(self) -> None:
        """Wait until the run is over or paused, and all its tokens are held; no effect where nothing blocks.

        Raises:
            UsageError: the run failed.
        """
        if not self.blocking:
            return
        if self.waiter.inside(threading.get_ident()):
            raise UnsupportedError(
                "a run cannot be awaited from within the model's own thread", "call it on its own line"
            )
        if isinstance(self.session, Waitable):
            self.waiter.until(self.session.wait)
            self.session.flush()
        else:
            self.waiter.until(lambda _: self.session.state not in (RunState.LOADING, RunState.RUNNING))
        if self.session.state is RunState.FAILED:
            raise UsageError(f"the run failed: {self.session.reason}")
