"""Commands that change which experts tokens are sent to."""

from __future__ import annotations

from typing import Annotated

from moetui.console.changes import add, scope_of
from moetui.console.context import Context
from moetui.console.kinds import (
    Expert,
    Experts,
    Layers,
    OnlyPhase,
    Positions,
    Sites,
    real,
)
from moetui.console.needs import INTERVENE
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ForceExperts,
    ScaleExperts,
    SwapExperts,
)

GROUP = "interventions"

Factor = Annotated[float, real()]


@command(GROUP, INTERVENE)
def force_expert_selection(
    console: Context,
    experts: Experts,
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Send tokens to these experts and to no others.

    Their weights follow from the router's own scoring rule. Forcing again in the same scope replaces what was forced.

    Examples:
        force_expert_selection 0 3 7 --layers 2-4
        moe.force_expert_selection([0, 3, 7])
    """
    return add(console, ForceExperts(experts, scope_of(console, layers, sites, positions, phase)), experts)


@command(GROUP, INTERVENE)
def ban_experts(
    console: Context,
    experts: Experts,
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Never send tokens to these experts; the router chooses among the others.

    Examples:
        ban_experts 2 --layers 4
        moe.ban_experts([2], layers=[4])
    """
    return add(console, BanExperts(experts, scope_of(console, layers, sites, positions, phase)), experts)


@command(GROUP, INTERVENE)
def boost_experts(
    console: Context,
    experts: Experts,
    *,
    bias: Factor = 1.0,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Add a bias to these experts' scores before the choice; a negative one makes them rarer.

    Args:
        bias: what is added, in the router's own units.

    Examples:
        boost_experts 1 5 --bias 0.5
    """
    return add(console, BoostExperts(experts, bias, scope_of(console, layers, sites, positions, phase)), experts)


@command(GROUP, INTERVENE)
def scale_experts(
    console: Context,
    experts: Experts,
    *,
    factor: Factor = 0.5,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Multiply these experts' gate weights, without renormalising the others.

    Args:
        factor: 1 changes nothing, 0 ablates.

    Examples:
        scale_experts 3 --factor 0.5
    """
    return add(console, ScaleExperts(experts, factor, scope_of(console, layers, sites, positions, phase)), experts)


@command(GROUP, INTERVENE)
def ablate_experts(
    console: Context,
    experts: Experts,
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Set these experts' gate weights to zero, without renormalising: tokens sent there lose that part of the output.

    To see what the other experts make of those tokens, ban the experts instead.

    Examples:
        ablate_experts 3 --sites L2
    """
    return add(console, ScaleExperts(experts, 0.0, scope_of(console, layers, sites, positions, phase)), experts)


@command(GROUP, INTERVENE)
def swap_experts(
    console: Context,
    a: Expert,
    b: Expert,
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Send to one expert what goes to another, and the other way round.

    Args:
        a: one expert.
        b: the other.

    Examples:
        swap_experts 0 5 --layers 1
    """
    if a == b:
        raise UsageError("a and b are the same expert", "name two")
    return add(console, SwapExperts(a, b, scope_of(console, layers, sites, positions, phase)), (a, b))
