"""Commands that change the routing."""

from __future__ import annotations

from typing import Annotated

from rich.text import Text

from moetui.console.changes import add, change, restore, scope_of
from moetui.console.context import Context
from moetui.console.draw import table, text
from moetui.console.kinds import (
    NUMBERS,
    Expert,
    Experts,
    FilePath,
    Layers,
    OnlyPhase,
    Positions,
    Sites,
    integer,
    real,
)
from moetui.console.needs import INTERVENE
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.console.words import describe, scope_words
from moetui.routing import UsageError
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
    SetTopK,
    SwapExperts,
    UniformRouting,
    as_dict,
)

GROUP = "interventions"

Factor = Annotated[float, real()]
Seed = Annotated[int, integer(0)]


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


@command(GROUP, INTERVENE)
def set_top_k(
    console: Context,
    k: Annotated[int, integer(1)],
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Let each token use this many experts.

    Args:
        k: experts a token; the model's own number is in 'layers'.

    Examples:
        set_top_k 1
    """
    for site in console.sites(layers, sites):
        if k > site.num_experts:
            raise UsageError(
                f"k: {site.name} has {site.num_experts} experts, not {k}", f"k from 1 to {site.num_experts}"
            )
    return add(console, SetTopK(k, scope_of(console, layers, sites, positions, phase)))


@command(GROUP, INTERVENE)
def set_expert_capacity(
    console: Context,
    factor: Annotated[float, real(0, above=True)],
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Drop tokens over an expert's capacity, in token order, as training with GShard or Switch does.

    Args:
        factor: the capacity is ceil(factor · tokens · k / experts) of a step.

    Examples:
        set_expert_capacity 1.25 --phase prefill
    """
    return add(console, ExpertCapacity(factor, scope_of(console, layers, sites, positions, phase)))


@command(GROUP, INTERVENE)
def set_router_temperature(
    console: Context,
    temperature: Annotated[float, real(0, above=True)],
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Divide the router's logits before weights are formed: above 1 flattens the weights, below 1 sharpens them.

    Args:
        temperature: 1 changes nothing.

    Examples:
        set_router_temperature 2
    """
    return add(console, RouterTemperature(temperature, scope_of(console, layers, sites, positions, phase)))


@command(GROUP, INTERVENE)
def set_router_noise(
    console: Context,
    sigma: Annotated[float, real(0)],
    *,
    seed: Seed = 0,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Add normal noise to the router's logits: how stable is the choice?

    Args:
        sigma: standard deviation, in the logits' units.
        seed: repeats it exactly.

    Examples:
        set_router_noise 0.1 --seed 1
    """
    return add(console, RouterNoise(sigma, seed, scope_of(console, layers, sites, positions, phase)))


@command(GROUP, INTERVENE)
def uniform_routing(
    console: Context,
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Give the chosen experts equal weights that keep the token's mass: a control for ablations.

    Examples:
        uniform_routing --layers 3
    """
    return add(console, UniformRouting(scope_of(console, layers, sites, positions, phase)))


@command(GROUP, INTERVENE)
def random_routing(
    console: Context,
    *,
    seed: Seed = 0,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Choose experts at random and keep each token's weights by slot: a control for ablations.

    Args:
        seed: repeats it exactly.

    Examples:
        random_routing --seed 1 --layers 3
    """
    return add(console, RandomRouting(seed, scope_of(console, layers, sites, positions, phase)))


@command(GROUP, INTERVENE)
def replay_routing(
    console: Context,
    source: FilePath,
    *,
    layers: Layers = None,
    sites: Sites = None,
    positions: Positions = None,
    phase: OnlyPhase = None,
) -> Result:
    """Run with the routing of a recording, position by position.

    Args:
        source: the recording.

    Examples:
        replay_routing before.msgpack --layers 0-3
    """
    return add(console, ReplayRouting(source, scope_of(console, layers, sites, positions, phase)))


@command(GROUP)
def interventions(console: Context) -> Result:
    """List the interventions in force, in the order in which they are applied."""
    active = list(console.session.interventions)
    if not active:
        return Result((Text("no interventions: the model routes as it was trained to"),), [])
    rows = [(str(number), text(describe(item)), scope_words(item.scope)) for number, item in enumerate(active, 1)]
    return Result((table(("#", "what", "where"), rows, left=("what", "where")),), [as_dict(item) for item in active])


@command(GROUP, INTERVENE)
def undo(console: Context) -> Result:
    """Take the last change of the interventions back."""
    state = console.undo.undo(console.session.interventions)
    if state is None:
        raise UsageError("nothing to undo", "'interventions' lists what is in force")
    return restore(console, state, "undone")


@command(GROUP, INTERVENE)
def redo(console: Context) -> Result:
    """Make the change that was undone last again."""
    state = console.undo.redo(console.session.interventions)
    if state is None:
        raise UsageError("nothing to redo", "'undo' comes first")
    return restore(console, state, "redone")


@command(GROUP, INTERVENE)
def reset(console: Context, numbers: Annotated[tuple[int, ...] | None, NUMBERS] = None) -> Result:
    """Remove all interventions, or those of these numbers.

    Args:
        numbers: as 'interventions' lists them, from 1; all if left out.

    Examples:
        reset
        reset 2
    """
    active = list(console.session.interventions)
    if numbers is None:
        kept: list[Intervention] = []
    else:
        for number in numbers:
            if not 1 <= number <= len(active):
                valid = f"numbers 1 to {len(active)}" if active else "there are no interventions"
                raise UsageError(f"numbers: there is no intervention {number}", valid)
        kept = [item for number, item in enumerate(active, 1) if number not in numbers]
    if len(kept) == len(active):
        return Result((Text("no interventions were in force"),), [])
    return change(console, kept, f"removed {len(active) - len(kept)}")
