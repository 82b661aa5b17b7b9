"""Breakpoints on a model: looked at after each step, in the thread that runs the model, before the next step begins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moetui.engine.options import CaptureOptions
from moetui.routing import MoetuiError, Site, TimelineView, UnsupportedError, UsageError, drawable
from moetui.routing.breakpoints import Breakpoint
from moetui.routing.events import BreakpointHit, Event, Notice
from moetui.routing.given import shown, whole
from moetui.routing.query import FIELDS, Query, match_all, parse
from moetui.routing.timeline import TimelineSource

if TYPE_CHECKING:
    from moetui.engine import Capture
    from moetui.engine.glance import Glance

_LOGGED = 20  # hits of one log point that a step tells of; all are counted

_NEED_LOGITS = frozenset({"entropy", "margin", "mean_entropy", "mean_margin"})
_OF_A_SESSION = frozenset({"flip", "branch"})
_MEANS = frozenset({"conf", "mean_entropy", "mean_margin"})
_AT_A_GLANCE = frozenset(FIELDS) - {"flip", "index", "load_cv", "logp", "pad", "prob"}  # what a ``Glance`` knows
_NEED_CANDIDATES = frozenset({"logp", "prob"})

Action = Callable[[BreakpointHit], None]
"""What to do at a hit; in the thread that runs the model, right behind the step. What it raises ends that call of the
model."""


@dataclass(frozen=True, slots=True)
class _Point:
    shown: Breakpoint
    query: Query
    asks: frozenset[str]
    action: Action | None = None


class BreakpointSet:
    """Conditions that each step's tokens are held against. Any thread may change them, and none waits for a look.

    A model that runs in a session pauses at a hit. One that a user's own code runs calls the breakpoint's ``action``,
    or else ``on_hit``; the event of the hit is told in every case. Without an enabled breakpoint a step costs nothing.

    Args:
        options: what is captured, and so what can be asked for, until there is a capture.

    Attributes:
        on_hit: called at hits of breakpoints that have no action of their own; log points only tell.
    """

    def __init__(self, options: CaptureOptions | None = None) -> None:
        self._options = options or CaptureOptions()
        self._lock = threading.Lock()
        self._points: dict[int, _Point] = {}  # replaced as a whole, so that readers need no lock
        self._last = 0
        self._capture: Capture | None = None
        self._timeline: TimelineSource | None = None
        self._tell: Callable[[Event], None] | None = None
        self._hit: BreakpointHit | None = None
        self._on_hit: Action | None = None

    def __iter__(self) -> Iterator[Breakpoint]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self._points)

    def __repr__(self) -> str:
        shown = [
            f"{point.id} {drawable(point.expression)}, {'hits ' + str(point.hits) if point.enabled else 'off'}"
            for point in self.all
        ]
        return f"<breakpoints: {'; '.join(shown) or 'none'}>"

    @property
    def on_hit(self) -> Action | None:
        """See above."""
        return self._on_hit

    @on_hit.setter
    def on_hit(self, action: Action | None) -> None:
        _check_action(action)
        self._on_hit = action

    @property
    def all(self) -> tuple[Breakpoint, ...]:
        """All of them, oldest first."""
        return tuple(point.shown for point in self._points.values())

    @property
    def lasting(self) -> tuple[Breakpoint, ...]:
        """Those that mean the same in another session: not gone after a hit, and about no branch by its number."""
        points = self._points.values()
        return tuple(
            each.shown for each in points if not each.shown.temporary and not each.query.fields & _OF_A_SESSION
        )

    def bind(self, capture: Capture, timeline: TimelineSource, tell: Callable[[Event], None]) -> None:
        """Look at the steps of this capture, which ``timeline`` gets; ``tell`` is told of hits."""
        self._capture, self._timeline, self._tell = capture, timeline, tell
        for point in self.all:  # set while nothing was known of the model
            try:
                self.change(point.id, expression=point.expression)
            except MoetuiError as error:
                self._switch_off(point.id, error)
        self._arm()

    def check_again(self) -> None:
        """Other things are captured now: switch off those that ask for what no longer is, and say so."""
        for point in self._enabled:
            try:
                self._check(point.query)
            except UnsupportedError as error:
                self._switch_off(point.shown.id, error)

    def add(
        self,
        expression: str,
        *,
        log_only: bool = False,
        temporary: bool = False,
        ignore: int = 0,
        enabled: bool = True,
        action: Action | None = None,
        branches: Mapping[str, int] | None = None,
    ) -> Breakpoint:
        """Add one; it is looked at from the step on that is under way.

        Args:
            expression: in the query language.
            log_only: tell of its hits and go on.
            temporary: remove it at its first hit.
            ignore: hits that pass before it acts.
            enabled: whether it is looked at.
            action: what to do at a hit, instead of ``on_hit``.
            branches: numbers of branches by name, for ``flip vs NAME``.

        Raises:
            QueryError: the expression does not parse, or names what the model does not have.
            UsageError: it is empty, a number is out of its range, or the action is nothing to call.
            UnsupportedError: it asks for what is not captured; the message says what.
        """
        _check_ignore(ignore)
        _check_action(action)
        query = self._read(expression, branches)
        with self._lock:
            self._last += 1
            shown = Breakpoint(self._last, expression.strip(), log_only, temporary, ignore, enabled)
            self._points = {**self._points, shown.id: _Point(shown, query, query.fields, action)}
        self._arm()
        return shown

    def change(
        self,
        number: int,
        *,
        expression: str | None = None,
        log_only: bool | None = None,
        temporary: bool | None = None,
        ignore: int | None = None,
        enabled: bool | None = None,
        branches: Mapping[str, int] | None = None,
    ) -> Breakpoint:
        """Change what is not None of one; it keeps its number, its hits so far and its action.

        Args:
            ignore: hits that pass from now on before it acts.
            branches: as for ``add``.

        Raises:
            QueryError, UnsupportedError: as for ``add``.
            UsageError: there is none of this number, or as for ``add``.
        """
        query = None if expression is None else self._read(expression, branches)
        if ignore is not None:
            _check_ignore(ignore)
        wanted = {
            "expression": None if expression is None else expression.strip(),
            "log_only": log_only,
            "temporary": temporary,
            "ignore": ignore,
            "enabled": enabled,
        }
        with self._lock:
            point = self._get(number)
            # Of the hits that a step counts meanwhile none is lost: they are taken from what is held now.
            values: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
            changed = replace(point, shown=replace(point.shown, **values))
            if query is not None:
                changed = replace(changed, query=query, asks=query.fields)
            self._points = {**self._points, number: changed}
        self._arm()
        return changed.shown

    def enable(self, number: int, enabled: bool = True) -> None:
        """Switch one on or off.

        Raises:
            UsageError: there is none of this number.
        """
        self.change(number, enabled=enabled)

    def remove(self, number: int) -> None:
        """Remove one.

        Raises:
            UsageError: there is none of this number.
        """
        with self._lock:
            self._get(number)
            self._points = {key: point for key, point in self._points.items() if key != number}
        self._arm()

    def clear(self) -> None:
        """Remove all."""
        with self._lock:
            self._points = {}
        self._arm()

    def take_hit(self) -> BreakpointHit | None:
        """The first hit behind the newest step, if it is to pause there. Asked once."""
        hit, self._hit = self._hit, None
        return hit

    def reason(self, hit: BreakpointHit) -> str:
        """Why to pause, in words: where it hit, what was true there, and how often it was so."""
        sites = self._sites
        place = f" at {sites[hit.site].name}" if 0 <= hit.site < len(sites) else ""
        return f"{hit.expression}   {hit.values}   (token {hit.token}{place}, hit {hit.hits})"

    @property
    def _sites(self) -> Sequence[Site]:
        return () if self._timeline is None else self._timeline.snapshot().sites

    def _read(self, expression: str, branches: Mapping[str, int] | None) -> Query:
        if not isinstance(expression, str) or not expression.strip():
            raise UsageError("a breakpoint needs a condition", "for instance: entropy < 0.3")
        query = parse(expression, branches, self._sites)
        self._check(query)
        coming = [] if branches is None else query.coming_branches(branches)
        if branches is not None and coming:
            there = ", ".join(f"{number} ({name})" for name, number in branches.items()) or "none"
            which = f"branch{'es' if len(coming) > 1 else ''} {', '.join(map(str, coming))}"
            self._say(Notice(f"'{query}' waits for {which}: so far there is {there}", "warning"))
        return query

    def _switch_off(self, number: int, error: MoetuiError) -> None:
        self.change(number, enabled=False)
        self._say(Notice(f"breakpoint {number} is off: {error}", "warning"))

    def _check(self, query: Query) -> None:
        asked, options = query.fields, self._options if self._capture is None else self._capture.options
        if asked & _NEED_LOGITS and not options.logits:
            names = ", ".join(sorted(asked & _NEED_LOGITS))
            raise UnsupportedError(f"{names}: the router logits are not captured", "logits=True; leave out --no-logits")
        if "weight" in asked and not options.weights:
            raise UnsupportedError("weight: the gate weights are not captured", "capture them: weights=True")
        if asked & _NEED_CANDIDATES and not options.candidates:
            names = ", ".join(sorted(asked & _NEED_CANDIDATES))
            raise UnsupportedError(f"{names}: probabilities of tokens are not captured", "capture them: candidates=8")

    def _arm(self) -> None:
        if self._capture is not None:
            active = any(point.shown.enabled for point in self._points.values())
            self._capture.look_first = self._may_hit if active else None
            self._capture.after_step = self._after_step if active else None

    def _may_hit(self, glance: Glance) -> bool:
        """In the generating thread, before a step is recorded: False where no condition holds of it."""
        points = self._enabled
        asked = frozenset[str]().union(*(point.asks for point in points))
        if not asked <= _AT_A_GLANCE:
            return True
        try:
            view = glance.view(scores=bool(asked & _MEANS))
            if view is None:
                return True
            return any(found.any() for found in match_all([point.query for point in points], view, 0, view.end))
        except Exception:  # noqa: BLE001 - told of where the step itself is looked at
            return True

    @property
    def _enabled(self) -> list[_Point]:
        return [point for point in self._points.values() if point.shown.enabled]

    def _after_step(self) -> None:
        """In the generating thread, behind a step."""
        try:
            found = self._look()
        except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
            self.clear()
            self._say(Notice(f"the breakpoints are gone: {type(error).__name__}: {error}", "error"))
            return
        for hit, action in found:
            self._say(hit)
            if hit.log_only:
                continue
            self._hit = self._hit or hit
            act = action or self.on_hit
            if act is not None:
                act(hit)

    def _look(self) -> list[tuple[BreakpointHit, Action | None]]:
        assert self._capture is not None
        assert self._timeline is not None
        self._capture.flush()
        view = self._timeline.snapshot()
        start = _first_of_step(view, self._capture.steps - 1)
        out: list[tuple[BreakpointHit, Action | None]] = []
        points = self._enabled
        for point, found in zip(points, match_all([point.query for point in points], view, start, view.end)):
            matches = start + np.flatnonzero(found)
            if len(matches):
                out += [(hit, point.action) for hit in self._hits(point, view, matches.tolist())]
        return out

    def _hits(self, point: _Point, view: TimelineView, matches: list[int]) -> Iterator[BreakpointHit]:
        shown = point.shown
        passed = min(shown.ignore, len(matches))
        acting = matches[passed:]
        self._count(shown.id, len(matches), passed, gone=shown.temporary and bool(acting))
        told = acting[: _LOGGED if shown.log_only and not shown.temporary else 1]
        for number, token in enumerate(told, start=shown.hits + passed + 1):
            why = point.query.explain(view, token)
            yield BreakpointHit(shown.id, shown.expression, token, why.site, why.reasons, number, shown.log_only)

    def _count(self, number: int, hits: int, passed: int, *, gone: bool) -> None:
        with self._lock:
            point = self._points.get(number)
            if point is None:  # removed meanwhile
                return
            rest = {key: other for key, other in self._points.items() if key != number}
            if gone:
                self._points = rest
            else:
                shown = replace(point.shown, hits=point.shown.hits + hits, ignore=max(0, point.shown.ignore - passed))
                self._points = {**self._points, number: replace(point, shown=shown)}
        if gone:
            self._arm()

    def _say(self, event: Event) -> None:
        if self._tell is not None:
            self._tell(event)

    def _get(self, number: int) -> _Point:
        if number not in self._points:
            known = ", ".join(map(str, self._points)) or "there are none"
            raise UsageError(f"there is no breakpoint {number}", f"breakpoints: {known}")
        return self._points[number]


def _check_ignore(ignore: int) -> None:
    if whole(ignore, "ignore") < 0:
        raise UsageError(f"ignore must not be negative, not {ignore}")


def _check_action(action: object) -> None:
    if action is not None and not callable(action):
        raise UsageError(
            f"{shown(action)} cannot be called at a hit", "a function of the hit: debugger.control.at_breakpoint"
        )


def _first_of_step(view: TimelineView, index: int) -> int:
    """Number of the first token of a step that is among the newest; the view's end if it is not held."""
    steps = view.steps()
    at = len(steps.index)
    while at and steps.index[at - 1] >= index:
        at -= 1
    return int(steps.first_token[at]) if at < len(steps.index) else view.end
