"""A small dialog: go to a place of the recording, by a token's number or by its time."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from moetui.routing import UsageError
from moetui.session.places import read_place


class SeekScreen(ModalScreen[int | float | None]):
    """Asks for a place; the answer is a token's number, seconds as a float, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "close")]
    DEFAULT_CSS = """
    SeekScreen {
        align: center middle;
        background: $background 60%;
        & > #seek {
            width: 36; height: 3; background: $surface; border: round $border; border-title-color: $accent;
            padding: 0 1;
        }
        & Input { background: transparent; }
    }
    """

    def __init__(self, end: int) -> None:
        super().__init__()
        self._end = end

    def compose(self) -> ComposeResult:
        """One input in a box."""
        with Vertical(id="seek") as box:
            box.border_title = f"go to token 0–{max(0, self._end - 1):,}"
            field = Input(restrict=r"[0-9.:ms]*", placeholder="31, 12.5s, 1:05", compact=True, id="seek-input")
            field.cursor_blink = False
            yield field

    @on(Input.Submitted)
    def _go(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            place = read_place(event.value)
        except UsageError as error:
            if event.value:
                self.app.notify(f"{error.message}\n{error.hint}", severity="warning", markup=False)
            place = None
        self.dismiss(min(place, max(0, self._end - 1)) if isinstance(place, int) else place)
