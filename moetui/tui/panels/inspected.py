"""What users' inspectors say of the module that is selected, asked between two steps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from textual.app import App

from moetui.console.inspecting import Told, inspection
from moetui.routing import MoetuiError
from moetui.session import Capability, Pluggable, Session


class Inspected:
    """The answers for one module.

    One question is under way at a time, so that none is asked about what is only passed on the way through the tree.

    Args:
        arrived: called in the app's thread when there is an answer.
    """

    def __init__(self, arrived: Callable[[], None]) -> None:
        self._arrived = arrived
        self._turn = 0
        self._wanted: tuple[str, int] | None = None
        self._path = ""  # of what is told
        self._told: Told | str | None = None
        self._under_way = False

    def forget(self) -> None:
        """Ask anew when it is looked at again: the model has gone on. What was told is shown until then."""
        self._turn += 1

    def of(self, session: Session, path: str, app: App[None]) -> Told | str | None:
        """What is known of a module, or why that is not; None while it is asked. Empty where nobody has added any."""
        if not isinstance(session, Pluggable) or Capability.INSPECT not in session.capabilities:
            return {}
        if not session.plugins.inspectors:
            return {}
        if path != self._path:
            self._path, self._told = path, None
        if self._wanted != (path, self._turn):
            self._wanted = path, self._turn
            if not self._under_way:
                self._ask(session, inspection(session, path), app)
        return self._told

    def _ask(self, session: Session, question: Callable[[Any, Any], Told], app: App[None]) -> None:
        asked = self._wanted

        def take(future: Future[Told]) -> None:
            self._under_way = False
            if future.cancelled():  # the session is closing
                return
            if asked == self._wanted:
                error = future.exception()
                self._told = future.result() if error is None else _words(error)
            else:
                self._wanted = None  # another was selected meanwhile: looking at it asks
            self._arrived()

        try:
            future = session.call(question)
        except MoetuiError as error:
            self._told = error.message
            return
        self._under_way = True
        future.add_done_callback(lambda done: app.call_later(take, done))


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, MoetuiError) else f"{type(error).__name__}: {error}"
