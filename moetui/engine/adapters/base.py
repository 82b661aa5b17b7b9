"""The seam between a model's routers and its experts, whatever its shape: one small adapter a kind."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from moetui.engine.adapters.current import Current
from moetui.engine.around import Handle
from moetui.routing import Phase, Site
from moetui.routing.model import SiteKind

RoutingFunction: TypeAlias = Callable[["SiteContext", Tensor | None, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(context, logits [T, E], indices [T, K], weights [T, K]) -> (indices, weights)``; the same shapes come back.

It runs in the generating thread, just before the experts get their routing, and must not wait for the device. To leave
everything as it is, return the very tensors that were given; never change them in place. ``logits`` is None where the
router gave none. A slot with weight 0 is an empty one, whatever its index.
"""

Direct: TypeAlias = Callable[[Tensor, Tensor, Tensor], "tuple[Tensor, Tensor] | None"]
"""``(logits [T, E], indices [T, K], weights [T, K]) -> (indices, weights)``: a change that hangs on nothing else.

None where it was not made for so many slots.
"""


@runtime_checkable
class Directing(Protocol):
    """A routing function that may come to know a direct way, from what is known of its site."""

    direct: Direct | None
    """None while it knows none: it takes that a site's rule is known, which then stays. Read in the hot path."""

    def __call__(
        self, context: SiteContext, logits: Tensor | None, indices: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See ``RoutingFunction``."""


Gate: TypeAlias = Callable[["SiteContext"], None]
"""Called at each site in the generating thread before the experts get their routing; it may block."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundSite:
    """A router with its experts, as an adapter found it; ``sites.py`` names and numbers it.

    Attributes:
        path: module path of the experts, or of the block where experts are no module of their own.
        block: the smallest module that holds router and experts.
        note: see ``Site``.
    """

    path: str
    router_path: str
    experts: nn.Module
    router: nn.Module
    block: nn.Module
    num_experts: int
    num_classes: int
    top_k: int
    zero_experts: int = 0
    groups: int = 1
    selection_bias: bool = False
    shared_experts: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class SiteHandle:
    """A site and the modules that make it.

    Attributes:
        site: what is known from the outside; replaced when more becomes known.
        adapter: knows where the routing passes.
    """

    site: Site
    experts: nn.Module
    router: nn.Module
    block: nn.Module
    adapter: Adapter


@dataclass(slots=True, eq=False)
class RouterCall:
    """The latest call of a site's router: enough to run it again. Kept only at sites with a routing function."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None

    def forget(self) -> None:
        """As long as nothing changes the routing, none is kept."""
        self.args, self.kwargs, self.output = (), {}, None


class StepFrame(Protocol):
    """The forward pass that is going on, as far as a routing function may ask."""

    index: int
    branch: int

    def phase(self, stack: str) -> Phase:
        """Whether the stack's tokens are a prompt's or one a sequence."""

    def stood(self, nanoseconds: int) -> None:
        """The pass was held up between two sites: that time is no part of its duration."""

    def positions(self, stack: str, rows: int, device: torch.device, *, vision: bool = False) -> Tensor:
        """``[rows]`` int64 position of each routed row in its sequence, -1 for padding; no wait for the device.

        Args:
            vision: of rows that are some of the stack's tokens: whether they are what is not text.
        """

    def sequences(self, stack: str, rows: int) -> int:
        """How many sequences the routed rows are of, one after the other and equally long; 0 if they are not all."""

    def passed(self, number: int) -> bool:
        """Whether the experts of the site of that number got a routing in this pass already."""


@dataclass(frozen=True, slots=True, eq=False)
class SiteContext:
    """What a routing function may know of the routing that it changes.

    Attributes:
        handle: the site's modules.
        step: the forward pass, or None when the routing runs outside of one (a gradient checkpoint's recomputation).
        call: the router's call that led here.
        hidden: ``[T, H]`` what the experts will get, where the adapter can see it.
        routing: that before the site's function, as the site's adapter decodes it; told to the gate alone.
    """

    handle: SiteHandle
    step: StepFrame | None
    call: RouterCall
    hidden: Tensor | None = None
    routing: tuple[Any, Any] | None = None

    @property
    def site(self) -> Site:
        """The site."""
        return self.handle.site

    @property
    def place(self) -> str:
        """Where in their sequence those tokens are that stand before the site: ``L1 · position 24``.

        Waits for the device.
        """
        name, hidden = self.site.name, self.hidden
        if self.step is None or hidden is None:
            return name
        rows = hidden.numel() // hidden.shape[-1]
        positions = self.step.positions(self.site.stack, rows, hidden.device, vision="vision" in name)
        known = positions[positions >= 0]
        if not len(known):
            return name
        first, last = int(known.min()), int(known.max())
        return f"{name} · position {first}" if first == last else f"{name} · positions {first} to {last}"


class Watch:
    """What stands on one site's modules.

    Args:
        handles: put there from the start.
    """

    def __init__(self, *handles: Handle) -> None:
        self._handles = list(handles)
        self._breaking: Callable[[Handle], Handle] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        """A copy of the model keeps hooks, which do nothing there."""
        return self

    def add(self, handle: Handle) -> Handle:
        """Put one more there; what stands there for it."""
        if self._breaking is not None:
            handle = self._breaking(handle)
        self._handles.append(handle)
        return handle

    def take_off(self, handle: Handle) -> None:
        """Remove one of them."""
        self._handles.remove(handle)
        handle.remove()

    def follow(self) -> None:
        """The site's function came or went, perhaps while a pass stands at this very site."""

    def break_graphs(self, breaking: Callable[[Handle], Handle]) -> None:
        """The model is being compiled: exchange each of them, and those to come, for what ``breaking`` gives."""
        self._breaking = breaking
        self._handles = list(map(breaking, self._handles))

    def remove(self) -> None:
        """Remove them all."""
        for handle in self._handles:
            handle.remove()


class Tap(Protocol):
    """What adapters' hooks write to and read from. Every attribute is read in the hot path."""

    current: Current
    functions: list[RoutingFunction | None]
    """By site number; None where the routing is left alone."""
    gate: Gate | None
    wants_logits: bool

    def fail(self, error: Exception) -> None:
        """A hook broke: detach, report it, and let the model go on."""


class Adapter(Protocol):
    """One way in which routing reaches the experts."""

    kind: SiteKind

    def find(self, model: nn.Module) -> list[FoundSite]:
        """The sites of this kind in a model, in traversal order."""

    def install(self, handle: SiteHandle, tap: Tap) -> Watch:
        """Watch one site: what passes is noted in the frame, and the site's function applied."""

    def is_plain(self, handle: SiteHandle) -> bool:
        """Whether ``decode`` gives back what was seen, and ``logits`` a tuple's first item where that is ``[T, E]``."""

    def decode(self, handle: SiteHandle, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """Indices ``[T, K]`` (integers, -1 for an empty slot) and weights ``[T, K]`` of what this kind's hooks noted.

        Tensor operations on the tensors' own device, without waiting for it.
        """

    def logits(self, handle: SiteHandle, output: Any) -> Tensor | None:
        """``[T, E]`` logits from a router's output; None if there are none."""

    def refusal(self, handle: SiteHandle) -> str:
        """Why this site's routing cannot be changed, one line; empty if it can."""


def run_function(
    handle: SiteHandle,
    tap: Tap,
    call: RouterCall,
    routing: tuple[Any, Any],
    indices: Tensor,
    weights: Tensor,
    hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Let the gate and the site's function see the routing; return the changed one, or None if it stays.

    Args:
        routing: as the adapter's ``decode`` takes it; ``indices`` and ``weights`` are what a function gets of it.
        hidden: ``[T, H]`` what the experts will get.
    """
    if tap.gate is not None:
        # Whoever stands there may run other passes, which call the router again.
        call = RouterCall(call.args, call.kwargs, call.output)
        tap.gate(SiteContext(handle, tap.current.frame, call, hidden, routing))
    function = tap.functions[handle.site.index]
    if function is None or call.output is None:  # it came when the router had been called
        return None
    context = SiteContext(handle, tap.current.frame, call, hidden)
    changed = function(context, handle.adapter.logits(handle, call.output), indices, weights)
    return None if changed[0] is indices and changed[1] is weights else changed


def rows(value: Any) -> Tensor | None:
    """A tensor as ``[T, E]``; None for anything else."""
    if not isinstance(value, Tensor):
        return None
    return value if value.dim() == 2 else value.reshape(-1, value.shape[-1])


def forward_parameters(kind: type[nn.Module]) -> tuple[str, ...]:
    """Names of the parameters of a module class's ``forward``, behind ``self``."""
    known = _PARAMETERS.get(kind)
    if known is None:
        known = _PARAMETERS[kind] = tuple(inspect.signature(kind.forward).parameters)[1:]
    return known


_PARAMETERS: weakref.WeakKeyDictionary[type[nn.Module], tuple[str, ...]] = weakref.WeakKeyDictionary()


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path; the model itself for an empty one."""
    return model.get_submodule(path) if path else model


def parent_path(path: str) -> str:
    """The path one step up; empty for a child of the model."""
    return path.rpartition(".")[0]


def join_path(parent: str, name: str) -> str:
    """A child's path."""
    return f"{parent}.{name}" if parent else name
