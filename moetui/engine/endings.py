"""Sequences of a batch that have ended: what goes on through the model in their rows is padding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.step import I32, Bool


class Endings:
    """Follows the rows of a batch from pass to pass.

    ``generate`` keeps feeding a padding token to a row whose end token was fed while other rows go on; its attention
    mask does not say so.

    Args:
        ends: ids that end a sequence.
        pad: id that is fed behind them; None if there is none.
    """

    def __init__(self, ends: Iterable[int] = (), pad: int | None = None) -> None:
        self._ends, self._pad = np.array(sorted(ends), np.int32), pad
        self._last: I32 = np.empty(0, np.int32)
        self._over: Bool = np.empty(0, np.bool_)

    @classmethod
    def of(cls, model: Any) -> Endings:
        """By the model's own generation settings; nothing ends where they say nothing."""
        settings = getattr(model, "generation_config", None)
        ends = getattr(settings, "eos_token_id", None)
        ends = [ends] if isinstance(ends, int) else ends or []
        pad = getattr(settings, "pad_token_id", None)
        return cls(ends, pad if isinstance(pad, int) else (ends[0] if ends else None))

    def begin(self, last: I32) -> None:
        """A prompt went in; ``last`` ``[B]`` are its sequences' last tokens."""
        self._last, self._over = last, np.zeros(len(last), np.bool_)

    def follow(self, ids: I32) -> NDArray[np.bool_] | None:
        """``[N, B]`` which of N passes' tokens ``ids`` are padding behind an end; None if none is."""
        if self._pad is None or not len(self._ends) or ids.shape[1] != len(self._last) or len(self._last) < 2:
            return None
        out = np.zeros(ids.shape, np.bool_)
        for number, row in enumerate(ids):
            self._over = (self._over | np.isin(self._last, self._ends)) & (row == self._pad)
            self._last = row
            out[number] = self._over
        return out if out.any() else None
