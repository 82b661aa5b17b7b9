"""The interventions in force on a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moetui.routing import Site, TraceError, UnsupportedError, UsageError, drawable
from moetui.routing.branches import BranchTree
from moetui.routing.events import Finding
from moetui.routing.interventions import Intervention, ReplayRouting, RouterTemperature, as_dict, checked, dict_words

if TYPE_CHECKING:
    from moetui.engine import Capture
    from moetui.engine.interventions import Plan, Recorded


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
        self._repeated: dict[str, frozenset[str]] = {}
        self._given: set[str] = set()

    def __iter__(self) -> Iterator[Intervention]:
        return iter(self._current)

    def __len__(self) -> int:
        return len(self._current)

    def __repr__(self) -> str:
        shown = "; ".join(drawable(dict_words(as_dict(item))) for item in self._current)
        return f"<interventions: {shown or 'none'}>"

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
        self._given.update(recordings)

    def prepare(self, interventions: Sequence[Intervention]) -> Plan:
        """Check interventions and make them ready, without putting them in force; any thread may.

        Recordings that ``ReplayRouting`` names and nobody made known are opened: the run that each ends on.

        Raises:
            UsageError: an expert, layer, site or number that there is not, a value of another kind than is asked
                for, or a recording of another model.
            TraceError: a recording that cannot be read.
            UnsupportedError: a site that cannot do it; the message says why.
        """
        from moetui.engine.interventions import plan

        self._open(interventions)
        for item in interventions:
            if isinstance(item, ReplayRouting):
                self._refuse_repeated(item)
        return plan(tuple(interventions), lambda: self._capture.handles, self._recordings)

    def _open(self, interventions: Sequence[Intervention]) -> None:
        sources = {item.source for item in interventions if isinstance(item, ReplayRouting)}
        held = {item.source for item in self._current if isinstance(item, ReplayRouting)} | self._given
        for source in sorted(sources - held):  # anew each time: the file may be another by now
            try:
                found = _read_routing(source, self._capture.sites, self._capture.report)
                self._recordings[source], self._repeated[source] = found
            except TraceError:
                if source not in self._recordings:  # it was there before: ``undo`` needs it no more
                    raise

    def _refuse_repeated(self, item: ReplayRouting) -> None:
        """Of a site that a pass goes through several times a step has the last routing, and all would get that."""
        repeated = self._capture.repeated | self._repeated.get(item.source, frozenset())
        sites = [site for site in self._capture.sites if item.scope.holds_site(site)]
        for site in sites:
            if site.name in repeated:
                others = [other.name for other in sites if other.name not in repeated]
                reason = "a pass goes through it several times, and a recording has its last routing only"
                hint = f"leave it out: --sites {','.join(others)}" if others else ""
                raise UnsupportedError(f"{item.name} is not possible at {site.name}: {reason}", hint)

    def put(self, interventions: Sequence[Intervention], prepared: Plan) -> None:
        """Put what ``prepare`` made ready in force, in the place of all before."""
        self._current, self._plan = tuple(interventions), prepared
        self._capture.set_functions(prepared.functions)
        self._on_change()

    def set(self, interventions: Sequence[Intervention]) -> None:
        """Replace all interventions. Raises what ``prepare`` does; nothing has changed then."""
        wanted = checked(interventions)
        self.put(wanted, self.prepare(wanted))

    def add(self, *interventions: Intervention) -> None:
        """Append interventions. Raises what ``prepare`` does; nothing has changed then."""
        self.set((*self._current, *interventions))

    def clear(self) -> None:
        """Let the model route by itself again."""
        self.set(())


def unheeded(interventions: Sequence[Intervention], sites: Sequence[Site], rules: Mapping[str, str]) -> Finding | None:
    """A finding that says where a temperature changes no weight, because nothing tells how they follow from the logits.

    Args:
        rules: see ``InterventionSet.rules``.
    """
    warm = [item.scope for item in interventions if isinstance(item, RouterTemperature)]
    names = [
        site.name
        for site in sites
        if rules.get(site.name) == "keep_mass" and any(scope.holds_site(site) for scope in warm)
    ]
    if not names:
        return None
    others = f" and {len(names) - 1} other site{'s' * (len(names) > 2)}" if names[1:] else ""
    where = f"at {names[0]}{others}"
    message = f"temperature leaves the weights {where} as they are: how they follow from the logits is not known"
    return Finding("temperature_unheeded", "warning", message, "noise and boost act on what is chosen there")


def _read_routing(
    path: str, sites: Sequence[Site], on_finding: Callable[[Finding], None]
) -> tuple[Recorded, frozenset[str]]:
    """What a file's tokens did, and the names of the sites of which it has the last routing of several only."""
    from moetui.engine.interventions import recorded_routing
    from moetui.trace import open_trace

    with open_trace(path) as trace:
        here = {site.name: site.num_experts for site in sites}
        shared = [site for site in trace.info.sites if site.name in here]
        if not shared or any(site.num_experts != here[site.name] for site in shared):
            raise UsageError(f"{path} is of another model: its routers have other experts", "record this one")
        tree = BranchTree.of(item.event for item in trace.events)
        line = tree.line(0 if tree.current is None else tree.current)
        repeated = {finding.site for finding in trace.findings if finding.kind == "site_repeated"}
        routing = recorded_routing(trace.timeline, line, on_finding=on_finding)
        return routing, frozenset(name for name in repeated if name is not None)
