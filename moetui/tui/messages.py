"""What panels and widgets tell the app: one selection, shared by all panels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from textual.message import Message

if TYPE_CHECKING:
    from moetui.routing import TimelineView
    from moetui.session import Session


@dataclass(frozen=True, slots=True)
class Selection:
    """What a person is looking at, in every panel at once.

    Attributes:
        token: timeline number of the token; None follows the newest.
        site: index of the site; None for none in particular.
        expert: expert of that site; None for the router as a whole.
    """

    token: int | None = None
    site: int | None = None
    expert: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a run stands still.

    Attributes:
        token: timeline number of the newest token, or of the one that a breakpoint stopped at.
        site: index of the site that the breakpoint's condition held at; None for none in particular.
        before: the token of the stop before; None if there was none.
    """

    token: int
    site: int | None = None
    before: int | None = None


@dataclass
class TokenSelected(Message):
    """A token was selected by its timeline number; None means "the newest, whichever it is"."""

    token: int | None


@dataclass
class SiteSelected(Message):
    """A site was selected, or one of its experts (None: the router as a whole)."""

    site: int
    expert: int | None = None


@dataclass
class ConsoleRequested(Message):
    """The console is asked for, with ``line`` typed in, the cursor at ``at`` (None: its end), or already run."""

    line: str = ""
    at: int | None = None
    run: bool = False


@runtime_checkable
class MarksStops(Protocol):
    """A panel that marks where a run stands still."""

    def show_stop(self, stop: Stop | None) -> None:
        """Mark this place; None for no place. Called before ``refresh_from``, which draws it."""


class Panel(Protocol):
    """The content of a tab. The app's ticker calls it only when it is visible and dirty.

    A panel posts ``TokenSelected`` and ``SiteSelected``; the app answers all panels with ``select``.
    """

    def refresh_from(self, view: TimelineView, session: Session) -> None:
        """Draw this view; it does not change and must not be kept longer than until the next one."""

    def select(self, selection: Selection) -> None:
        """Show this selection. Posting nothing in answer, or messages would go round in circles."""
