"""Probabilities of tokens: the likeliest next ones, and what the model gave those that came."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from moetui.engine.inputs import TokenInputs
from moetui.engine.likeliest import likeliest
from moetui.engine.raw import RawStep

_INNER_LIMIT = 1 << 24  # elements of a prompt's logits up to which every token's probability is worked out
_KEPT_COLUMNS = 32  # logits kept for the next pass: more columns than a drafted continuation has


@dataclass(slots=True, eq=False)
class Prediction:
    """What passes say of tokens' probabilities, all natural logarithms. N sequences: those of all passes, in order.

    Attributes:
        ids, logprobs: ``[N, C]`` likeliest next tokens of each sequence.
        last: ``[N]`` the column of the token that they follow; None means the last column.
        first: ``[N]`` of each sequence's first new token, by the pass before; NaN where none was.
        expected: cached tokens with which ``first`` holds, where only the device knows how many there were.
        inner: ``[N, T-1]`` of the other new tokens.
    """

    ids: Tensor
    logprobs: Tensor
    last: Tensor | None = None
    first: Tensor | None = None
    expected: Tensor | None = None
    inner: Tensor | None = None


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


class Predictor:
    """Works out predictions of one capture's passes, in order; keeps what links a pass to the one before.

    Args:
        candidates: likeliest next tokens to keep.
    """

    def __init__(self, candidates: int) -> None:
        self._candidates = candidates
        self._before: _Last | None = None

    def predict(self, raw: RawStep) -> Prediction | None:
        """What one pass says; None if it gave no logits. Nothing here waits for a device."""
        inputs, logits = raw.inputs.get("decoder"), raw.logits
        if inputs is None or inputs.shape is None or logits is None or not _fits(logits, inputs.shape[0]):
            self._before = None
            return None
        logits = logits.detach()
        new, columns = inputs.shape[1], logits.shape[1]
        column = _last_column(inputs, columns)
        last = (logits[:, -1] if column is None else _at(logits, column)).float()
        prediction, total = self._likeliest(last)
        prediction.last = column
        if inputs.ids is not None and inputs.ids.shape[1] == new:
            prediction.first = self._first(raw, inputs, inputs.ids)
            if prediction.first is not None and self._before is not None:
                prediction.expected = _expected(self._before, inputs)
            if 1 < new == columns and logits.numel() <= _INNER_LIMIT:
                earlier = logits[:, :-1].float()
                prediction.inner = _chosen(earlier, earlier.logsumexp(-1), inputs.ids[:, 1:])
        kept = logits if columns <= _KEPT_COLUMNS else logits[:, -1:].clone()
        self._before = _Last(raw.branch, inputs.left, inputs.past, new, kept, last, total)
        return prediction

    def predict_run(self, raws: Sequence[RawStep]) -> Prediction | None:
        """The same for passes on the host that each add one token to the same sequences, worked out together."""
        all_inputs = [inputs for raw in raws if (inputs := raw.inputs.get("decoder")) is not None]
        tokens = [inputs.ids for inputs in all_inputs if inputs.ids is not None and type(inputs.past) is int]
        logits = [raw.logits for raw in raws if raw.logits is not None]
        size = len(tokens[0]) if tokens else 0
        if len(raws) == 1 or len(tokens) < len(raws) or len(logits) < len(raws) or not _alike(logits, size):
            return join_predictions([self.predict(raw) for raw in raws])
        last = torch.cat(logits)[:, -1].float()
        prediction, total = self._likeliest(last)
        ids = torch.cat(tokens)[:, 0]
        first = torch.full((len(ids),), torch.nan)
        begun = self._first(raws[0], all_inputs[0], tokens[0])
        if begun is not None:
            first[:size] = begun
        first[size:] = _chosen(last[:-size], total[:-size], ids[size:])
        apart = [
            old.left is None
            or old.left is not new.cache
            or new.past - old.past != 1
            or before.branch != raw.branch
            or raw.reordered
            for (before, raw), (old, new) in zip(pairwise(raws), pairwise(all_inputs))
        ]  # no function of its own: one call for each pass is what all else here costs
        if any(apart):
            first[size:].view(-1, size)[torch.tensor(apart)] = torch.nan
        prediction.first = first
        inputs = all_inputs[-1]
        rows = last[-size:]
        self._before = _Last(raws[-1].branch, inputs.left, inputs.past, 1, rows.unsqueeze(1), rows, total[-size:])
        return prediction

    def _likeliest(self, last: Tensor) -> tuple[Prediction, Tensor]:
        ids, values, total = likeliest(last, self._candidates)
        return Prediction(ids, values - total.unsqueeze(-1)), total

    def _first(self, raw: RawStep, inputs: TokenInputs, ids: Tensor) -> Tensor | None:
        """Log-probabilities of the first new tokens, by the pass before."""
        before = self._before
        if before is None or raw.reordered or not _follows(before, raw.branch, inputs, before.logits.shape[1]):
            return None
        column = _column(before, inputs)
        if column == before.logits.shape[1] - 1:
            return _chosen(before.last, before.total, ids[:, 0])
        earlier = before.logits[:, column].float()
        return _chosen(earlier, earlier.logsumexp(-1), ids[:, 0])


def join_predictions(predictions: Sequence[Prediction | None]) -> Prediction | None:
    """Predictions on the host, of passes that each add one token, as one; None if a pass has none."""
    found = [prediction for prediction in predictions if prediction is not None]
    if not found or len(found) < len(predictions):
        return None
    if len(found) == 1:
        return found[0]
    unknown = torch.full((len(found[0].ids),), torch.nan)
    return Prediction(
        torch.cat([prediction.ids for prediction in found]),
        torch.cat([prediction.logprobs for prediction in found]),
        first=torch.cat([unknown if prediction.first is None else prediction.first for prediction in found]),
    )


def _fits(logits: Tensor, batch: int) -> bool:
    return logits.dim() == 3 and logits.shape[0] == batch and logits.shape[1] > 0


def _alike(logits: Sequence[Tensor], batch: int) -> bool:
    """Whether each of them is ``[batch, 1, V]``."""
    shape = logits[0].shape
    return shape[:2] == (batch, 1) and all(each.shape == shape for each in logits)


def _chosen(logits: Tensor, total: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of ``ids`` under ``logits`` whose log-sum-exp is ``total``."""
    wanted = ids.to(logits.device).clamp(0, logits.shape[-1] - 1)
    return logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1) - total


def _at(logits: Tensor, column: Tensor) -> Tensor:
    """``[B, V]`` of each sequence's column."""
    column = column.to(logits.device)
    return logits[torch.arange(len(column), device=logits.device), column]


def _last_column(inputs: TokenInputs, columns: int) -> Tensor | None:
    """``[B]`` column of each sequence's last real token, where padding may follow it; None for the last column."""
    assert inputs.shape is not None
    new, mask = inputs.shape[1], inputs.mask
    if new == 1 or columns != new:
        return None
    places = inputs.place()
    if places is not None:
        real = places >= 0
    elif mask is not None and mask.shape[1] >= new:
        real = mask[:, -new:] != 0
    else:
        return None
    return (real * torch.arange(1, new + 1, device=real.device)).argmax(-1)


def _follows(before: _Last, branch: int, inputs: TokenInputs, columns: int) -> bool:
    """Whether a pass goes on from one of the last ``columns`` tokens of the pass before, on the same cache."""
    # Compared are the references, of which an object has one: the run may be over and its cache gone by now.
    if before.branch != branch or before.cache is None or before.cache is not inputs.cache or inputs.shape is None:
        return False
    if before.last.shape[0] != inputs.shape[0]:
        return False
    if isinstance(before.past, Tensor) or isinstance(inputs.past, Tensor):
        return True
    return 0 <= before.past + before.new - inputs.past < columns


def _column(before: _Last, inputs: TokenInputs) -> int:
    """Which of the kept columns predicts a following pass's first token."""
    columns = before.logits.shape[1]
    if isinstance(before.past, Tensor) or isinstance(inputs.past, Tensor):
        return columns - 1
    return columns - 1 - (before.past + before.new - inputs.past)


def _expected(before: _Last, inputs: TokenInputs) -> Tensor | None:
    """Cached tokens that the pass must have found, where that is not known here."""
    if not isinstance(before.past, Tensor) and not isinstance(inputs.past, Tensor):
        return None
    count = before.past + before.new
    return count if isinstance(count, Tensor) else torch.tensor(count)
