"""Two runs side by side: the numbers of ``moetui diff`` and of the console's ``compare``."""

from __future__ import annotations

from moetui.routing.compare.align import Alignment, align
from moetui.routing.compare.runs import compare, first_routing, pair_flips, shared_sites
from moetui.routing.compare.values import Comparison, Divergence, Flip, SiteComparison
from moetui.routing.compare.words import TokenPair

__all__ = [
    "Alignment",
    "Comparison",
    "Divergence",
    "Flip",
    "SiteComparison",
    "TokenPair",
    "align",
    "compare",
    "first_routing",
    "pair_flips",
    "shared_sites",
]
