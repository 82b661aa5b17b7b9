"""The search through the lines run before, as ctrl+r starts it."""

from __future__ import annotations

from moetui.console.history import History


class Search:
    """What is searched for, and the line found: the newest that holds it, then ever older ones.

    Args:
        history: the lines.
        draft: what was typed before; shown while nothing is searched for.
    """

    def __init__(self, history: History, draft: str) -> None:
        self._history = history
        self.draft = draft
        self.needle = ""
        self._at: int | None = None
        self.failed = False

    @property
    def line(self) -> str:
        """The line found."""
        return self.draft if self._at is None else self._history.lines[self._at]

    def type(self, text: str) -> None:
        """Search for more; the line found stays where it still holds it."""
        self.needle += text
        self._search(None if self._at is None else self._at + 1)

    def shorten(self) -> None:
        """Search for less, from the newest line on."""
        self.needle = self.needle[:-1]
        self._at, self.failed = None, False
        if self.needle:
            self._search(None)

    def older(self) -> None:
        """The next older line that holds it."""
        if self.needle:
            self._search(self._at)

    def _search(self, before: int | None) -> None:
        found = self._history.search(self.needle, before)
        self.failed = found is None
        if found is not None:
            self._at = found
