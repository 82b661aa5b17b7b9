"""Interventions as values: what to change in a routing, and where. The engine applies them; a trace stores them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeAlias

from moetui.routing.errors import UsageError
from moetui.routing.given import real, shown, whole, wholes
from moetui.routing.model import Site
from moetui.routing.phase import Phase
from moetui.routing.ranges import ranges


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an intervention acts. None means everywhere.

    Attributes:
        layers: layer indices, in every stack; of layers in a row, those without a router are stepped over.
        sites: site names.
        positions: half-open range of sequence positions ``(start, stop)``; ``stop`` None for no end.
        phase: prefill or decode steps only.
    """

    layers: tuple[int, ...] | None = None
    sites: tuple[str, ...] | None = None
    positions: tuple[int, int | None] | None = None
    phase: Phase | None = None

    def holds_site(self, site: Site) -> bool:
        """Whether ``site`` lies in the scope."""
        if self.layers is not None and site.layer not in self.layers:
            return False
        return self.sites is None or site.name in self.sites


EVERYWHERE = Scope()


@dataclass(frozen=True, slots=True)
class ForceExperts:
    """Send tokens to these experts, weighted by the router's own rule."""

    name: ClassVar[str] = "force"
    experts: tuple[int, ...]
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class BanExperts:
    """Never send tokens to these experts; the router chooses among the others, a random draw leaves them out."""

    name: ClassVar[str] = "ban"
    experts: tuple[int, ...]
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class BoostExperts:
    """Add ``bias`` to these experts' selection scores before the choice; at a router with groups, within the chosen."""

    name: ClassVar[str] = "boost"
    experts: tuple[int, ...]
    bias: float
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class ScaleExperts:
    """Multiply these experts' gate weights by ``factor``, without renormalising (0 ablates them)."""

    name: ClassVar[str] = "scale"
    experts: tuple[int, ...]
    factor: float
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class SetTopK:
    """Let each token use ``k`` experts."""

    name: ClassVar[str] = "top_k"
    k: int
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class RouterTemperature:
    """Divide the router's logits by ``temperature`` before weights are formed."""

    name: ClassVar[str] = "temperature"
    temperature: float
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class RouterNoise:
    """Add normal noise of standard deviation ``sigma`` to the router's logits; ``seed`` repeats it exactly."""

    name: ClassVar[str] = "noise"
    sigma: float
    seed: int = 0
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class ExpertCapacity:
    """Drop tokens over an expert's capacity ceil(factor · T · k / E), in token order (GShard, Switch)."""

    name: ClassVar[str] = "capacity"
    factor: float
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class SwapExperts:
    """Send to ``b`` what goes to ``a``, and the other way round."""

    name: ClassVar[str] = "swap"
    a: int
    b: int
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class UniformRouting:
    """Give the chosen experts equal weights that keep the token's mass (a control for ablations)."""

    name: ClassVar[str] = "uniform"
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class RandomRouting:
    """Choose experts at random and keep each token's weights by slot (a control); ``seed`` repeats it exactly."""

    name: ClassVar[str] = "random"
    seed: int = 0
    scope: Scope = EVERYWHERE


@dataclass(frozen=True, slots=True)
class ReplayRouting:
    """Run with the routing of a recording; ``source`` is its file name, for the record."""

    name: ClassVar[str] = "replay"
    source: str
    scope: Scope = EVERYWHERE


Intervention: TypeAlias = (
    ForceExperts
    | BanExperts
    | BoostExperts
    | ScaleExperts
    | SetTopK
    | RouterTemperature
    | RouterNoise
    | ExpertCapacity
    | SwapExperts
    | UniformRouting
    | RandomRouting
    | ReplayRouting
)


def checked(interventions: Any) -> tuple[Intervention, ...]:
    """Interventions as a script gives them, with Python's own numbers in the place of an array's, and tuples of lists.

    Raises:
        UsageError: they are none, or a value of one is of another kind than it says.
    """
    if isinstance(interventions, Intervention) or not isinstance(interventions, Iterable):
        raise UsageError(f"{shown(interventions)} is no list of interventions", "[BanExperts((3,))]")
    return tuple(map(_checked, interventions))


def _checked(intervention: Any) -> Intervention:
    if not isinstance(intervention, Intervention):
        raise UsageError(f"{shown(intervention)} is no intervention", "for instance: BanExperts((3,))")
    values: dict[str, Any] = {"scope": _checked_scope(intervention.scope)}
    for field in fields(intervention):
        value, name = getattr(intervention, field.name), f"{field.name} of {intervention.name}"
        if field.type == "tuple[int, ...]":
            values[field.name] = wholes(value, name)
        elif field.type == "int":
            values[field.name] = whole(value, name)
        elif field.type == "float":
            values[field.name] = real(value, name)
        elif field.type == "str":
            values[field.name] = _checked_name(value, name)
    return replace(intervention, **values)


def _checked_scope(scope: Any) -> Scope:
    if not isinstance(scope, Scope):
        raise UsageError(f"{shown(scope)} is no scope", "for instance: Scope(layers=(2, 3))")
    phase: Any = scope.phase
    if phase is not None and not isinstance(phase, Phase):
        raise UsageError(f"a scope's phase is Phase.PREFILL or Phase.DECODE, not {shown(phase)}")
    return Scope(
        None if scope.layers is None else wholes(scope.layers, "layers of a scope"),
        None if scope.sites is None else _checked_sites(scope.sites),
        None if scope.positions is None else _checked_positions(scope.positions),
        phase,
    )


def _checked_sites(sites: Any) -> tuple[str, ...]:
    if isinstance(sites, str) or not isinstance(sites, Iterable):
        raise UsageError(f"sites of a scope must be names, not {shown(sites)}", "a tuple: ('L2', 'L3')")
    return tuple(_checked_name(site, "a site of a scope") for site in sites)


def _checked_positions(positions: Any) -> tuple[int, int | None]:
    hint = "from the third on: (2, None)"
    if not isinstance(positions, tuple | list) or len(positions) != 2:
        raise UsageError(f"positions of a scope are (start, stop), not {shown(positions)}", hint)
    start = whole(positions[0], "the first position of a scope")
    stop = None if positions[1] is None else whole(positions[1], "the end of a scope's positions")
    if start < 0 or (stop is not None and stop <= start):
        raise UsageError(f"no token has a position in {shown(positions)}", hint)
    return start, stop


def _checked_name(value: Any, name: str) -> str:
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise UsageError(f"{name} must be a name, not {shown(value)}")
    return text


def as_dict(intervention: Intervention) -> dict[str, Any]:
    """An intervention as plain values for JSON: ``{"name": "force", "experts": [0, 3], "scope": {...}}``.

    A scope holds what limits it only, so that ``{}`` means everywhere.
    """
    values: dict[str, Any] = {"name": intervention.name}
    for field in fields(intervention):
        value = getattr(intervention, field.name)
        values[field.name] = list(value) if isinstance(value, tuple) else value
    scope = intervention.scope
    limits = {field.name: getattr(scope, field.name) for field in fields(scope)}
    values["scope"] = {
        name: limit.label if isinstance(limit, Phase) else list(limit)
        for name, limit in limits.items()
        if limit is not None
    }
    return values


def dict_words(values: Mapping[str, Any]) -> str:
    """What ``as_dict`` gave, in words: ``ban, experts 5, layers 2-4``. Not yet made drawable."""
    own = {key: value for key, value in values.items() if key not in ("name", "scope")}
    return ", ".join([str(values["name"]), *(_named(*item) for item in (*own.items(), *values["scope"].items()))])


def _named(key: str, value: Any) -> str:
    if key == "positions":
        start, stop = value
        return f"positions {start}-{'' if stop is None else stop - 1}"
    if isinstance(value, list):
        return f"{key} {ranges(sorted(value)) if key == 'layers' else ', '.join(map(str, value))}"
    return f"{key} {value}"
