"""The interventions in force on a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moetui.routing.interventions import Intervention

if TYPE_CHECKING:
    from moetui.engine import Capture
    from moetui.engine.interventions import Plan


class InterventionSet:
    """A short list that acts on the model: change it at any time, and it holds from the next site passed on.

    Args:
        capture: where routing functions are put.
        on_change: called after each change, in the thread that made it.
    """

    def __init__(self, capture: Capture, on_change: Callable[[], None]) -> None:
        self._capture, self._on_change = capture, on_change
        self._current: tuple[Intervention, ...] = ()
        self._plan: Plan | None = None
        self._recordings: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Intervention]:
        return iter(self._current)

    def __len__(self) -> int:
        return len(self._current)

    @property
    def current(self) -> tuple[Intervention, ...]:
        """Those in force, in order of application."""
        return self._current

    @property
    def rules(self) -> dict[str, str]:
        """Site name → how the weights of a changed choice are found there; filled as tokens pass."""
        return {} if self._plan is None else {name: str(rule) for name, rule in self._plan.rules.items()}

    def open_recordings(self, recordings: Mapping[str, Any]) -> None:
        """Make recordings known by the names that ``ReplayRouting.source`` uses (see ``recorded_routing``)."""
        self._recordings.update(recordings)

    def prepare(self, interventions: Sequence[Intervention]) -> Plan:
        """Check interventions and make them ready, without putting them in force; any thread may.

        Raises:
            UsageError: an expert, layer, site, number or recording that there is not.
            UnsupportedError: a site that cannot do it; the message says why.
        """
        from moetui.engine.interventions import plan

        return plan(tuple(interventions), lambda: self._capture.handles, self._recordings)

    def put(self, interventions: Sequence[Intervention], prepared: Plan) -> None:
        """Put what ``prepare`` made ready in force, in the place of all before."""
        self._current, self._plan = tuple(interventions), prepared
        self._capture.set_functions(prepared.functions)
        self._on_change()

    def set(self, interventions: Sequence[Intervention]) -> None:
        """Replace all interventions. Raises what ``prepare`` does; nothing has changed then."""
        self.put(interventions, self.prepare(interventions))

    def add(self, *interventions: Intervention) -> None:
        """Append interventions. Raises what ``prepare`` does; nothing has changed then."""
        self.set((*self._current, *interventions))

    def clear(self) -> None:
        """Let the model route by itself again."""
        self.set(())
