"""Questions about one token that only its model can answer: asked by key, answered in the thread that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from textual.widget import Widget

from moetui.routing import MoetuiError, drawable
from moetui.routing.kept import newest_branch
from moetui.routing.timeline import TimelineView
from moetui.session import Analysing, Session
from moetui.tui.widgets.context import Question, Related, attention_related, attribution_related

_SCOPES: dict[Question, tuple[str, str]] = {"attention": ("site", "whole"), "attribution": ("whole", "site")}


def can_ask(session: Session, question: object) -> bool:
    """Whether there is a model that can answer: a recording does not hold it."""
    return isinstance(session, Analysing) and question in session.analyses


def refusal(error: MoetuiError) -> str:
    """What the screen says of a question that was not answered."""
    return drawable(error.message) + (f"\n{drawable(error.hint)}" if error.hint else "")


class Questions:
    """One token's questions; another token's forget them.

    Args:
        widget: whose workers wait for answers, and which tells of what goes wrong.
        changed: called when there is something else to be shown.
    """

    def __init__(self, widget: Widget, changed: Callable[[], None]) -> None:
        self._widget, self._changed = widget, changed
        self._token = -1
        self._under: object = None
        self._answers: dict[Question, Any] = {}
        self._built: dict[tuple[Question, int], Related] = {}
        self._waiting: Future[Any] | None = None
        self._shown: Question | None = None
        self._scope = 0
        self._branch: int | None = None

    @property
    def note(self) -> str:
        """What is being worked out; empty when nothing is."""
        return f"token {self._token}: asking the model" if self._waiting is not None else ""

    def press(self, question: Question, session: Session, token: int | None) -> None:
        """Ask, show the answer in another scope, or hide it again."""
        if token is None or not isinstance(session, Analysing) or not can_ask(session, question):
            return
        under = tuple(session.interventions)
        if (token, under) != (self._token, self._under):
            self._token, self._under, self._shown = token, under, None
            self._answers, self._built = {}, {}
        if question not in self._answers:
            self._ask(question, session, token)
        elif self._shown != question:
            self._shown, self._scope = question, 0
            self._branch = newest_branch(session.timeline.snapshot())
        elif self._scope == 0:
            self._scope = 1
        else:
            self._shown = None
        self._changed()

    def overlay(self, view: TimelineView, site: int) -> Related | None:
        """What the table is to show beside its tokens; nothing once another run writes them."""
        if self._shown is not None and newest_branch(view) != self._branch:
            self._shown = None
        return None if self._shown is None else self._related(self._shown, self._scope, view, site)

    def lines(self, view: TimelineView, token: int | None, site: int) -> tuple[Related, ...]:
        """What the detail of a token is to say, in the scope shown."""
        if token != self._token:
            return ()
        asked: tuple[Question, ...] = ("attention", "attribution")
        return tuple(
            self._related(each, self._scope if each == self._shown else 0, view, site)
            for each in asked
            if each in self._answers
        )

    def _ask(self, question: Question, session: Analysing, token: int) -> None:
        view = session.timeline.snapshot()  # type: ignore[attr-defined]
        columns = view.tokens(token, token + 1)
        if not len(columns.pad):
            return
        try:
            future = session.analyze(
                question,
                branch=int(columns.branch[0]),
                sequence=int(columns.sequence[0]),
                position=int(columns.position[0]),
            )
        except MoetuiError as error:
            self._refused(error)
            return
        self._waiting = future
        self._widget.run_worker(
            self._answered(question, token, newest_branch(view), future), group="questions", exclusive=True
        )

    async def _answered(self, question: Question, token: int, branch: int | None, future: Future[Any]) -> None:
        refused: MoetuiError | None = None
        try:
            answer = await asyncio.wrap_future(future)
        except MoetuiError as error:
            refused = error
        finally:
            if self._waiting is future:
                self._waiting = None
        if refused is not None:
            self._refused(refused)
            return
        if token == self._token:
            self._answers[question] = answer
            self._shown, self._scope = question, 0
            self._branch = branch
        self._changed()

    def _refused(self, error: MoetuiError) -> None:
        self._widget.notify(refusal(error), severity="warning", markup=False)
        self._changed()

    def _related(self, question: Question, scope: int, view: TimelineView, site: int) -> Related:
        of = view.sites[site] if _SCOPES[question][scope] == "site" and site < len(view.sites) else None
        key = question, -1 if of is None else of.index
        if key in self._built:
            return self._built[key]

        def text(number: int) -> str:
            held = view.tokens(number, number + 1).token_id
            return view.text(int(held[0])) if len(held) else ""

        answer = self._answers[question]
        build: Callable[..., Related] = attention_related if question == "attention" else attribution_related
        self._built[key] = build(self._token, answer, text, of)
        return self._built[key]
