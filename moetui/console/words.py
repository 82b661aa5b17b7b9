"""Interventions, runs and breakpoints in words."""

from __future__ import annotations

from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ExpertCapacity,
    ForceExperts,
    Intervention,
    RandomRouting,
    ReplayRouting,
    RouterNoise,
    RouterTemperature,
    ScaleExperts,
    Scope,
    SetTopK,
    SwapExperts,
    UniformRouting,
)
from moetui.routing.ranges import ranges


def describe(item: Intervention) -> str:
    """What an intervention does, without where: ``forced experts 0, 3, 7``. Not yet made drawable."""
    match item:
        case ForceExperts():
            return f"forced {experts_words(item.experts)}"
        case BanExperts():
            return f"banned {experts_words(item.experts)}"
        case BoostExperts():
            return f"boosted {experts_words(item.experts)} by {item.bias:+g}"
        case ScaleExperts(factor=0.0):
            return f"ablated {experts_words(item.experts)}"
        case ScaleExperts():
            return f"scaled {experts_words(item.experts)} by {item.factor:g}"
        case SwapExperts():
            return f"swapped experts {item.a} and {item.b}"
        case SetTopK():
            return f"top-{item.k}"
        case RouterTemperature():
            return f"router temperature {item.temperature:g}"
        case RouterNoise():
            return f"router noise σ {item.sigma:g}, seed {item.seed}"
        case ExpertCapacity():
            return f"expert capacity {item.factor:g}"
        case UniformRouting():
            return "uniform weights"
        case RandomRouting():
            return f"random experts, seed {item.seed}"
        case ReplayRouting():
            return f"routing of {item.source}"


def experts_words(experts: tuple[int, ...]) -> str:
    """``expert 3``, ``experts 0, 3, 7``."""
    return f"expert{'s' if len(experts) > 1 else ''} {', '.join(map(str, experts))}"


def scope_words(scope: Scope) -> str:
    """Where an intervention acts: ``layers 2-4, positions 5-, decode``. Not yet made drawable."""
    parts = []
    if scope.layers is not None:
        parts.append(f"layer{'s' if len(scope.layers) > 1 else ''} {ranges(sorted(scope.layers))}")
    if scope.sites is not None:
        parts.append(" ".join(scope.sites))
    if scope.positions is not None:
        start, stop = scope.positions
        parts.append(f"positions {start}-{'' if stop is None else stop - 1}")
    if scope.phase is not None:
        parts.append(scope.phase.label)
    return ", ".join(parts) or "everywhere"
