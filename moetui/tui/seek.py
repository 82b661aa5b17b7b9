"""A small dialog: go to a token of the recording by its number."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input


class SeekScreen(ModalScreen[int | None]):
    """Asks for a token's number; the answer is it, or None."""

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
            field = Input(type="integer", compact=True, id="seek-input")
            field.cursor_blink = False
            yield field

    @on(Input.Submitted)
    def _go(self, event: Input.Submitted) -> None:
        event.stop()
        text = event.value.strip()
        self.dismiss(min(max(int(text), 0), max(0, self._end - 1)) if text.lstrip("+-").isdigit() else None)
