"""Experts that take a mask instead of indices; a token over an expert's capacity has none (Switch, NLLB-MoE)."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moetui.engine.adapters.base import (
    FoundSite,
    SiteHandle,
    Tap,
    Watch,
    forward_parameters,
    parent_path,
    rows,
    run_function,
)
from moetui.engine.adapters.router_watch import RouterWatch
from moetui.engine.adapters.traits import describe_router, find_router
from moetui.routing.model import SiteKind

_FLAT_NOTE = "transformers runs only experts 0 and 1 here, whatever the router says"


class MaskAdapter:
    """``experts(hidden, mask, weights)`` where the experts are child modules.

    Switch's mask is one-hot, ``[T, K, E]`` with weights ``[T, K]``. NLLB-MoE hands over ``[T, E]`` of zeros and ones,
    which its experts take for expert ids: expert 1 runs with the first choice's weight, expert 0 with the rest.
    """

    kind: SiteKind = "mask"

    def find(self, model: nn.Module) -> list[FoundSite]:
        """Every dictionary of experts with that call and a router beside it."""
        found = []
        for path, module in model.named_modules():
            parameters = forward_parameters(type(module))
            if not isinstance(module, nn.ModuleDict | nn.ModuleList) or len(parameters) != 3:
                continue
            router = find_router(model, path)
            if router is None:
                continue
            flat = parameters[1].endswith("mask")
            slots, note = (2, _FLAT_NOTE) if flat else (None, "")
            found.append(describe_router(model, parent_path(path), path, module, *router, note=note, top_k=slots))
        return found

    def install(self, handle: SiteHandle, tap: Tap) -> Watch:
        """Around the router, a pre-hook on the experts."""
        number, current, functions = handle.site.index, tap.current, tap.functions
        watch, experts = RouterWatch(handle, tap), handle.experts

        def on_experts(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if module is not experts:  # a copy of the model, which keeps hooks
                return None
            try:
                frame, changed = current.frame, None
                hidden, mask, gates = args
                if tap.gate is not None or functions[number] is not None:
                    indices, weights = self.decode(handle, mask, gates)
                    given = indices.clamp(min=0), weights
                    changed = run_function(handle, tap, watch.call, (mask, gates), *given, hidden)
                now = (mask, gates) if changed is None else _masked(changed, mask, gates)
                if frame is not None:
                    frame.note(number, perf_counter_ns(), *now)
                    if changed:
                        frame.changed(number, mask, gates)
                return (hidden, *now) if changed else None
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                tap.fail(error)
                return None

        watch.add(handle.experts.register_forward_pre_hook(on_experts))
        watch.follow()
        return watch

    def is_plain(self, handle: SiteHandle) -> bool:
        """Routing has to be decoded here."""
        return False

    def decode(self, handle: SiteHandle, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """The ones of the mask; an empty slot where there are none."""
        mask, gates = first, second
        if mask.dim() == 2:
            first = (gates * mask).sum(-1)
            weights = torch.stack((first, gates.sum(-1) - first), -1)
            indices = torch.arange(1, -1, -1, device=mask.device).expand(mask.shape[0], 2)
            return indices.masked_fill(weights == 0, -1), weights
        dropped = mask.sum(-1) == 0
        return mask.argmax(-1).masked_fill(dropped, -1), gates.masked_fill(dropped, 0)

    def logits(self, handle: SiteHandle, output: Any) -> Tensor | None:
        """The router's last output."""
        return rows(output[-1])

    def refusal(self, handle: SiteHandle) -> str:
        """A mask that is misread cannot be steered."""
        return handle.site.note if handle.site.note == _FLAT_NOTE else ""


def _masked(changed: tuple[Tensor, Tensor], mask: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
    indices, weights = changed
    chosen = functional.one_hot(indices, mask.shape[-1]) * (weights != 0).unsqueeze(-1)
    return chosen.to(mask.dtype), weights.to(gates.dtype)
