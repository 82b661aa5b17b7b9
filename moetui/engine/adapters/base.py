"""The seam between a model's routers and its experts, whatever its shape: one small adapter a kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moetui.routing import Phase, Site
from moetui.routing.model import SiteKind

RoutingFunction: TypeAlias = Callable[["SiteContext", Tensor | None, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(context, logits [T, E], indices [T, K], weights [T, K]) -> (indices, weights)``; the same shapes come back.

It runs in the generating thread, just before the experts get their routing, and must not wait for the device. To leave
everything as it is, return the very tensors that were given. ``logits`` is None where the router gave none.
"""

Gate: TypeAlias = Callable[["SiteContext"], None]
"""Called at each site in the generating thread before the experts get their routing; it may block."""


@dataclass(frozen=True, slots=True)
class FoundSite:
    """A router with its experts, as an adapter found it; ``sites.py`` names and numbers it.

    Attributes:
        path: module path of the experts, or of the block where experts are no module of their own.
        block_path: module path of the smallest module that holds router and experts.
    """

    path: str
    router_path: str
    block_path: str
    experts: nn.Module
    router: nn.Module
    block: nn.Module
    num_experts: int
    num_classes: int
    top_k: int
    zero_experts: int = 0
    groups: int = 1
    selection_bias: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
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


@dataclass(slots=True)
class RouterCall:
    """The latest call of a site's router: enough to run it again."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None
    logits: Tensor | None = None


class StepFrame(Protocol):
    """The forward pass that is going on, as far as a routing function may ask."""

    @property
    def index(self) -> int:
        """Number of the step."""

    @property
    def branch(self) -> int:
        """Branch whose tokens these are."""

    def phase(self, stack: str) -> Phase:
        """Whether the stack's tokens are a prompt's or one a sequence."""

    def stood(self, nanoseconds: int) -> None:
        """The pass was held up between two sites: that time is no part of its duration."""

    def positions(self, stack: str, rows: int, device: torch.device) -> Tensor:
        """``[rows]`` int64 position of each routed row in its sequence, -1 for padding; no wait for the device."""


@dataclass(frozen=True, slots=True)
class SiteContext:
    """What a routing function may know of the routing that it changes.

    Attributes:
        handle: the site's modules.
        step: the forward pass, or None when the routing runs outside of one (a gradient checkpoint's recomputation).
        call: the router's call that led here.
        hidden: ``[T, H]`` what the experts will get, where the adapter can see it.
    """

    handle: SiteHandle
    step: StepFrame | None
    call: RouterCall
    hidden: Tensor | None = None

    @property
    def site(self) -> Site:
        """The site."""
        return self.handle.site


class Current(threading.local):
    """The frame that the hooks of this thread write to; None outside of a forward pass."""

    frame: Any = None


@dataclass(slots=True, eq=False)
class Seen:
    """One passing of a site, as its hooks saw it: references to tensors, not copies.

    Attributes:
        number: of the site. time: ``perf_counter_ns`` when the experts got their routing.
        routing: what the adapter's ``decode`` turns into indices and weights.
        before: the same before a routing function changed it; None when nothing changed.
    """

    number: int
    time: int
    routing: tuple[Any, ...]
    before: tuple[Any, ...] | None = None


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

    def install(self, handle: SiteHandle, tap: Tap) -> list[RemovableHandle]:
        """Put this kind's hooks on one site: they append ``Seen`` and logits to the frame and apply the function."""

    def decode(self, handle: SiteHandle, routing: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        """Indices ``[T, K]`` (any integer type, ``NO_EXPERT`` for an empty slot) and weights ``[T, K]`` of what was seen.

        Tensor operations on the tensors' own device that do not wait for it.
        """

    def logits(self, handle: SiteHandle, seen: Any) -> Tensor | None:
        """``[T, E]`` router output from what the router's hook kept; None if it kept none."""


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path; the model itself for an empty one."""
    return model.get_submodule(path) if path else model


def parent_path(path: str) -> str:
    """The path one step up; empty for a child of the model."""
    return path.rpartition(".")[0]


def join_path(parent: str, name: str) -> str:
    """A child's path."""
    return f"{parent}.{name}" if parent else name


def first_int(module: nn.Module, names: Sequence[str]) -> int | None:
    """The first of these attributes that is a positive integer."""
    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
