"""Which tokens went through a pass: ids, positions, rows of the batch, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from moetui.engine.inputs import TokenInputs
from moetui.routing import Phase
from moetui.routing.step import I16, I32, Bool


@dataclass(frozen=True, slots=True, eq=False)
class TokenArrays:
    """``[T]`` each, batch-major, as in ``Step``; ``batch`` sequences of ``new`` tokens, ``past`` cached before."""

    phase: Phase
    sequence: I16
    position: I32
    token_id: I32
    pad: Bool
    batch: int
    new: int
    past: int


def token_arrays(inputs: TokenInputs | None, rows: int) -> TokenArrays:
    """The tokens of a pass over ``rows`` rows; nothing but the row number is known where no argument tells more."""
    if inputs is None or inputs.shape is None or inputs.shape[0] * inputs.shape[1] != rows:
        return TokenArrays(
            Phase.PREFILL,
            np.zeros(rows, np.int16),
            np.arange(rows, dtype=np.int32),
            np.full(rows, -1, np.int32),
            np.zeros(rows, np.bool_),
            1,
            rows,
            0,
        )
    batch, new = inputs.shape
    past = int(inputs.past)
    ids = np.full(rows, -1, np.int32) if inputs.ids is None else inputs.ids.numpy().astype(np.int32).reshape(rows)
    position, pad = _places(inputs, batch, new, past)
    return TokenArrays(
        Phase.PREFILL if new > 1 or past == 0 else Phase.DECODE,
        np.repeat(np.arange(batch, dtype=np.int16), new),
        position.reshape(rows),
        ids,
        pad.reshape(rows),
        batch,
        new,
        past,
    )


def decode_arrays(run: Sequence[TokenInputs | None]) -> TokenArrays:
    """The tokens of several passes that each add one token to the same sequences, one pass after the other."""
    inputs = [each for each in run if each is not None]
    first = inputs[0]
    assert first.shape is not None
    batch, count = first.shape[0], len(inputs)
    ids = [each.ids for each in inputs if each.ids is not None]
    if all(each.mask is None and each.positions is None and each.place() is None for each in inputs):
        position = np.repeat(np.array([int(each.past) for each in inputs], np.int32), batch)
        pad: Bool = np.zeros(len(position), np.bool_)
    else:
        places = [_places(each, batch, 1, int(each.past)) for each in inputs]
        position = np.concatenate([position for position, _ in places])[:, 0]
        pad = np.concatenate([pad for _, pad in places])[:, 0]
    return TokenArrays(
        Phase.DECODE,
        np.tile(np.arange(batch, dtype=np.int16), count),
        position,
        torch.cat(ids)[:, 0].numpy().astype(np.int32) if len(ids) == count else np.full(batch * count, -1, np.int32),
        pad,
        batch * count,
        1,
        int(first.past),
    )


def attribute_rows(inputs: TokenInputs | None, rows: int, count: int, *, vision: bool) -> NDArray[np.intp] | None:
    """Which of a pass's rows a site got that saw ``count`` of them only; None if nothing tells.

    Args:
        inputs: the pass's arguments; their ``modality`` splits text from the rest.
        rows: all rows of the pass.
        count: rows that the site got.
        vision: whether the site is the one for what is not text.
    """
    if inputs is None or inputs.modality is None or inputs.modality.numel() != rows:
        return None
    other = inputs.modality.numpy().reshape(-1) != 0
    at = np.flatnonzero(other if vision else ~other)
    return at if len(at) == count else None


def _places(inputs: TokenInputs, batch: int, new: int, past: int) -> tuple[I32, Bool]:
    """Positions, padding not counted, and which tokens are padding, ``[B, T]``."""
    places = inputs.place()
    if places is not None:
        position: I32 = places.numpy().astype(np.int32)
        return position, position < 0
    pad: Bool = np.zeros((batch, new), np.bool_)
    if new == 1 and inputs.mask is not None and inputs.mask.shape[1] > 1:
        # The usual decode step: how many tokens there are is all that it takes.
        mask = inputs.mask.numpy()
        pad = mask[:, -1:] == 0
        counts = np.count_nonzero(mask, 1)[:, None] if batch > 1 else np.array([[np.count_nonzero(mask)]])
        return np.where(pad, -1, counts - 1).astype(np.int32), pad
    if inputs.mask is not None and inputs.mask.shape[1] >= new:
        mask = inputs.mask.numpy() != 0
        place = np.cumsum(mask, 1, dtype=np.int32) - 1
        if mask.shape[1] == new:
            place += past
        pad = ~mask[:, -new:]
        return np.where(pad, np.int32(-1), place[:, -new:]).astype(np.int32), pad
    if inputs.positions is not None and tuple(inputs.positions.shape) == (batch, new):
        return inputs.positions.numpy().astype(np.int32), pad
    return np.broadcast_to(np.arange(past, past + new, dtype=np.int32), (batch, new)).copy(), pad
