"""Experts that all get every token, scaled by a score that is 0 for those not chosen (Llama 4)."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor, nn

from moetui.engine.adapters.base import (
    FoundSite,
    RouterCall,
    SiteHandle,
    Tap,
    Watch,
    forward_parameters,
    parent_path,
    rows,
    run_function,
)
from moetui.engine.adapters.traits import count_experts, describe_router, find_router
from moetui.routing.model import SiteKind

_NOTE = "the scores scale the experts' input, not their output"


class DenseAdapter:
    """``experts(hidden)`` beside a router that returns ``(scores [T, E], logits [T, E])``."""

    kind: SiteKind = "dense"

    def find(self, model: nn.Module) -> list[FoundSite]:
        """Every module of stacked expert weights that takes nothing but hidden states, with a router beside it."""
        found = []
        for path, module in model.named_modules():
            if not count_experts(module) or len(forward_parameters(type(module))) != 1:
                continue
            router = find_router(model, path)
            if router is not None:
                found.append(describe_router(model, parent_path(path), path, module, *router, note=_NOTE))
        return found

    def install(self, handle: SiteHandle, tap: Tap) -> Watch:
        """A forward hook on the router: its scores are the routing."""
        number, current, functions = handle.site.index, tap.current, tap.functions
        call, router = RouterCall(), handle.router

        def on_router(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if module is not router:  # a copy of the model, which keeps hooks
                return None
            try:
                frame, scores = current.frame, output[0]
                changed = None
                if functions[number] is not None or tap.gate is not None:
                    call.args, call.kwargs, call.output = args, kwargs, output
                    chosen = _chosen(scores, handle.site.top_k)
                    changed = run_function(handle, tap, call, (scores, None), *chosen, args[0])
                if frame is not None:
                    frame.note(number, perf_counter_ns(), *(changed or (scores, None)))
                    frame.returned(number, output)
                    if changed:
                        frame.changed(number, scores, None)
                return (_scores(changed, scores), *output[1:]) if changed else None
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                tap.fail(error)
                return None

        return Watch(handle.router.register_forward_hook(on_router, with_kwargs=True))

    def is_plain(self, handle: SiteHandle) -> bool:
        """Routing has to be decoded here."""
        return False

    def decode(self, handle: SiteHandle, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """The k highest scores; a score of 0 is no choice."""
        indices, weights = _chosen(first, handle.site.top_k) if second is None else (first, second)
        return indices.masked_fill(weights == 0, -1), weights

    def logits(self, handle: SiteHandle, output: Any) -> Tensor | None:
        """The router's second output."""
        return rows(output[1])

    def refusal(self, handle: SiteHandle) -> str:
        """Nothing stands in the way."""
        return ""


def _chosen(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    weights, indices = torch.topk(scores, k, dim=-1)
    return indices, weights


def _scores(changed: tuple[Tensor, Tensor], like: Tensor) -> Tensor:
    indices, weights = changed
    return torch.zeros_like(like).scatter_add(1, indices, weights.to(like.dtype))
