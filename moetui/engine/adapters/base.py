"""The seam between a model's routers and its experts, whatever its shape: one small adapter a kind."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from moetui.engine.around import After, Around, Before, Handle
from moetui.engine.raw import SEEN
from moetui.routing import Phase, Site
from moetui.routing.model import SiteKind

RoutingFunction: TypeAlias = Callable[["SiteContext", Tensor | None, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(context, logits [T, E], indices [T, K], weights [T, K]) -> (indices, weights)``; the same shapes come back.

It runs in the generating thread, just before the experts get their routing, and must not wait for the device. To leave
everything as it is, return the very tensors that were given; never change them in place. ``logits`` is None where the
router gave none. A slot with weight 0 is an empty one, whatever its index.
"""

Direct: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(logits [T, E], indices [T, K], weights [T, K]) -> (indices, weights)``: a change that hangs on nothing else."""


@runtime_checkable
class Directing(Protocol):
    """A routing function that may come to know a direct way, from what is known of its site."""

    direct: Direct | None
    """None while it knows none; set back to that when more becomes known of the site. Read in the hot path."""

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


class StepFrame(Protocol):
    """The forward pass that is going on, as far as a routing function may ask."""

    index: int
    branch: int

    def phase(self, stack: str) -> Phase:
        """Whether the stack's tokens are a prompt's or one a sequence."""

    def stood(self, nanoseconds: int) -> None:
        """The pass was held up between two sites: that time is no part of its duration."""

    def positions(self, stack: str, rows: int, device: torch.device) -> Tensor:
        """``[rows]`` int64 position of each routed row in its sequence, -1 for padding; no wait for the device."""


@dataclass(frozen=True, slots=True, eq=False)
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
    """The frame (``RawStep``) that the hooks of this thread write to; None outside of a forward pass."""

    frame: Any = None
    applied = -1  # the site whose function was applied to the call that is about to reach its experts


class Watch:
    """What stands on one site's modules.

    Args:
        handles: put there from the start.
    """

    def __init__(self, *handles: Handle) -> None:
        self._handles = list(handles)
        self._breaking: Callable[[Handle], Handle] | None = None

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
        """Whether ``decode`` gives back what was seen as it is, and ``logits`` is a tuple's first item."""

    def decode(self, handle: SiteHandle, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """Indices ``[T, K]`` (integers, -1 for an empty slot) and weights ``[T, K]`` of what this kind's hooks noted.

        Tensor operations on the tensors' own device, without waiting for it.
        """

    def logits(self, handle: SiteHandle, output: Any) -> Tensor | None:
        """``[T, E]`` logits from a router's output; None if there are none."""

    def refusal(self, handle: SiteHandle) -> str:
        """Why this site's routing cannot be changed, one line; empty if it can."""


def run_function(
    handle: SiteHandle, tap: Tap, call: RouterCall, indices: Tensor, weights: Tensor, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor] | None:
    """Let the gate and the site's function see the routing; return the changed one, or None if it stays."""
    context = SiteContext(handle, tap.current.frame, call, hidden)
    if tap.gate is not None:
        tap.gate(context)
    function = tap.functions[handle.site.index]
    if function is None:
        return None
    changed = function(context, handle.adapter.logits(handle, call.output), indices, weights)
    return None if changed[0] is indices and changed[1] is weights else changed


class RouterWatch(Watch):
    """Watches the router from when its logits are wanted, or a function that may ask for them.

    Who makes one calls ``follow`` when all of it stands.

    Attributes:
        handle, tap: of the site.
        call: the router's latest call.
        beside: what stands around the experts' forward, if anything does.
        direct: what changes the routing of the router's latest call by its logits alone, if anything does.
    """

    def __init__(self, handle: SiteHandle, tap: Tap) -> None:
        super().__init__()
        self.handle, self.tap, self.call = handle, tap, RouterCall()
        self.beside: Around | None = None
        self.direct: Direct | None = None
        self._watches_router = False

    def follow(self) -> None:
        """See ``Watch``."""
        function = self.tap.functions[self.handle.site.index]
        if (self.tap.wants_logits or function is not None) and not self._watches_router:
            self._watches_router = True
            self.add(around_router(self))
        self.glance()

    def glance(self) -> None:
        """Let those that have a short way take it, or not, by what is on the site now."""
        function, free = self.tap.functions[self.handle.site.index], self.tap.gate is None
        self.direct = None
        for handle in self._handles:
            if isinstance(handle, Glancing):
                handle.glance(free and (function is None or self.may_direct(function)), function)

    def may_direct(self, function: RoutingFunction) -> bool:
        """Whether a short way may ask a function for its direct one."""
        del function
        return False

    def meet(self) -> None:
        """The router has returned, and its routing may be changed on its way to the experts."""


class Glancing(Around):
    """An ``Around`` of a site's module with a short way, for what only looks on, or changes it by the logits alone.

    What it touches on its way was pushed out of the processor's caches by the weights of the layer before, so that what
    counts is how many objects these are: a function, its cells and a list less is half of the time.

    Args:
        number: of the site.
        current: whose frame it writes to.
        before, after: what the long way does; the short way does it in place.

    Attributes:
        short: whether that way is taken.
        function: the site's, on the short way; None where nothing changes the routing.
    """

    __slots__ = ("at", "current", "function", "number", "short")

    def __init__(
        self,
        module: nn.Module,
        number: int,
        current: Current,
        *,
        before: Before | None = None,
        after: After | None = None,
    ) -> None:
        self.number, self.at, self.current, self.short = number, SEEN * number, current, False
        self.function: Any = None
        super().__init__(module, before=before, after=after)

    def glance(self, short: bool, function: RoutingFunction | None) -> None:
        """Calls take the short way from now on, or not."""
        if not short:
            self.short = False
        self.function = function
        self.short = short and not self.removed
        if self.removed:  # meanwhile, by another thread
            self.short = False

    def remove(self) -> None:
        """See ``Around``."""
        super().remove()
        self.short = False


class _AroundRouter(Glancing):
    """Keeps what the router returned; and its whole call, where a routing function needs more than that."""

    __slots__ = ("experts", "watch")

    def __init__(self, watch: RouterWatch, *, after: After) -> None:
        handle = watch.handle
        self.watch, self.experts = watch, handle.experts
        super().__init__(handle.router, handle.site.index, watch.tap.current, after=after)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        if not self.short:
            return Around.__call__(self, *args, **kwargs)
        inner = self.replaced
        output = type(self.module).forward(self.module, *args, **kwargs) if inner is None else inner(*args, **kwargs)
        frame = self.current.frame
        if frame is not None:
            seen, at = frame.seen, self.at
            if seen[at] is not None:
                frame.repeat(self.number)
            seen[at] = output
        function = self.function
        if function is not None:
            watch, experts = self.watch, self.experts
            watch.direct = direct = None if frame is None else function.direct
            outermost = experts.__dict__.get("forward")
            if direct is None or experts._forward_pre_hooks or experts._forward_hooks or outermost is not watch.beside:
                watch.direct, call = None, watch.call
                call.args, call.kwargs, call.output = args, kwargs, output
                watch.meet()
        return output


def around_router(watch: RouterWatch) -> Handle:
    """Keeps the router's output; and, while a routing function or the gate may want it, its whole call."""
    handle, tap, call, meet = watch.handle, watch.tap, watch.call, watch.meet
    number, current, functions = handle.site.index, tap.current, tap.functions
    at = SEEN * number

    def after(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        frame = current.frame
        if frame is not None:
            seen = frame.seen
            if seen[at] is not None:
                frame.repeat(number)
            seen[at] = output
        if functions[number] is not None or tap.gate is not None:
            call.args, call.kwargs, call.output = args, kwargs, output
            meet()

    if handle.router._forward_hooks:  # somebody else's, which may change the output: what they leave is what counts
        return handle.router.register_forward_hook(lambda _, *call: after(*call), with_kwargs=True)
    return _AroundRouter(watch, after=after)


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
