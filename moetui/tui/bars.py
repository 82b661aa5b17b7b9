"""The tab bar and the key bar."""

from __future__ import annotations

from textual.screen import Screen

from moetui.tui.keys import is_typed
from moetui.tui.lines import LineWidget, Part

# What a newcomer must find on the narrowest screen is dropped last.
_KEPT = {name: rank for rank, name in enumerate(("quit", "help", "prompt", "toggle", "console", "breakpoints"), 1)}
TABS = ("network", "elements", "console", "profiler")


class TabBar(LineWidget):
    """The four tabs; the key of each before its name."""

    DEFAULT_CSS = "TabBar { background: $panel; }"

    def show_tabs(self, current: str) -> None:
        """Mark the current tab."""
        parts = []
        for number, name in enumerate(TABS, 1):
            here = name == current
            parts.append(Part(" "))
            parts.append(Part(f"{number} ", "dim", 1, f"app.tab('{name}')"))
            parts.append(Part(name.capitalize(), "current" if here else "", 0, f"app.tab('{name}')"))
            parts.append(Part("  ", "", 1))
        self.show(parts)


class KeyBar(LineWidget):
    """The keys that do something here, made from the bindings in force; those nearest to the focus come first."""

    DEFAULT_CSS = "KeyBar { dock: bottom; background: $panel; }"

    def on_mount(self) -> None:
        """Follow the focus."""
        self.screen.bindings_updated_signal.subscribe(self, self._show)
        self._show(self.screen)

    def _show(self, screen: Screen[object]) -> None:
        if not self.is_attached or screen is not self.app.screen:
            return
        seen: set[tuple[object, str]] = set()
        parts = [Part(" ")]
        for place, active in enumerate(screen.active_bindings.values(), 1):
            binding = active.binding
            rank = _KEPT.get(binding.id or "", len(_KEPT) + place)
            known = (active.node, binding.action)
            if not binding.show or not binding.description or known in seen or is_typed(screen, binding.key):
                continue
            seen.add(known)
            action = f"app.press('{binding.key}')"
            parts.append(Part(self.app.get_key_display(binding), "key", rank, action))
            parts.append(Part(f" {binding.description}  ", "" if active.enabled else "dim", rank, action))
        self.show(parts)
