"""What a comparison of two runs found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from moetui.routing.compare.words import TokenPair


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first pair of tokens at which two runs differ.

    Attributes:
        a: the token's number in the first timeline; ``b`` in the second.
        position: in its sequence.
        text_a: its text, not yet made drawable; ``text_b`` likewise.
        sites: names of the sites with other experts; empty where the token itself differs.
    """

    a: int
    b: int
    position: int
    text_a: str
    text_b: str
    sites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flip:
    """A token that both runs have at a position, and that got other experts at a site.

    Attributes:
        margin: by how much the first run's router had preferred its k-th expert to the next one; None if unknown.
        lost: experts of the first run only; ``gained`` of the second only.
        same_token: whether both runs had the same tokens up to here too, so that the routing alone differs.
    """

    a: int
    b: int
    position: int
    site: str
    text: str
    margin: float | None
    lost: tuple[int, ...]
    gained: tuple[int, ...]
    same_token: bool


@dataclass(frozen=True, slots=True)
class SiteComparison:
    """One site over the pairs that both runs routed there; None where nothing is known.

    Attributes:
        tokens: pairs that both runs routed here (dropped tokens included).
        same_top1: share of them with the same first choice; ``same_set`` with the same experts.
        jaccard: mean of |A ∩ B| / |A ∪ B| of the chosen experts.
        kl: mean KL divergence from the second to the first run's router distribution, Σ p_a log(p_a / p_b), nats.
        l1: mean Σ |p_a − p_b|, in [0, 2].
        entropy_a: mean router entropy in nats; ``entropy_b`` likewise, ``entropy_shift`` = b − a, of the same pairs.
        load_shift: half of Σ |share_a − share_b| over the experts' shares of load, in [0, 1].
        loads_a: tokens that each expert got; ``loads_b`` likewise.
        flips: pairs with other experts.
    """

    site: str
    layer: int
    tokens: int
    same_top1: float | None
    same_set: float | None
    jaccard: float | None
    kl: float | None
    l1: float | None
    entropy_a: float | None
    entropy_b: float | None
    entropy_shift: float | None
    load_shift: float | None
    loads_a: tuple[int, ...]
    loads_b: tuple[int, ...]
    flips: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        aligned: ``tokens`` if token ids were known, ``position`` if pairs are equal positions only.
        tokens: pairs compared; ``same_tokens`` of them are the same token, ``common_prefix`` lie before any
            difference in their sequence.
        only_a: tokens without a partner; ``only_b`` likewise.
        first_token: where tokens differ first; None if they never do. ``first_routing``: where experts do.
        sites: over all pairs. ``prefix_sites``: over the common prefix, where the input was the same.
        flips: number of (pair, site) with other experts. ``other_token_flips``: of them at pairs of different tokens,
            which nothing is to be learned from one by one.
        top_flips: the others, those against the largest margins; flips of unknown margin come last, in token order.
            ``prefix_flips``: the same of the common prefix alone.
        probability_moved: how much of the next token's probability lies elsewhere in the second run, mean over the
            common prefix, in [0, 1]: at least so much, as far as both runs' candidates tell. None if unknown.
        side_by_side: pairs of tokens from just before the first other one (or the first with other experts).
        sites_only_a: names of sites that the second model has not; ``sites_only_b`` likewise.
        routing_unknown: number of (pair, site) of which one run alone says where the token went: a damaged recording's.
    """

    aligned: Literal["tokens", "position"]
    tokens: int
    same_tokens: int
    common_prefix: int
    only_a: int
    only_b: int
    first_token: Divergence | None
    first_routing: Divergence | None
    sites: tuple[SiteComparison, ...]
    prefix_sites: tuple[SiteComparison, ...]
    flips: int
    other_token_flips: int
    top_flips: tuple[Flip, ...]
    prefix_flips: tuple[Flip, ...]
    probability_moved: float | None = None
    side_by_side: tuple[TokenPair, ...] = ()
    sites_only_a: tuple[str, ...] = ()
    sites_only_b: tuple[str, ...] = ()
    routing_unknown: int = 0

    @property
    def identical(self) -> bool:
        """Whether both have the same tokens and send each to the same experts (weights and logits may differ).

        Tokens of unknown ids are taken for the same; a token of unknown routing is not.
        """
        lone = self.only_a or self.only_b or self.sites_only_a or self.sites_only_b
        unknown = self.routing_unknown or (self.tokens and not any(site.tokens for site in self.sites))
        return not (lone or self.first_token or self.first_routing or unknown)

    def to_dict(self) -> dict[str, Any]:
        """The document of ``diff --json``: the fields, plain JSON values, and ``identical``.

        Where no pair's ids are known, how many tokens are the same is null.
        """
        out = {"identical": self.identical, **_plain(asdict(self))}
        return (
            out if self.aligned == "tokens" or not self.tokens else out | {"same_tokens": None, "common_prefix": None}
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
