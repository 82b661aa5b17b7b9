"""Commands that change the rule by which routers choose and weigh."""

from __future__ import annotations

from typing import Annotated

from moetui.console.changes import add, scope_of
from moetui.console.context import Context
from moetui.console.kinds import (
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
from moetui.routing import UsageError
from moetui.routing.interventions import (
    ExpertCapacity,
    RandomRouting,
    ReplayRouting,
    RouterNoise,
    RouterTemperature,
    SetTopK,
    UniformRouting,
)

GROUP = "interventions"

Seed = Annotated[int, integer(0)]


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
    temperature: Annotated[float, real(1e-6, 1e6)],
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
    """Run with the routing of a recording, sequence by sequence and position by position.

    What the recording lacks keeps its own routing. Behind the run, 'load' of that file and 'compare RUN --recording'
    tell where tokens part all the same, and how far the routers' distributions moved.

    Args:
        source: the recording.

    Examples:
        replay_routing before.msgpack --layers 0-3
    """
    return add(console, ReplayRouting(source, scope_of(console, layers, sites, positions, phase)))
