"""What the analyses of a live session answer with: values by name, read by the console and the screens.

``token_impact`` (``branch``, ``sequence``, ``positions``, ``replacement``: text, None for a neutral token): a
``TokenImpact``. ``router_decomposition`` (``branch``, ``sequence``, ``position``, ``site``: its index): a
``RouterDecomposition``. ``expert_similarity`` (``site``, ``by``: ``weights`` or ``outputs``, those on the tokens of
``branch`` and ``sequence``): ``[E, E]`` cosine similarities of the experts. ``ablation`` (``branch``, ``sequence``,
``site``, ``expert``): an ``ExpertAblation``. ``attention`` (``branch``, ``sequence``, ``position``): an
``AttentionPaid``. ``attribution`` (``branch``, ``sequence``, ``position``, ``most``: how many tokens to replace, the
newest): an ``Attribution``. ``time_by_part`` (``branch``, ``sequence``, ``steps``: how many to measure): a
``TimeByPart``.
"""

from __future__ import annotations

from moetui.routing.analyses import (
    AttentionPaid,
    Attribution,
    ExpertAblation,
    PartTime,
    RouterDecomposition,
    TimeByPart,
    TokenImpact,
)

__all__ = [
    "AttentionPaid",
    "Attribution",
    "ExpertAblation",
    "PartTime",
    "RouterDecomposition",
    "TimeByPart",
    "TokenImpact",
]
