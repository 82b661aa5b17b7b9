"""Experts that get tokens sorted by expert, from a router that sorts (JetMoe, in its MLP and in its attention)."""

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
    join_path,
    rows,
    run_function,
)
from moetui.engine.adapters.traits import describe_router
from moetui.routing.model import SiteKind


class ParallelAdapter:
    """A block whose linears take ``(inputs, expert_size)`` and whose router returns five sorted values.

    They are: the slots' order by expert ``[T·K]``, the tokens in that order ``[T·K]``, their gate weights ``[T·K]``,
    the number of slots of each expert (a list), and the logits ``[T, E]``.
    """

    kind: SiteKind = "parallel"

    def find(self, model: nn.Module) -> list[FoundSite]:
        """Every block with such linears and a router."""
        found = []
        for path, block in model.named_modules():
            router = getattr(block, "router", None)
            linears = [child for child in block.children() if _takes_sizes(child)]
            if isinstance(router, nn.Module) and linears:
                found.append(describe_router(model, path, path, linears[0], join_path(path, "router"), router))
        return found

    def install(self, handle: SiteHandle, tap: Tap) -> Watch:
        """A forward hook on the router: its output is the routing, for the way in and the way out."""
        number, current, functions = handle.site.index, tap.current, tap.functions
        call, router = RouterCall(), handle.router

        def on_router(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if module is not router:  # a copy of the model, which keeps hooks
                return None
            try:
                frame, changed = current.frame, None
                if functions[number] is not None or tap.gate is not None:
                    call.args, call.kwargs, call.output = args, kwargs, output
                    changed = run_function(handle, tap, call, (output, None), *_unsorted(output), args[0])
                if frame is not None:
                    frame.note(number, perf_counter_ns(), *(changed or (output, None)))
                    frame.returned(number, output)
                    if changed:
                        frame.changed(number, output, None)
                return _sorted(changed, output) if changed else None
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                tap.fail(error)
                return None

        return Watch(handle.router.register_forward_hook(on_router, with_kwargs=True))

    def is_plain(self, handle: SiteHandle) -> bool:
        """Routing has to be decoded here."""
        return False

    def decode(self, handle: SiteHandle, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """Put the sorted lists back into the tokens' order, slots as the router chose them."""
        return _unsorted(first) if second is None else (first, second)

    def logits(self, handle: SiteHandle, output: Any) -> Tensor | None:
        """The router's last output."""
        return rows(output[-1])

    def refusal(self, handle: SiteHandle) -> str:
        """Nothing stands in the way, as long as every token keeps its k slots."""
        return ""


def _takes_sizes(module: nn.Module) -> bool:
    return forward_parameters(type(module))[1:2] == ("expert_size",)


def _unsorted(output: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    order, _, gates, sizes, logits = output
    # Nobody waits for the device here; on MPS such a copy may read what is gone by then.
    counts = torch.tensor(sizes).to(order.device, non_blocking=order.device.type != "mps")
    experts = torch.arange(len(sizes), device=order.device).repeat_interleave(counts, output_size=order.shape[0])
    indices = torch.empty_like(order).scatter(0, order, experts)
    weights = torch.empty_like(gates).scatter(0, order, gates)
    tokens = logits.shape[0]
    return indices.view(tokens, -1), weights.view(tokens, -1)


def _sorted(changed: tuple[Tensor, Tensor], output: tuple[Any, ...]) -> tuple[Any, ...]:
    indices, weights = changed
    flat = indices.reshape(-1)
    order = flat.sort(0).indices
    # The model itself waits for the device here: the sizes are a list of numbers.
    sizes = torch.bincount(flat, minlength=len(output[3])).tolist()
    tokens = order.div(indices.shape[1], rounding_mode="trunc")
    return order, tokens, weights.reshape(-1).to(output[2].dtype)[order], sizes, output[4]
