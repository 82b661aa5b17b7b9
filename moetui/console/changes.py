"""Changes of what is in force: checked, told in words, and remembered for undo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import text
from moetui.console.result import Result
from moetui.console.words import describe, scope_words
from moetui.routing import Phase, UsageError
from moetui.routing.interventions import (
    ExpertCapacity,
    ForceExperts,
    Intervention,
    ReplayRouting,
    RouterNoise,
    RouterTemperature,
    Scope,
    SetTopK,
    as_dict,
)
from moetui.routing.ranges import ranges

REPLACED = (ForceExperts, SetTopK, RouterTemperature, RouterNoise, ExpertCapacity, ReplayRouting)
"""Of these the last one in a scope holds; the others add up."""


def scope_of(
    console: Context,
    layers: tuple[int, ...] | None,
    sites: tuple[str, ...] | None,
    positions: tuple[int, int | None] | None,
    phase: Phase | None,
) -> Scope:
    """The scope of these limits; raises ``UsageError`` where no site is left."""
    console.sites(layers, sites)
    return Scope(layers, sites, positions, phase)


def add(console: Context, item: Intervention, experts: Sequence[int] = ()) -> Result:
    """Put an intervention in force after the others, or in the place of the one it replaces."""
    for site in console.info.sites:
        missing = [expert for expert in experts if item.scope.holds_site(site) and expert >= site.num_experts]
        if missing:
            raise UsageError(
                f"experts: {site.name} has no expert {missing[0]}", f"experts 0 to {site.num_experts - 1} there"
            )
    kept = [
        other
        for other in console.session.interventions
        if not (isinstance(item, REPLACED) and type(other) is type(item) and other.scope == item.scope)
    ]
    return change(console, [*kept, item], describe(item) + _where(console, item))


def _where(console: Context, item: Intervention) -> str:
    sites = [site for site in console.info.sites if item.scope.holds_site(site)]
    rules = {
        f"{site.scoring}{', renormalised' if site.normalised else ''}" for site in sites if site.scoring != "unknown"
    }
    if len(sites) == len(console.info.sites):
        place = "everywhere"
    else:
        layers = sorted({site.layer for site in sites})
        place = "at " + (" ".join(site.name for site in sites) if len(sites) <= 8 else f"layers {ranges(layers)}")
    limits = scope_words(replace(item.scope, layers=None, sites=None))
    rule = (
        f" (weights by the router's own rule: {rules.pop()})"
        if isinstance(item, ForceExperts) and len(rules) == 1
        else ""
    )
    return f" {place}{'' if limits == 'everywhere' else ', ' + limits}{rule}"


def change(console: Context, state: Sequence[Intervention], done: str) -> Result:
    """Put ``state`` in force, to be undone."""
    before = tuple(console.session.interventions)
    console.session.set_interventions(tuple(state))
    console.undo.remember(before)
    return Result((Text.assemble(text(done), Text("   undo takes it back", "dim")),), [as_dict(item) for item in state])


def restore(console: Context, state: Sequence[Intervention], done: str) -> Result:
    """Put an earlier ``state`` in force again."""
    console.session.set_interventions(tuple(state))
    names = "; ".join(_in_full(item) for item in state)
    told = f"{done}; in force now: {names}" if names else f"{done}: no interventions"
    return Result((text(told),), [as_dict(item) for item in state])


def _in_full(item: Intervention) -> str:
    where = scope_words(item.scope)
    return describe(item) + ("" if where == "everywhere" else f" ({where})")
