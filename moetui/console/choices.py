"""The experts that a token was sent to, each with its own weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moetui.routing import NO_EXPERT
from moetui.routing.metrics import ranked


def choices(indices: NDArray[np.integer], weights: NDArray[np.floating] | None) -> tuple[list[int], list[float] | None]:
    """One token's experts at one site, the largest gate weight first, and these weights; slots may be empty anywhere.

    Args:
        indices: ``[K]`` expert ids.
        weights: ``[K]``, NaN where unknown; ``None`` if none is known.
    """
    own = None if weights is None else weights[None, None]
    experts = [expert for expert in ranked(indices[None, None], own)[0, 0].tolist() if expert != NO_EXPERT]
    if weights is None:
        return experts, None
    by_expert = dict(zip(indices.tolist(), weights.astype(float).tolist()))
    return experts, [by_expert[expert] for expert in experts]
