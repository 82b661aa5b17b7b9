"""The breakpoints of a live session."""

from __future__ import annotations

from collections.abc import Sequence

from moetui.routing.breakpoints import Breakpoint
from moetui.routing.events import BreakpointHit
from moetui.session.worker import Worker


class Breaking:
    """Implements ``Breakable`` and ``Halting`` for a live session."""

    _worker: Worker

    @property
    def breakpoints(self) -> Sequence[Breakpoint]:
        """All breakpoints and log points, oldest first."""
        return self._worker.breakpoints.all

    @property
    def hit(self) -> BreakpointHit | None:
        """Where the run stands, if it stands at a breakpoint."""
        return self._worker.hit

    def add_breakpoint(
        self, expression: str, *, log_only: bool = False, temporary: bool = False, ignore: int = 0
    ) -> Breakpoint:
        """Add one: after each step its tokens are looked at, and the run pauses before the next one.

        Raises:
            QueryError: the expression does not parse, or names what the model does not have.
            UnsupportedError: it asks for logits that are not captured.
        """
        point = self._worker.breakpoints.add(
            expression, log_only=log_only, temporary=temporary, ignore=ignore, branches=self._branch_numbers
        )
        self._worker.keep_breakpoints()
        return point

    def change_breakpoint(
        self,
        number: int,
        *,
        expression: str | None = None,
        log_only: bool | None = None,
        temporary: bool | None = None,
        ignore: int | None = None,
        enabled: bool | None = None,
    ) -> Breakpoint:
        """Change what is not None of one; its number and its hits so far stay.

        Raises:
            QueryError: the expression does not parse, or names what the model does not have.
            UnsupportedError: it asks for logits that are not captured.
            UsageError: there is none of this number.
        """
        point = self._worker.breakpoints.change(
            number,
            expression=expression,
            log_only=log_only,
            temporary=temporary,
            ignore=ignore,
            enabled=enabled,
            branches=self._branch_numbers,
        )
        self._worker.keep_breakpoints()
        return point

    def remove_breakpoint(self, number: int) -> None:
        """Remove one.

        Raises:
            UsageError: there is none of this number.
        """
        self._worker.breakpoints.remove(number)
        self._worker.keep_breakpoints()

    @property
    def _branch_numbers(self) -> dict[str, int]:
        return {branch.name: branch.id for branch in self._worker.tree.branches}
