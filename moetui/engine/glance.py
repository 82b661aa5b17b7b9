"""A look at a decode step right behind it, before it is recorded together with others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moetui.engine.assemble import Assembler
from moetui.engine.gather import Gatherer
from moetui.engine.raw import RawStep
from moetui.routing import TimelineView
from moetui.routing.timeline import view_of


@dataclass(frozen=True, slots=True)
class Glance:
    """One pass that has ended.

    To record it would take several times as long, and so would to have the recorder's thread do it and wait for that.

    Attributes:
        raw: the pass.
        gatherer, assembler: what its recorder works with.
    """

    raw: RawStep
    gatherer: Gatherer
    assembler: Assembler

    def view(self, *, scores: bool) -> TimelineView | None:
        """The token of a decode step, as number 0 of a view that has nothing else.

        Known of it is all that will be recorded but for probabilities, its number in the timeline and whether it is
        padding behind the end of its sequence. None for a pass of several tokens, on another device than the host, or
        that has to be decoded or studied first.

        Args:
            scores: whether ``TokenColumns`` has entropy, confidence and margin, or NaN.
        """
        if torch.is_grad_enabled() or not _is_one_token(self.raw):
            return None
        columns = self.gatherer.columns([self.raw])
        if columns is None:
            return None
        return view_of(self.assembler.glimpse(self.raw, columns, scores=scores), self.assembler.described())


def _is_one_token(raw: RawStep) -> bool:
    """Whether a pass added one token to the one sequence of the decoder, on the host."""
    inputs = raw.inputs.get("decoder")
    if inputs is None or len(raw.inputs) != 1 or inputs.shape != (1, 1) or raw.probes:
        return False
    if isinstance(inputs.past, Tensor) or inputs.past == 0:
        return False
    seen = [value for value in raw.first if value is not None]
    return all(isinstance(value, Tensor) and value.is_cpu for value in seen)
