"""Experts that are called with indices and weights: nearly every model of transformers 5."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moetui.engine.adapters.base import (
    FoundSite,
    RouterCall,
    SiteHandle,
    Tap,
    forward_parameters,
    parent_path,
    router_hook,
    rows,
    run_function,
)
from moetui.engine.adapters.traits import count_experts, describe_router, find_router
from moetui.routing.model import SiteKind

_INDICES = ("index", "indices")
_WEIGHTS = ("weight", "weights")


class IndexedAdapter:
    """``experts(hidden, indices, weights)`` beside a router whose output starts with the logits."""

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

    def install(self, handle: SiteHandle, tap: Tap) -> list[RemovableHandle]:
        """A forward hook on the router, a pre-hook on the experts."""
        names = routing_parameters(handle.experts)
        assert names is not None
        call = RouterCall()
        return [*router_hook(handle, tap, call), experts_hook(handle, tap, call, names)]

    def is_plain(self, handle: SiteHandle) -> bool:
        """All but the routers that mask their skip class."""
        return not masks_skip(handle)

    def decode(self, handle: SiteHandle, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """They are what was seen, but for the skip class of routers that mask it as expert 0 with weight 0."""
        if masks_skip(handle):
            first = first.masked_fill((second == 0) & (first == 0), handle.site.num_experts)
        return first, second

    def logits(self, handle: SiteHandle, output: Any) -> Tensor | None:
        """The router's first output, or its only one."""
        return rows(output[0] if isinstance(output, tuple | list) and output else output)

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


def experts_hook(handle: SiteHandle, tap: Tap, call: RouterCall, names: tuple[str, str]) -> RemovableHandle:
    """A pre-hook on the experts: the last point before they run."""
    number, current, functions = handle.site.index, tap.current, tap.functions

    def on_experts(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        try:
            time, frame = perf_counter_ns(), current.frame
            indices, weights = args[1:3] if len(args) > 2 else pick(args, kwargs, names)
            if functions[number] is None and tap.gate is None:
                if frame is not None:
                    if frame.times[number]:
                        frame.repeat(number)
                    frame.times[number], frame.first[number], frame.second[number] = time, indices, weights
                    frame.cost += perf_counter_ns() - time
                return None
            hidden = args[0] if args else next(iter(kwargs.values()))
            changed = run_function(handle, tap, call, indices, weights, hidden)
            if frame is not None:
                frame.note(number, perf_counter_ns(), *(changed or (indices, weights)))
                if changed:
                    frame.before[number] = indices, weights
            return replace(args, kwargs, names, changed) if changed else None
        except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
            tap.fail(error)
            return None

    return handle.experts.register_forward_pre_hook(on_experts, with_kwargs=True)


def pick(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    """Indices and weights of a call that names its arguments."""
    indices = args[1] if len(args) > 1 else kwargs[names[0]]
    return indices, kwargs[names[1]]


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
