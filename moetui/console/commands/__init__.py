"""The commands, a module a group; ``registry`` collects them in the order in which ``help`` lists them."""

from __future__ import annotations

from functools import cache

from moetui.console.commands import (
    ablating,
    added,
    branching,
    breakpoints,
    comparing,
    experts,
    files,
    impact,
    in_force,
    interventions,
    measures,
    meta,
    pairs,
    playback,
    rules,
    runs,
    timing,
    tokens,
    why,
)
from moetui.console.registry import Registry


@cache
def registry() -> Registry:
    """All commands."""
    modules = (
        interventions,
        rules,
        in_force,
        runs,
        branching,
        comparing,
        playback,
        breakpoints,
        tokens,
        why,
        impact,
        experts,
        ablating,
        measures,
        timing,
        pairs,
        added,
        files,
        meta,
    )
    return Registry(modules)
