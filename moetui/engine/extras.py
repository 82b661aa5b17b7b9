"""What is captured on request only: how much each expert contributes, and what the last token attends to."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moetui.engine.adapters import SiteHandle
from moetui.engine.adapters.current import Current
from moetui.engine.around import own_forward
from moetui.engine.raw import RawStep
from moetui.engine.tokens import attribute_rows
from moetui.routing.events import Finding
from moetui.routing.step import F32, Bool

_ATTENTION = re.compile(r"(^|_)(attn|attention)$")
_HELD = 256  # passes whose attention is held


@dataclass(frozen=True, slots=True, eq=False)
class ExpertActivations:
    """Norms of what the experts of a site added to its output, gate weight included; ``[E]`` each.

    Attributes:
        count: tokens that the expert got, padding left out.
        mean: mean Euclidean norm of its contributions, NaN where it got none.
        largest: the largest of them, 0 where it got none.
    """

    count: NDArray[np.int64]
    mean: F32
    largest: F32


class Extras:
    """Hooks for what costs more than references, and what they gathered. Safe to read from any thread.

    Args:
        handles: the sites.
        current: where the hooks find the pass.
        on_finding: told once of what cannot be had.
    """

    def __init__(
        self, handles: tuple[SiteHandle, ...], current: Current, on_finding: Callable[[Finding], None]
    ) -> None:
        self._handles, self._current, self._on_finding = handles, current, on_finding
        self._lock = threading.Lock()
        self._norms: dict[int, tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = {}
        self._attention: OrderedDict[int, dict[int, F32]] = OrderedDict()
        self._told: set[str] = set()

    def watch_activations(self, fail: Callable[[Exception], None]) -> list[RemovableHandle]:
        """Hooks that run each slot's experts once more, alone: exact, and as dear as the experts themselves."""
        hooks = []
        for handle in self._handles:
            if handle.site.kind == "indexed":
                hooks.append(
                    handle.experts.register_forward_hook(self._activations_hook(handle, fail), with_kwargs=True)
                )
            else:
                what = f"single experts' contributions cannot be had at {handle.site.name}: {handle.site.kind} experts"
                self._tell("activations_unknown", what, "", handle.site.name)
        return hooks

    def watch_attention(self, model: nn.Module, fail: Callable[[Exception], None]) -> list[RemovableHandle]:
        """Hooks on the attention modules of the layers that hold sites, in the first stack."""
        stack = self._handles[0].site.stack
        inside = {layer_list(handle.site.path) for handle in self._handles if handle.site.stack == stack}
        hooks = []
        for path, module in model.named_modules():
            above, _, name = path.rpartition(".")
            head, _, number = above.rpartition(".")
            if head in inside and number.isdecimal() and _ATTENTION.search(name):
                hooks.append(module.register_forward_hook(self._attention_hook(int(number), fail)))
        return hooks

    def activations(self, site: int) -> ExpertActivations | None:
        """What is known of one site's experts; None before any pass."""
        with self._lock:
            held = self._norms.get(site)
            if held is None:
                return None
            count, total, largest = held[0].copy(), held[1].copy(), held[2].copy()
        with np.errstate(invalid="ignore"):
            mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return ExpertActivations(count, mean.astype(np.float32), largest.astype(np.float32))

    def attention(self, step: int) -> dict[int, F32] | None:
        """By layer ``[B, keys]`` what the sequences' last tokens attended to, mean over heads; None if not held."""
        with self._lock:
            return self._attention.get(step)

    def take(self, raw: RawStep, pads: Mapping[str, Bool]) -> None:
        """Take in what one pass's hooks noted, on the host.

        Args:
            pads: by stack ``[T]`` which of the pass's tokens are padding.
        """
        calls: dict[int, list[list[NDArray[Any]]]] = {}
        for kind, number, tensors in raw.extras:
            arrays = [tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy() for tensor in tensors]
            if kind == "activations":
                calls.setdefault(number, []).append(arrays)
                continue
            with self._lock:
                self._attention.setdefault(raw.index, {})[number] = arrays[0].astype(np.float32)
                while len(self._attention) > _HELD:
                    self._attention.popitem(last=False)
        for number, found in calls.items():
            indices, norms = (np.concatenate(arrays) for arrays in zip(*found))
            real = self._real(raw, number, pads, len(indices))
            with self._lock:
                self._add_norms(number, indices[real], norms[real])

    def _real(self, raw: RawStep, number: int, pads: Mapping[str, Bool], rows: int) -> Bool:
        """Which of a site's rows, those of all its calls in a pass, are no padding; all where nothing tells."""
        site = self._handles[number].site
        pad = pads.get(site.stack)
        if pad is None or not pad.any():
            return np.ones(rows, np.bool_)
        if rows % len(pad) == 0:  # once, in pieces, or several times
            return np.tile(~pad, rows // len(pad))
        at = attribute_rows(raw.inputs.get(site.stack), len(pad), rows, vision="vision" in site.name)
        return np.ones(rows, np.bool_) if at is None else ~pad[at]

    def _add_norms(self, number: int, indices: NDArray[Any], norms: NDArray[Any]) -> None:
        classes = self._handles[number].site.num_classes
        if number not in self._norms:
            self._norms[number] = np.zeros(classes, np.int64), np.zeros(classes), np.zeros(classes)
        count, total, largest = self._norms[number]
        experts, values = indices.ravel(), norms.ravel()
        np.add.at(count, experts, 1)
        np.add.at(total, experts, values)
        np.maximum.at(largest, experts, values)

    def _activations_hook(self, handle: SiteHandle, fail: Callable[[Exception], None]) -> Callable[..., None]:
        number, current = handle.site.index, self._current

        def after(experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
            frame = current.frame
            if frame is None or not frame.keep:
                return
            try:
                hidden = args[0] if args else next(iter(kwargs.values()))
                indices, weights = frame.routing(number)  # what ran, changed or not
                frame.extras += (("activations", number, (indices, _norms(experts, hidden, indices, weights))),)
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                fail(error)

        return after

    def _attention_hook(self, layer: int, fail: Callable[[Exception], None]) -> Callable[..., None]:
        current = self._current

        def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            frame = current.frame
            if frame is None or not frame.keep:
                return
            try:
                weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
                if isinstance(weights, Tensor) and weights.dim() == 4:
                    frame.extras += (("attention", layer, (weights[:, :, -1].detach().float().mean(1),)),)
                else:
                    what = "attention weights are not formed by this attention implementation"
                    self._tell("attention_unknown", what, "load the model with --attn-implementation eager")
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                fail(error)

        return after

    def _tell(self, kind: str, message: str, suggestion: str, site: str | None = None) -> None:
        if kind + (site or "") not in self._told:
            self._told.add(kind + (site or ""))
            self._on_finding(Finding(kind, "warning", message, suggestion, site))


@torch.no_grad()
def _norms(experts: nn.Module, hidden: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """``[T, K]`` norms of the slots' contributions: the experts run with the other slots' weights at zero."""
    norms, forward = [], own_forward(experts)  # nothing that watches may see these calls
    for slot in range(indices.shape[1]):
        alone = torch.zeros_like(weights)
        alone[:, slot] = weights[:, slot]
        norms.append(forward(hidden, indices, alone).float().norm(dim=-1).flatten())  # some keep the sequences' shape
    return torch.stack(norms, -1)


def layer_list(path: str) -> str:
    """Path of the list of layers that a module lies in."""
    parts = path.split(".")
    number = next((index for index, part in enumerate(parts) if part.isdecimal()), 0)
    return ".".join(parts[:number])
