"""The time of a step by its parts, which only the model can tell: asked by key, shown until another run begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from textual.widget import Widget

from moetui.routing import MoetuiError
from moetui.routing.analyses import TimeByPart
from moetui.routing.kept import newest_branch
from moetui.routing.timeline import TimelineView
from moetui.session import Analysing, Session
from moetui.tui.ink import Ink
from moetui.tui.keys import key_now
from moetui.tui.panels.element_text import Piece, Row, Rows
from moetui.tui.panels.questions import refusal
from moetui.tui.widgets.sharing import Rows as SharedRows

QUESTION: Final = "time_by_part"
_BAR = 28
_OFFER = "measures attention, router and experts apart"


class PartsMeasured:
    """The answer of one run, and whether one is on its way.

    Args:
        widget: whose workers wait for answers, and which tells of what goes wrong.
        changed: called when there is something else to be shown.
    """

    def __init__(self, widget: Widget, changed: Callable[[], None]) -> None:
        self._widget, self._changed = widget, changed
        self._answer: TimeByPart | None = None
        self._branch: int | None = None
        self._waiting: Future[Any] | None = None

    def ask(self, session: Session, view: TimelineView) -> None:
        """Measure the newest run, once more if that was done."""
        branch = newest_branch(view)
        if self._waiting is not None or branch is None or not isinstance(session, Analysing):
            return
        try:
            self._waiting = session.analyze(QUESTION, branch=branch)
        except MoetuiError as error:
            self._refused(error)
            return
        self._widget.run_worker(self._answered(branch, self._waiting), group="parts", exclusive=True)
        self._changed()

    def rows(self, view: TimelineView, ink: Ink, width: int) -> Rows:
        """What is known, or what could be."""
        if self._waiting is not None:
            return [Row(None, (Piece("measuring: the last tokens pass through the model once more", "dim"),)), Row()]
        found = self._of(view)
        if found is None:
            key = key_now(self._widget.app, "profiler.parts", "m")
            return [Row(None, (Piece(f"{key} {_OFFER}", "dim"),)), Row()]
        label = max(len(part) for part in found.totals)
        bar = max(4, min(_BAR, width - label - 18))
        rows: Rows = [
            Row(
                None,
                (
                    Piece(f"{part:<{label}}"),
                    Piece(f"{ms:>7.2f} ms {ms / found.step:>4.0%}  "),
                    Piece(ink.glyphs.bar * max(1, round(ms / found.step * bar)), "bar"),
                ),
            )
            for part, ms in found.totals.items()
        ]
        about = f"of {found.step:.2f} ms ({found.bare:.2f} without clocks) behind {found.context:,} tokens"
        return [*rows, Row(None, (Piece(about, "dim"),)), Row()]

    def shared(self, view: TimelineView) -> SharedRows | None:
        """Every part of every layer; None where it was not measured."""
        found = self._of(view)
        if found is None:
            return None
        rows = [
            ("" if each.layer is None else each.layer, each.part, each.ms, each.ms / found.step) for each in found.parts
        ]
        return [("layer", "part", "ms", "share"), *rows]

    def _of(self, view: TimelineView) -> TimeByPart | None:
        return self._answer if newest_branch(view) == self._branch else None

    async def _answered(self, branch: int, future: Future[Any]) -> None:
        refused: MoetuiError | None = None
        try:
            self._answer, self._branch = await asyncio.wrap_future(future), branch
        except MoetuiError as error:
            refused = error
        finally:
            self._waiting = None
        if refused is not None:
            self._refused(refused)
        self._changed()

    def _refused(self, error: MoetuiError) -> None:
        self._widget.notify(refusal(error), severity="warning", markup=False)
