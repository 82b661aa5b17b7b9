"""Distribution of a module's weights, computed in the generation thread, in the model's own library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_BINS = 24
_MOST = 4_000_000  # numbers looked at; of larger tensors an even sample


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """A parameter's values.

    Attributes:
        name: of the parameter.
        mean, std, largest (absolute), norm (Euclidean).
        histogram: counts in equal bins from ``low`` to ``high``.
        sampled: only an even sample was looked at; the norm is scaled up then.
    """

    name: str
    mean: float
    std: float
    largest: float
    norm: float
    low: float
    high: float
    histogram: tuple[int, ...]
    sampled: bool


def weight_reader(path: str, expert: int | None) -> Callable[[Any, Any], tuple[WeightFacts, ...]]:
    """A function for ``Session.call``: facts of the weights right in the module at ``path``.

    Args:
        path: module path.
        expert: of tensors whose first axis is the experts, this one's part; None for all.
    """

    def read(model: Any, _tokenizer: Any) -> tuple[WeightFacts, ...]:
        module = model.get_submodule(path)
        own = [(name, value) for name, value in module.named_parameters(recurse=expert is None) if value.ndim > 1]
        return tuple(_facts(name, value if expert is None else value[expert]) for name, value in own[:4])

    return read


def _facts(name: str, parameter: Any) -> WeightFacts:
    values = parameter.detach().reshape(-1)
    step = max(1, values.numel() // _MOST)
    whole = values.numel()
    values = values[::step].float()
    low, high = float(values.min()), float(values.max())
    counts = values.cpu().histc(bins=_BINS, min=low, max=high) if high > low else None
    return WeightFacts(
        name,
        float(values.mean()),
        float(values.std()) if values.numel() > 1 else 0.0,
        max(abs(low), abs(high)),
        float(values.norm()) * (whole / values.numel()) ** 0.5,
        low,
        high,
        () if counts is None else tuple(int(count) for count in counts),
        step > 1,
    )
