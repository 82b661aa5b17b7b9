"""Experts that are called with indices and weights: nearly every model of transformers 5."""

from __future__ import annotations

from itertools import count
from time import perf_counter_ns
from typing import Any

from torch import Tensor, nn

from moetui.engine.adapters.base import (
    Directing,
    FoundSite,
    RoutingFunction,
    SiteHandle,
    Tap,
    Watch,
    forward_parameters,
    parent_path,
    rows,
    run_function,
)
from moetui.engine.adapters.router_watch import Glancing, RouterWatch
from moetui.engine.adapters.traits import count_experts, describe_router, find_router
from moetui.engine.around import Arguments, Around, Before, Handle
from moetui.engine.raw import SEEN
from moetui.routing.model import SiteKind

_AGES = count()  # of watches
_INDICES = ("index", "indices")
_WEIGHTS = ("weight", "weights")


class IndexedAdapter:
    """``experts(hidden, indices, weights)`` beside a router that gives its logits."""

    kind: SiteKind = "indexed"

    def find(self, model: nn.Module) -> list[FoundSite]:
        """Every module with that call and a router beside it."""
        found = []
        for path, module in model.named_modules():
            if routing_parameters(module) is None:
                continue
            router = find_router(model, path)
            if router is not None:
                found.append(describe_router(model, parent_path(path), path, module, *router))
        return found

    def install(self, handle: SiteHandle, tap: Tap) -> Watch:
        """Around the router, and around the experts."""
        return _IndexedWatch(handle, tap)

    def is_plain(self, handle: SiteHandle) -> bool:
        """All but the routers that mask their skip class."""
        return not masks_skip(handle)

    def decode(self, handle: SiteHandle, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """They are what was seen, but for the skip class of routers that mask it as expert 0 with weight 0."""
        if masks_skip(handle):
            first = first.masked_fill((second == 0) & (first == 0), handle.site.num_experts)
        return first, second

    def logits(self, handle: SiteHandle, output: Any) -> Tensor | None:
        """The router's first output, or its only one; the third where the experts' indices come first."""
        if not isinstance(output, tuple | list) or not output:
            return rows(output)
        first = rows(output[0])
        if first is None or first.is_floating_point():
            return first
        return rows(output[2]) if len(output) > 2 else None

    def refusal(self, handle: SiteHandle) -> str:
        """Nothing stands in the way."""
        return ""


def masks_skip(handle: SiteHandle) -> bool:
    """Whether the router has a skip class that its experts never see: they hold no weights for it."""
    site = handle.site
    return site.zero_experts > 0 and max(count_experts(handle.experts), default=0) == site.num_experts


def routing_parameters(module: nn.Module) -> tuple[str, str] | None:
    """Names of the second and third parameter of ``forward`` if they are expert indices and gate weights."""
    names = forward_parameters(type(module))
    if len(names) < 3 or not names[1].endswith(_INDICES) or not names[2].endswith(_WEIGHTS):
        return None
    return names[1], names[2]


class _IndexedWatch(RouterWatch):
    """Around the experts; and while others look on there, a hook that changes the routing before any of them sees it.

    Only then, because a module with a hook takes 5 µs a call that one without does not.
    """

    def __init__(self, handle: SiteHandle, tap: Tap) -> None:
        names = routing_parameters(handle.experts)
        assert names is not None
        self._names = names
        self.age = next(_AGES)
        self._changes: Handle | None = None
        super().__init__(handle, tap)
        self.beside = _AroundExperts(self, before=self._reader())
        self.add(self.beside)
        self.follow()

    def follow(self) -> None:
        """See ``Watch``."""
        super().follow()
        self.meet()

    def may_direct(self, function: RoutingFunction) -> bool:
        """See ``RouterWatch``."""
        return self._changes is None and isinstance(function, Directing)

    def meet(self) -> None:
        """See ``RouterWatch``."""
        experts, own = self.handle.experts, self._changes is not None
        outermost = experts.__dict__.get("forward")
        others = (
            len(experts._forward_pre_hooks) > own
            or len(experts._forward_hooks) > 0
            or all(outermost is not handle for handle in self._handles)
        )
        wanted = others and self.tap.functions[self.handle.site.index] is not None
        if wanted and self._changes is None:
            hook = experts.register_forward_pre_hook(self._on_experts, prepend=True, with_kwargs=True)
            _in_order(experts)
            self._changes = self.add(hook)
            self.glance()
        elif not wanted and self._changes is not None:
            self.take_off(self._changes)
            self._changes = None
            self.glance()

    def _reader(self) -> Before:
        """What reads the routing off a call of the experts, with nothing left between it and their run."""
        tap, names, number = self.tap, self._names, self.handle.site.index
        at = SEEN * number
        own, functions = tap.current.own, tap.functions

        def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
            changed = None
            if functions[number] is not None or tap.gate is not None:
                if own.applied != number:
                    # There is no hook, or was none when the pass came to stand here.
                    changed = self._change(args, kwargs)
                own.applied = -1
            time, frame = perf_counter_ns(), own.frame
            if frame is None:
                return changed
            try:
                given, named = changed or (args, kwargs)
                seen = frame.seen
                if seen[at + 1]:
                    frame.repeat(number)
                seen[at + 1] = time
                seen[at + 2], seen[at + 3] = given[1:3] if len(given) > 2 else pick(given, named, names)
                if frame.timed:
                    frame.cost += perf_counter_ns() - time
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                tap.fail(error)
            return changed

        return read

    def _on_experts(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        if module is not self.handle.experts:  # a copy's
            return None
        changed = self._change(args, kwargs)
        self.tap.current.own.applied = self.handle.site.index
        return changed

    def _change(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Let the gate and the site's function see a call."""
        tap, names = self.tap, self._names
        try:
            given = pick(args, kwargs, names)
            hidden = args[0] if args else next(iter(kwargs.values()))
            changed = run_function(self.handle, tap, self.call, given, *given, hidden)
            if changed is None:
                return None
            frame = tap.current.frame
            if frame is not None:
                frame.changed(self.handle.site.index, *given)
            return replace(args, kwargs, names, changed)
        except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
            tap.fail(error)
            return None


def _in_order(experts: nn.Module) -> None:
    """Of several watches' hooks on one module that of the newest comes last: it changes what is in force."""
    hooks: Any = experts._forward_pre_hooks
    owners = {key: getattr(hook, "__self__", None) for key, hook in hooks.items()}
    ages = {key: owner.age for key, owner in owners.items() if isinstance(owner, _IndexedWatch)}
    for key in sorted(ages, key=ages.__getitem__, reverse=True):
        hooks.move_to_end(key, last=False)


class _AroundExperts(Glancing):
    """Notes the routing that the experts get, and when; on the short way it changes it first if it is to be changed."""

    __slots__ = ("watch",)

    def __init__(self, watch: RouterWatch, *, before: Before) -> None:
        self.watch = watch
        handle = watch.handle
        super().__init__(handle.experts, handle.site.index, watch.tap.current, before=before)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        seen = self.current.seen
        if seen is None or not self.short or len(args) < 3:
            return Around.__call__(self, *args, **kwargs)
        at, function = self.at, self.function
        if function is not None:
            direct, output, frame = function.direct, seen[at], self.current.frame
            if direct is None or output is None or frame is None:
                return Around.__call__(self, *args, **kwargs)
            hidden, indices, weights, *others = args
            try:
                changed = direct(output[0], indices, weights)
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                self.watch.tap.fail(error)
                changed = indices, weights
            if changed is None:
                return Around.__call__(self, *args, **kwargs)
            frame.changed(at // SEEN, indices, weights)
            args = hidden, *changed, *others
        if not seen[at + 1] or self.again():
            seen[at + 1], seen[at + 2], seen[at + 3] = perf_counter_ns(), args[1], args[2]
        inner = self.replaced
        return type(self.module).forward(self.module, *args, **kwargs) if inner is None else inner(*args, **kwargs)


def pick(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Indices and weights of a call."""
    if len(args) > 2:
        return args[1], args[2]
    return args[1] if len(args) > 1 else kwargs[names[0]], kwargs[names[1]]


def replace(
    args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, str], changed: tuple[Tensor, Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with other indices and weights."""
    kwargs = dict(kwargs)
    out = list(args)
    for position, (name, value) in enumerate(zip(names, changed), start=1):
        if position < len(out):
            out[position] = value
        else:
            kwargs[name] = value
    return tuple(out), kwargs
