"""What to capture."""

from __future__ import annotations

from dataclasses import dataclass

from moetui.routing import UsageError
from moetui.routing.given import flag, real, whole, wholes

_FLAGS = ("logits", "weights", "activations", "attention")

LINGER = 0.7
"""Seconds that a pass may wait for those after it, where nobody looks on (see ``Recorder``)."""


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """What a capture keeps of each step.

    Attributes:
        logits: the routers' first outputs.
        weights: the gate weights.
        candidates: how many likeliest next tokens to keep for each sequence; 0 for none, and no log-probabilities.
        sample_rate: share of the steps that are kept, chosen by step number and so the same in every run.
        layers: layers whose sites are kept, in every stack; None for all. Of layers in a row, those without a router
            are stepped over.
        activations: how much each expert contributes (``Capture.extras``); the experts run once more for each slot.
        attention: what the last token of each sequence attends to (``Capture.extras``); needs eager attention.
        queue: steps that may wait for the recorder before the model waits for it.
    """

    logits: bool = True
    weights: bool = True
    candidates: int = 8
    sample_rate: float = 1.0
    layers: tuple[int, ...] | None = None
    activations: bool = False
    attention: bool = False
    queue: int = 256

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a rate outside 0..1, a negative number, or a value of another kind.
        """
        own: dict[str, object] = {name: flag(getattr(self, name), name) for name in _FLAGS}
        own["sample_rate"] = real(self.sample_rate, "the sample rate")
        own["candidates"] = whole(self.candidates, "the number of candidates")
        own["queue"] = whole(self.queue, "the recorder's queue")
        own["layers"] = None if self.layers is None else wholes(self.layers, "layers")
        for name, value in own.items():
            object.__setattr__(self, name, value)
        if not 0.0 <= self.sample_rate <= 1.0:
            raise UsageError(f"the sample rate must lie between 0 and 1, not {self.sample_rate}")
        if self.candidates < 0:
            raise UsageError(f"the number of candidates must not be negative, not {self.candidates}")
        if self.queue < 1:
            raise UsageError(f"the recorder's queue needs room for one step, not {self.queue}")

    def keeps(self, step: int) -> bool:
        """Whether step ``n`` is kept: it is when ``⌊(n+1)·rate⌋ > ⌊n·rate⌋``, and the first always."""
        rate = self.sample_rate
        return rate >= 1.0 or int((step + 1) * rate) > int(step * rate) or (step == 0 and rate > 0)
