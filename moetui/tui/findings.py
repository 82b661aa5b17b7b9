"""The list of findings: what the diagnostics found, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from moetui.routing import drawable
from moetui.routing.events import Finding
from moetui.tui.lines import styles_of

_ORDER = {"error": 0, "warning": 1, "info": 2}


class FindingsScreen(ModalScreen[None]):
    """What was found so far, the worst first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,exclamation_mark", "dismiss", "close"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"found--{name}" for name in ("error", "warning", "info", "dim", "strong")}
    DEFAULT_CSS = """
    FindingsScreen {
        align: center middle;
        background: $background 60%;
        & > #findings {
            width: 90%; max-width: 100; height: auto; max-height: 90%;
            background: $surface; border: round $border; border-title-color: $accent; padding: 0 1;
        }
        & #findings-list { height: auto; max-height: 100%; }
        & Static { width: 1fr; height: auto; }
        & .found--error { color: $text-error; text-style: bold; }
        & .found--warning { color: $text-warning; text-style: bold; }
        & .found--info { color: $accent; }
        & .found--dim { color: $foreground-muted; }
        & .found--strong { text-style: bold; }
    }
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__()
        self._findings = sorted(findings, key=lambda finding: _ORDER[finding.severity])

    def compose(self) -> ComposeResult:
        """The list in a box."""
        with Vertical(id="findings") as box:
            box.border_title = f"findings · {len(self._findings)}"
            with VerticalScroll(id="findings-list"):
                yield Static(id="findings-text")

    def on_mount(self) -> None:
        """Fill in the list, now that styles are known."""
        self.query_one("#findings-text", Static).update(self._list())
        self.query_one("#findings-list").focus()

    def _list(self) -> Text | Table:
        style = styles_of(self, "found")
        if not self._findings:
            return Text("Nothing found so far.", style("dim"))
        out = Table.grid(padding=(0, 1, 0, 0))
        out.add_column(width=7)
        out.add_column(overflow="fold")
        for number, finding in enumerate(self._findings):
            site = drawable(finding.site or "")
            text = Text("\n" if number else "")
            if site and not finding.message.startswith(f"{finding.site}:"):
                text.append(f"{site}  ", style("strong"))
            text.append(drawable(finding.message))
            if finding.suggestion:
                text.append(f"\n{drawable(finding.suggestion)}", style("dim"))
            out.add_row(Text(("\n" if number else "") + finding.severity, style(finding.severity)), text)
        return out
