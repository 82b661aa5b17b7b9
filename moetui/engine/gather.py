"""From what the hooks kept to plain tensors: routing decoded, next-token predictions, still on their device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moetui.engine.adapters.base import Seen, SiteHandle
from moetui.engine.raw import RawStep, TokenInputs

_INNER_LIMIT = 1 << 24  # elements of a prompt's logits up to which every token's probability is worked out
_KEPT_COLUMNS = 32  # logits kept for the next step: more than a drafted continuation has


@dataclass(slots=True, eq=False)
class SiteTensors:
    """One passing of a site: ``[T, K]``, ``[T, K]``, ``[T, E]``; ``before_*`` where a function changed them."""

    number: int
    time: int
    indices: Tensor
    weights: Tensor
    logits: Tensor | None = None
    before_indices: Tensor | None = None
    before_weights: Tensor | None = None


@dataclass(slots=True, eq=False)
class Prediction:
    """What a pass says of tokens' probabilities, all natural logarithms.

    Attributes:
        ids, logprobs: ``[B, C]`` likeliest next tokens of each sequence. last: ``[B]`` the column of the token that
            they follow; None means the last column.
        first: ``[B]`` of each sequence's first new token, by the pass before; valid if ``expected`` tokens were cached.
        inner: ``[B, T-1]`` of the other new tokens.
    """

    ids: Tensor
    logprobs: Tensor
    last: Tensor | None = None
    first: Tensor | None = None
    expected: int | Tensor = -1
    inner: Tensor | None = None


@dataclass(slots=True, eq=False)
class Gathered:
    """A forward pass as tensors."""

    raw: RawStep
    sites: list[SiteTensors]
    inputs: dict[str, TokenInputs]
    prediction: Prediction | None = None


@dataclass(slots=True, eq=False)
class _Last:
    """What the next pass needs of this one."""

    branch: int
    cache: weakref.ref[Any] | None
    past: int | Tensor
    new: int
    logits: Tensor  # [B, columns, V], the last columns
    last: Tensor  # [B, V]
    total: Tensor  # [B] log of the sum of exponentials of ``last``


@dataclass(slots=True, eq=False)
class Gatherer:
    """Gathers passes of one capture, in order, in whichever thread they come.

    Args:
        handles: the sites. candidates: see ``CaptureOptions``; 0 leaves predictions out.
        wants_logits, wants_weights: see ``CaptureOptions``.
    """

    handles: tuple[SiteHandle, ...]
    candidates: int
    wants_logits: bool = True
    _last: _Last | None = field(default=None, init=False)

    def gather(self, raw: RawStep) -> Gathered:
        """Decode a pass. Nothing here waits for a device."""
        outputs = dict(raw.router_outputs)
        sites = [self._site(seen, outputs.get(seen.number)) for seen in raw.seen]
        inputs = raw.inputs.get("decoder")
        prediction = None
        if self.candidates and raw.logits is not None and inputs is not None:
            prediction = self._predict(raw, inputs, raw.logits.detach())
        return Gathered(raw, sites, raw.inputs, prediction)

    def _site(self, seen: Seen, output: Any) -> SiteTensors:
        handle = self.handles[seen.number]
        indices, weights = handle.adapter.decode(handle, seen.routing)
        logits = handle.adapter.logits(handle, output) if output is not None and self.wants_logits else None
        tensors = SiteTensors(seen.number, seen.time, indices, weights.detach(), None)
        if logits is not None:
            tensors.logits = logits.detach()
        if seen.before is not None:
            before = handle.adapter.decode(handle, seen.before)
            tensors.before_indices, tensors.before_weights = before[0], before[1].detach()
        return tensors

    def _predict(self, raw: RawStep, inputs: TokenInputs, logits: Tensor) -> Prediction | None:
        if inputs.shape is None or logits.dim() != 3 or logits.shape[0] != inputs.shape[0] or not logits.shape[1]:
            self._last = None
            return None
        new, columns = inputs.shape[1], logits.shape[1]
        column = _last_column(inputs, columns)
        last = (logits[:, -1] if column is None else logits[torch.arange(len(column)), column]).float()
        total = last.logsumexp(-1)
        top = last.topk(min(self.candidates, last.shape[-1]), -1)
        prediction = Prediction(top.indices, top.values - total.unsqueeze(-1), column)
        if inputs.ids is not None and inputs.ids.shape[1] == new:
            self._score(raw, inputs, inputs.ids, logits, prediction)
        kept = logits if columns <= _KEPT_COLUMNS else logits[:, -1:].clone()
        self._last = _Last(raw.branch, inputs.cache, inputs.past, new, kept, last, total)
        return prediction

    def _score(self, raw: RawStep, inputs: TokenInputs, ids: Tensor, logits: Tensor, prediction: Prediction) -> None:
        """Probabilities of the new tokens themselves: the first by the pass before, the others by this one."""
        before = self._last
        if before is not None and not raw.reordered and _follows(before, raw.branch, inputs):
            column = _column_before(before, inputs)
            if column == before.logits.shape[1] - 1:
                prediction.first = _chosen(before.last, before.total, ids[:, 0])
            elif column is not None:
                earlier = before.logits[:, column].float()
                prediction.first = _chosen(earlier, earlier.logsumexp(-1), ids[:, 0])
            if isinstance(before.past, Tensor) or isinstance(inputs.past, Tensor):
                prediction.expected = before.past + before.new
            else:
                prediction.expected = inputs.past
        if 1 < ids.shape[1] == logits.shape[1] and logits.numel() <= _INNER_LIMIT:
            earlier = logits[:, :-1].float()
            prediction.inner = _chosen(earlier, earlier.logsumexp(-1), ids[:, 1:])


def _follows(before: _Last, branch: int, inputs: TokenInputs) -> bool:
    cache = None if before.cache is None else before.cache()
    now = None if inputs.cache is None else inputs.cache()
    same_batch = inputs.shape is not None and before.last.shape[0] == inputs.shape[0]
    return before.branch == branch and cache is not None and cache is now and same_batch


def _chosen(logits: Tensor, total: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of ``ids`` under ``logits`` whose log-sum-exp is ``total``."""
    wanted = ids.to(logits.device).clamp(0, logits.shape[-1] - 1)
    return logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1) - total


def _last_column(inputs: TokenInputs, columns: int) -> Tensor | None:
    """``[B]`` column of each sequence's last real token, where padding may follow it; None for the last column."""
    assert inputs.shape is not None
    new, mask = inputs.shape[1], inputs.mask
    if new == 1 or columns != new or mask is None or mask.shape[1] < new:
        return None
    return ((mask[:, -new:] != 0) * torch.arange(1, new + 1, device=mask.device)).argmax(-1)


def _column_before(before: _Last, inputs: TokenInputs) -> int | None:
    """Which of the kept columns of the pass before predicts this pass's first token; None if none does."""
    columns = before.logits.shape[1]
    if isinstance(before.past, Tensor) or isinstance(inputs.past, Tensor):
        return columns - 1
    back = before.past + before.new - inputs.past
    return columns - 1 - back if 0 <= back < columns else None


def each_tensor(gathered: Gathered, function: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor of a gathered pass by what ``function`` makes of it."""
    holders: list[Any] = [*gathered.sites, *gathered.inputs.values()]
    if gathered.prediction is not None:
        holders.append(gathered.prediction)
    for holder in holders:
        for name in holder.__slots__:
            value = getattr(holder, name)
            if isinstance(value, Tensor):
                setattr(holder, name, function(value))
