"""What the layers added to the residual stream at the last token of a pass, checked to be a sum."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moetui.engine.adapters import SiteHandle
from moetui.engine.adapters.base import module_at
from moetui.routing import UnsupportedError

_ATTENTION = re.compile(r"attn|attention")
_NORM = re.compile(r"norm", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A child of a layer was called: ``[H]`` its input and output at the last token."""

    label: str
    is_norm: bool
    given: Tensor | None
    gave: Tensor


@dataclass(slots=True, eq=False)
class _Layer:
    """A layer of the pass."""

    number: int
    entry: Tensor | None = None
    calls: list[_Call] = field(default_factory=list)
    at_router: int = 0


class StreamTrace:
    """Hooks on the layers up to a router's, and what they saw.

    Args:
        handles: all sites, to tell experts from other parts.
        handle: the router's site.

    Raises:
        UnsupportedError: the router lies in no list of layers.
    """

    def __init__(self, model: nn.Module, handles: Sequence[SiteHandle], handle: SiteHandle) -> None:
        parts = handle.site.path.split(".")
        at = next((number for number, part in enumerate(parts) if part.isdecimal()), None)
        if at is None or handle.site.stack != "decoder":
            raise refuse(handle, "it lies in no list of the decoder's layers")
        self._handle, self._model, self._handles = handle, model, handles
        self._head = ".".join(parts[:at])
        self._last = int(parts[at])
        self._layers = [_Layer(number) for number in range(self._last + 1)]
        self._norms: list[tuple[nn.Module, Tensor, Tensor]] = []
        self._input: Tensor | None = None
        self._logits: Tensor | None = None
        self._hidden = int(model.get_input_embeddings().weight.shape[1])  # type: ignore[operator]

    def install(self) -> list[RemovableHandle]:
        """Put the hooks on; whoever asks removes them."""
        hooks: list[RemovableHandle] = []
        for layer in self._layers:
            path = f"{self._head}.{layer.number}"
            module = module_at(self._model, path)
            hooks.append(module.register_forward_pre_hook(self._on_entry(layer), with_kwargs=True))
            for name, child in module.named_children():
                hook = self._on_child(layer, self._label(f"{path}.{name}", name), child)
                hooks.append(child.register_forward_hook(hook, with_kwargs=True))
        target = module_at(self._model, f"{self._head}.{self._last}")
        norms = [module for module in target.modules() if _NORM.search(type(module).__name__)]
        hooks += [module.register_forward_hook(self._on_norm) for module in norms]
        hooks.append(self._handle.router.register_forward_hook(self._on_router, with_kwargs=True))
        return hooks

    def router(self) -> tuple[nn.Module, Tensor, Tensor]:
        """The norm before the router, ``[H]`` the router's input and ``[E]`` its logits, float64 on the host.

        Raises:
            UnsupportedError: no norm gives the router its input.
        """
        norm, _ = self._norm()
        assert self._input is not None
        assert self._logits is not None
        return norm, _host(self._input), _host(self._logits)

    def components(self, rounding: float) -> tuple[list[str], Tensor, Tensor]:
        """Names and ``[C, H]`` components of the stream ``[H]`` that the router's norm reads.

        Raises:
            UnsupportedError: what a layer adds is not, up to ``rounding``, a sum of what its children gave.
        """
        _, stream = self._norm()
        first = self._layers[0].entry
        if first is None:
            raise refuse(self._handle, "the residual stream has several lanes, or layers run in another order")
        names, found = ["embedding"], [_host(first)]
        for layer in self._layers:
            final = layer.number == self._last
            entry, after = layer.entry, stream if final else self._layers[layer.number + 1].entry
            if entry is None or after is None:
                raise refuse(self._handle, "the residual stream has several lanes, or layers run in another order")
            calls = layer.calls[: layer.at_router] if final else layer.calls
            labels, parts = _added(calls, _host(entry), _host(after), rounding)
            if parts is None:
                raise refuse(self._handle, f"layer {layer.number} does not just add to the residual stream")
            names += [f"L{layer.number} {label}" for label in labels]
            found += parts
        return names, torch.stack(found), _host(stream)

    def _norm(self) -> tuple[nn.Module, Tensor]:
        if self._input is None or self._logits is None:
            raise refuse(self._handle, "the token did not pass its router, or that gives no logits")
        for norm, given, gave in self._norms:
            if torch.equal(gave.to(self._input.device), self._input.to(gave.dtype)):
                return norm, given
        raise refuse(self._handle, "what the router gets does not come straight from a norm")

    def _label(self, path: str, name: str) -> str:
        if _ATTENTION.search(name):
            return "attention"
        if any(f"{handle.site.path}.".startswith(f"{path}.") for handle in self._handles):
            return "experts"
        return name.replace("_", " ")

    def _row(self, value: Any) -> Tensor | None:
        """The last token's ``[H]`` of a module's input or output; None if it is no such thing."""
        value = value[0] if isinstance(value, tuple | list) and value else value
        if not isinstance(value, Tensor) or value.dim() not in (2, 3) or value.shape[-1] != self._hidden:
            return None
        # A copy: what is added to in place later must stay as it was.
        return value.detach().reshape(-1, self._hidden)[-1].clone()

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        named = [value for name, value in kwargs.items() if "hidden" in name]
        return next((row for value in (*args, *named) if (row := self._row(value)) is not None), None)

    def _on_entry(self, layer: _Layer) -> Callable[..., None]:
        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            layer.entry = self._given(args, kwargs)
            layer.calls = []

        return enter

    def _on_child(self, layer: _Layer, label: str, child: nn.Module) -> Callable[..., None]:
        is_norm = bool(_NORM.search(type(child).__name__))

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            gave = self._row(output)
            if gave is not None:
                layer.calls.append(_Call(label, is_norm, self._given(args, kwargs), gave))

        return after

    def _on_norm(self, norm: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given, gave = self._row(args[0]) if args else None, self._row(output)
        if given is not None and gave is not None:
            self._norms.append((norm, given, gave))

    def _on_router(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._input = self._given(args, kwargs)
        logits = self._handle.adapter.logits(self._handle, output)
        self._logits = None if logits is None else logits[-1].detach().clone()
        layer = self._layers[-1]
        layer.at_router = len(layer.calls)


@contextmanager
def traced(model: nn.Module, handles: Sequence[SiteHandle], handle: SiteHandle) -> Iterator[StreamTrace]:
    """Within it passes leave what they add to the stream up to a site's router; behind it no hook is left."""
    trace = StreamTrace(model, handles, handle)
    hooks = []
    try:
        hooks += trace.install()
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def _added(
    calls: Sequence[_Call], entry: Tensor, after: Tensor, rounding: float
) -> tuple[list[str], list[Tensor] | None]:
    """Labels and vectors of what children added between two points of the stream; None if they do not explain it.

    Each child's output may be multiplied by a constant (residual multipliers).
    """
    change = after - entry
    if not change.any():
        return [], []
    added = _ends(calls)
    if not added:
        return [], None
    outputs = torch.stack([gave for _, gave in added], dim=-1)
    factors = torch.linalg.lstsq(outputs, change[:, None], driver="gelsd").solution[:, 0]
    parts = (outputs * factors).T
    if (parts.sum(0) - change).norm() > rounding * max(after.norm(), entry.norm(), change.norm()):
        return [], None
    labels = list(dict.fromkeys(label for label, _ in added))
    sums = [torch.stack([part for (own, _), part in zip(added, parts) if own == label]).sum(0) for label in labels]
    return labels, sums


def _ends(calls: Sequence[_Call]) -> list[tuple[str, Tensor]]:
    """What may have been added: outputs of children, those that others went on to work on left out.

    A norm that reads the stream is none of them; one that reads another child's output stands in that one's place.
    """
    ends: list[tuple[str, Tensor, Tensor]] = []
    for call in calls:
        source = next((number for number, (_, _, raw) in enumerate(ends) if _same(call.given, raw)), None)
        gave = _host(call.gave)
        if source is not None:
            ends[source] = (ends[source][0], gave, call.gave)
        elif not call.is_norm:
            ends.append((call.label, gave, call.gave))
    return [(label, gave) for label, gave, _ in ends]


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


def _host(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def refuse(handle: SiteHandle, reason: str) -> UnsupportedError:
    """The error that says why a site's logits have no decomposition."""
    return UnsupportedError(f"the logits at {handle.site.name} cannot be taken apart: {reason}")
