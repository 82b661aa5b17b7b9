"""What the analyses of a live session answer with: values by name, read by the console and the screens.

``token_impact`` (``branch``, ``sequence``, ``positions``, ``replacement``: text, None for a neutral token): a
``TokenImpact``. ``router_decomposition`` (``branch``, ``sequence``, ``position``, ``site``: its index): a
``RouterDecomposition``. ``expert_similarity`` (``site``, ``by``: ``weights`` or ``outputs``, those on the tokens of
``branch`` and ``sequence``): ``[E, E]`` cosine similarities of the experts. ``ablation`` (``branch``, ``sequence``,
``site``, ``expert``): an ``ExpertAblation``.
"""

from __future__ import annotations

from moetui.routing.analyses import ExpertAblation, RouterDecomposition, TokenImpact

__all__ = ["ExpertAblation", "RouterDecomposition", "TokenImpact"]
