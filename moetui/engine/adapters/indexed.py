"""Experts that are called with indices and weights: nearly every model of transformers 5."""

from __future__ import annotations

import inspect
from time import perf_counter_ns
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moetui.engine.adapters.base import FoundSite, RouterCall, Seen, SiteContext, SiteHandle, Tap, parent_path
from moetui.engine.adapters.traits import describe_router, find_router
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
        return [
            *install_router_hook(handle, tap, call),
            _install_experts_hook(handle, tap, call, names),
        ]

    def decode(self, handle: SiteHandle, routing: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        """They are what was seen."""
        indices, weights = routing
        return indices, weights

    def logits(self, handle: SiteHandle, seen: Any) -> Tensor | None:
        """The router's first output, one row a token."""
        return first_tensor(seen)


def first_tensor(output: Any) -> Tensor | None:
    """The first item of a router's output, or the output itself, as ``[T, E]``."""
    value = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(value, Tensor):
        return None
    return value if value.dim() == 2 else value.reshape(-1, value.shape[-1])


def routing_parameters(module: nn.Module) -> tuple[str, str] | None:
    """Names of the second and third parameter of ``forward`` if they are expert indices and gate weights."""
    try:
        names = list(inspect.signature(type(module).forward).parameters)[1:4]
    except (TypeError, ValueError):
        return None
    if len(names) < 3 or not names[1].endswith(_INDICES) or not names[2].endswith(_WEIGHTS):
        return None
    return names[1], names[2]


def install_router_hook(handle: SiteHandle, tap: Tap, call: RouterCall) -> list[RemovableHandle]:
    """Keep a reference to the router's output, and the whole call while a routing function wants it."""
    number, current, functions = handle.site.index, tap.current, tap.functions

    def on_router(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        frame = current.frame
        if frame is not None:
            frame.router_outputs.append((number, output))
        if functions[number] is not None:
            call.args, call.kwargs, call.output = args, kwargs, output

    return [handle.router.register_forward_hook(on_router, with_kwargs=True)]


def _install_experts_hook(handle: SiteHandle, tap: Tap, call: RouterCall, names: tuple[str, str]) -> RemovableHandle:
    number, current, functions = handle.site.index, tap.current, tap.functions
    adapter = handle.adapter

    def on_experts(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        try:
            routing = args[1:3] if len(args) >= 3 else pick(args, kwargs, names)
            function = functions[number]
            frame = current.frame
            if function is None and tap.gate is None:
                if frame is not None:
                    frame.seen.append(Seen(number, perf_counter_ns(), routing))
                return None
            hidden = args[0] if args else next(iter(kwargs.values()))
            changed = apply(handle, tap, call, routing, hidden)
            if frame is not None:
                frame.seen.append(Seen(number, perf_counter_ns(), changed or routing, routing if changed else None))
            return replace(args, kwargs, names, changed) if changed else None
        except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
            tap.fail(error)
            return None

    assert adapter is not None
    return handle.experts.register_forward_pre_hook(on_experts, with_kwargs=True)


def apply(
    handle: SiteHandle, tap: Tap, call: RouterCall, routing: tuple[Any, ...], hidden: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Let the gate and the site's function see the routing; return the changed one, or None."""
    context = SiteContext(handle, tap.current.frame, call, hidden)
    if tap.gate is not None:
        tap.gate(context)
    function = tap.functions[handle.site.index]
    if function is None:
        return None
    indices, weights = routing
    changed = function(context, handle.adapter.logits(handle, call.output), indices, weights)
    return None if changed[0] is indices and changed[1] is weights else changed


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
        if name in kwargs:
            kwargs[name] = value
        else:
            out[position] = value
    return tuple(out), kwargs
