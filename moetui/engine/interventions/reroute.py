"""Runs a router again with another choice or other logits, so that the model's own bias, groups and scaling apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from moetui.engine.adapters.base import SiteContext
from moetui.engine.around import own_forward
from moetui.engine.rewind import kept_generators

_TOP_K = (torch.topk, torch.Tensor.topk)


@dataclass(frozen=True, slots=True)
class RouterTrace:
    """Which of a router's torch operations matter, found once a site by running it unchanged.

    Attributes:
        choice: ordinal of the ``topk`` among all ``topk`` calls whose indices are the routing; None if there is none.
        logits: ordinal of the operation among all operations whose result are the logits, perhaps with columns of
            shared experts behind them; None if there is none.
        classes: columns of the logits.
    """

    choice: int | None
    logits: int | None
    classes: int = 0


def trace_router(context: SiteContext, logits: Tensor | None, indices: Tensor) -> RouterTrace:
    """Run the router on its saved arguments and find where its choice and its logits are made.

    Compares values, so it waits for the device; once a site.
    """
    mode = _Recording()
    with kept_generators(), torch.no_grad(), mode:  # some draw in training
        output = _forward(context)
    routed = _routing_of(output, indices)
    if routed is None or not torch.equal(routed[0].long(), indices.long()):
        return RouterTrace(None, None)
    experts = context.site.num_experts
    choice = next((n for n, found in enumerate(mode.choices) if _is_choice(found, indices, experts)), None)
    made = None
    if logits is not None:
        made = next((n for n, value in mode.floats if _begins_with(value, logits)), None)
    return RouterTrace(choice, made, 0 if logits is None else logits.shape[-1])


def reroute(
    context: SiteContext,
    trace: RouterTrace,
    indices: Tensor,
    *,
    select: Callable[[Tensor], Tensor] | None = None,
    change: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor] | None:
    """The routing that the router gives with another choice (``select``) or other logits (``change``).

    Args:
        select: ``[T, E] -> [T, K']`` from the scores that the model ranks by.
        change: ``[T, E] -> [T, E]`` on the logits.

    Returns:
        Indices and weights ``[T, K']``, or None when the router's output cannot be read so.
    """
    if (select is not None and trace.choice is None) or (change is not None and trace.logits is None):
        return None
    try:
        with _Replacing(trace, select, change):
            output = _forward(context)
    except (RuntimeError, IndexError):
        # Some routers' code holds for their own number of slots only.
        return None
    found = _routing_of(output, indices)
    # A router that slices its weights by its own number of slots does not follow another choice.
    return found if found is not None and found[0].shape == found[1].shape else None


def _forward(context: SiteContext) -> Any:
    # Not __call__: nothing that watches the site may see this pass.
    return own_forward(context.handle.router)(*context.call.args, **context.call.kwargs)


def _routing_of(output: Any, indices: Tensor) -> tuple[Tensor, Tensor] | None:
    """Indices and weights among a router's ``(logits, weights, indices)``, in whichever order these stand."""
    if not isinstance(output, tuple | list) or len(output) < 3:
        return None
    rows = indices.shape[0]
    first = isinstance(output[0], Tensor) and not output[0].is_floating_point()
    tensors = [value for value in (output[:2] if first else output[1:3]) if isinstance(value, Tensor)]
    if len(tensors) != 2:
        return None
    shaped = [value.reshape(rows, -1) for value in tensors]
    whole = [not value.is_floating_point() for value in shaped]
    if whole == [False, True]:
        return shaped[1], shaped[0]
    if whole == [True, False]:
        return shaped[0], shaped[1]
    return None


def _begins_with(value: Tensor, logits: Tensor) -> bool:
    """Whether the first columns are the ``[T, E]`` logits; the first such values are those that choose, too."""
    rows, classes = logits.shape
    if not value.dim() or value.shape[-1] < classes or value.numel() != rows * value.shape[-1]:
        return False
    return bool((value.reshape(rows, -1)[:, :classes] == logits).all())


def _is_choice(found: Tensor, indices: Tensor, experts: int) -> bool:
    """Whether a ``topk`` chose this routing, in any slot order; classes past the experts may be renamed since."""
    if found.numel() != indices.numel():
        return False
    found, indices = found.reshape(indices.shape).long(), indices.long()
    real = found < experts
    if bool(((found == indices) | ~real).all()):
        return bool(real.any())
    return torch.equal(found.sort(-1).values, indices.sort(-1).values)


class _Recording(TorchFunctionMode):
    """Keeps what every ``topk`` chose and every floating result."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: list[Tensor] = []
        self.floats: list[tuple[int, Tensor]] = []
        self._count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **dict(kwargs or {}))
        if func in _TOP_K:
            self.choices.append(result.indices)
        elif isinstance(result, Tensor) and result.is_floating_point():
            self.floats.append((self._count, result))
        self._count += 1
        return result


class _Replacing(TorchFunctionMode):
    """Replaces the one choice, or the one making of logits."""

    def __init__(
        self,
        trace: RouterTrace,
        select: Callable[[Tensor], Tensor] | None,
        change: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        self._trace, self._select, self._change = trace, select, change
        self._choices = self._count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        number, self._count = self._count, self._count + 1
        if func in _TOP_K:
            ordinal, self._choices = self._choices, self._choices + 1
            if self._select is not None and ordinal == self._trace.choice:
                scores = args[0]
                flat = scores.reshape(-1, scores.shape[-1])
                chosen = self._select(flat).reshape(*scores.shape[:-1], -1)
                return torch.return_types.topk((scores.gather(-1, chosen), chosen))
        result = func(*args, **dict(kwargs or {}))
        if self._change is not None and number == self._trace.logits:
            flat, classes = result.reshape(-1, result.shape[-1]), self._trace.classes
            changed = torch.cat([self._change(flat[:, :classes]), flat[:, classes:]], -1)
            return changed.reshape(result.shape).to(result.dtype)
        return result
