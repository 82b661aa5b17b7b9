"""Help made from the bindings in force, so that it cannot be wrong about a key."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from moetui.tui.lines import styles_of


class HelpScreen(ModalScreen[None]):
    """The keys, grouped by what they belong to: the widget with the focus first, the app last."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,f1,question_mark", "dismiss", "close")]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"help--key", "help--title", "help--dim"}
    DEFAULT_CSS = """
    HelpScreen {
        align: center middle;
        background: $background 60%;
        & > #help {
            width: 90%; max-width: 84; height: auto; max-height: 90%;
            background: $surface; border: round $border; border-title-color: $accent; padding: 0 1;
        }
        & #help-list { height: auto; max-height: 100%; }
        & Static { width: 1fr; height: auto; }
        & .help--key { color: $accent; text-style: bold; }
        & .help--title { text-style: bold; }
        & .help--dim { color: $foreground-muted; }
    }
    """

    def __init__(self, behind: Screen[Any]) -> None:
        super().__init__()
        self._groups = _groups(behind)

    def compose(self) -> ComposeResult:
        """The table in a box."""
        with Vertical(id="help") as box:
            box.border_title = "keys"
            with VerticalScroll(id="help-list"):
                yield Static(id="help-text")

    def on_mount(self) -> None:
        """Fill in the table, now that styles are known."""
        self.query_one("#help-text", Static).update(self._table())
        self.query_one("#help-list").focus()

    def _table(self) -> Table:
        style = styles_of(self, "help")
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", min_width=9)
        table.add_column(ratio=1)
        for number, (title, rows) in enumerate(self._groups):
            if number:
                table.add_row()
            table.add_row("", Text(title, style("title")))
            for keys, text, enabled in rows:
                table.add_row(Text(keys, style("key")), Text(text, "" if enabled else style("dim")))
        return table


def _groups(screen: Screen[Any]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """Title and rows (keys, what they do, whether they do it now) of every node with keys."""
    app = screen.app
    nodes: dict[DOMNode, dict[str, tuple[list[str], str, bool]]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        text = binding.tooltip or binding.description
        if not text or binding.system:
            continue
        rows = nodes.setdefault(active.node, {})
        keys, _, _ = rows.setdefault(binding.action, ([], text, active.enabled))
        shown = app.get_key_display(binding)
        if shown not in keys:
            keys.append(shown)
    return [
        (_title(node), [(" ".join(keys), text, on) for keys, text, on in rows.values()]) for node, rows in nodes.items()
    ]


def _title(node: DOMNode) -> str:
    if node is node.app:
        return "everywhere"
    named = getattr(node, "HELP_TITLE", None) or node.BINDING_GROUP_TITLE
    return str(named or " ".join(re.findall("[A-Z][a-z]*", type(node).__name__)).lower().removesuffix(" panel"))
