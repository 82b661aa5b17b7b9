"""What users add: measures, diagnostics, inspectors and pictures, registered by hand or found as entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, TypeVar

from moetui.routing import TimelineView, UsageError
from moetui.routing.diagnostics import Diagnostic

Metric = Callable[[TimelineView], float]
"""A number over the tokens of a view."""

Inspector = Callable[[Any, str], dict[str, Any]]
"""``(module, path)`` → what to show of a module: name → value. Runs in the generating thread, between steps."""

Visualisation = Callable[[TimelineView], Any]
"""A Rich renderable of a view's tokens."""

F = TypeVar("F", bound=Callable[..., Any])

ENTRY_POINTS = "moetui.plugins"


class Plugins:
    """Functions that a session calls besides the built-in ones, and statistics, too, if they are diagnostics.

    Attributes:
        metrics, visualisations: by name; ``metrics`` and ``viz NAME`` in the console show what they give.
        diagnostics: by name; their findings are among the others.
        inspectors: in order of registration; asked about the module that is selected on the Elements tab, and by
            ``inspect PATH`` in the console.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self.diagnostics: dict[str, Diagnostic] = {}
        self.visualisations: dict[str, Visualisation] = {}
        self.inspectors: list[Inspector] = []
        self._called: set[object] = set()

    def metric(self, name: str) -> Callable[[F], F]:
        """Decorator: register a ``Metric``."""
        return _named(self.metrics, "metric", name)

    def diagnostic(self, name: str) -> Callable[[F], F]:
        """Decorator: register a ``Diagnostic``: ``(totals, thresholds) -> findings``."""
        return _named(self.diagnostics, "diagnostic", name)

    def register_viz(self, name: str) -> Callable[[F], F]:
        """Decorator: register a ``Visualisation``."""
        return _named(self.visualisations, "visualisation", name)

    def inspector(self, function: F) -> F:
        """Decorator: register an ``Inspector``."""
        self.inspectors.append(function)
        return function

    def load_entry_points(self, group: str = ENTRY_POINTS) -> list[str]:
        """Call every installed plugin, a function that takes this object and registers what it brings; each once.

        Returns:
            What went wrong, one line a plugin: a broken plugin must not keep the others from working.
        """
        problems = []
        for point in metadata.entry_points(group=group):
            if point in self._called:  # for another screen, or for statistics, of the same debugger
                continue
            self._called.add(point)
            try:
                point.load()(self)
            except Exception as error:  # noqa: BLE001 - foreign code
                problems.append(f"plugin {point.name} does not work: {type(error).__name__}: {error}")
        return problems


def _named(table: dict[str, Any], kind: str, name: str) -> Callable[[F], F]:
    if not name:
        raise UsageError(f"a {kind} needs a name", f"@debugger.{kind}('my_{kind}')")

    def register(function: F) -> F:
        if table.get(name, function) is not function:
            raise UsageError(f"there is a {kind} called {name} already", "choose another name")
        table[name] = function
        return function

    return register
