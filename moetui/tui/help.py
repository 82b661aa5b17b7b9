"""Help made from the bindings in force, so that it cannot be wrong about a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

from moetui.tui.keys import is_typed
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
        signs = [(sign, text, True) for sign, text in _signs(behind)]
        if signs:  # before the keys that work everywhere, which are many and known
            self._groups.insert(max(0, len(self._groups) - 1), ("columns and signs", signs))

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


def _signs(screen: Screen[Any]) -> Sequence[tuple[str, str]]:
    """What the columns and signs of the tab that is seen mean."""
    for widget in screen.query("*"):
        signs: Callable[[], Sequence[tuple[str, str]]] | None = getattr(widget, "help_signs", None)
        if signs is not None and widget.display and widget.region:
            return signs()
    return ()


# Textual's own words for what its keys do, where they are too short to be understood.
_PLAINLY = {
    "app.focus_next": "To the next part of the screen",
    "app.focus_previous": "To the part of the screen before",
    "submit": "Run what is typed",
    "command_palette": "Find a command by its name, or by what it does",
}
_SCROLLS = re.compile(r"(scroll|page)_(up|down|left|right|home|end)\Z")


def _groups(screen: Screen[Any]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """Title and rows (keys, what they do, whether they do it now) of every node with keys; the screen's come last."""
    app = screen.app
    nodes: dict[DOMNode, dict[str, tuple[list[str], str, bool]]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        text = _sentence(active.node, binding)
        if not text or binding.system or binding.key.startswith("super+"):  # no terminal sends that
            continue
        if is_typed(screen, binding.key):
            continue
        node = app if active.node is screen and not screen.is_modal else active.node
        if _goes_past(active.node, binding.action):
            found = app._bindings.key_to_bindings.get(binding.key)
            if not found or screen.is_modal:
                continue
            binding, node = found[0], app
            text = _sentence(app, binding)
        rows = nodes.setdefault(node, {})
        keys, _, _ = rows.setdefault(binding.action, ([], text, active.enabled))
        # Not what the key bar shows: one entry there may stand for two keys.
        shown = app.get_key_display(replace(binding, key_display=None))
        if shown not in keys:
            keys.append(shown)
    if app in nodes:
        nodes[app] = nodes.pop(app)
    return [
        (_title(node), [(" ".join(keys), text, on) for keys, text, on in rows.values()]) for node, rows in nodes.items()
    ]


def _goes_past(node: DOMNode, action: str) -> bool:
    """Whether a key for scrolling means something else here, as the widget has nothing to scroll."""
    if not isinstance(node, Widget) or not _SCROLLS.match(action):
        return False
    sideways = action.endswith(("left", "right"))
    return not (node.allow_horizontal_scroll if sideways else node.allow_vertical_scroll)


def _sentence(node: DOMNode, binding: Binding) -> str:
    text = _PLAINLY.get(binding.action) or binding.tooltip
    if not text:
        # Textual writes Its Words So.
        foreign = any(binding in found for found in _bindings_of_textual(node))
        text = binding.description.lower() if foreign else binding.description
    return text[:1].upper() + text[1:]


def _bindings_of_textual(node: DOMNode) -> Iterator[Sequence[object]]:
    return (kind.__dict__.get("BINDINGS", ()) for kind in type(node).__mro__ if kind.__module__.startswith("textual."))


def _title(node: DOMNode) -> str:
    if node is node.app:
        return "everywhere"
    named = getattr(node, "HELP_TITLE", None) or node.BINDING_GROUP_TITLE
    if not named and type(node).__module__.startswith("textual."):
        return "this part"
    return str(named or " ".join(re.findall("[A-Z][a-z]*", type(node).__name__)).lower().removesuffix(" panel"))
