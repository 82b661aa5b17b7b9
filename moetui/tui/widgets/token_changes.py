"""What of a token's routing differs from another's, as far as the difference can be seen."""

from __future__ import annotations

from dataclasses import dataclass

from moetui.tui.cells import number
from moetui.tui.widgets.token_facts import SiteFacts, TokenFacts


@dataclass(frozen=True, slots=True)
class SiteChanges:
    """What changed at one site.

    Attributes:
        experts: those chosen now and not before.
        weights: experts whose gate weight reads differently, the new ones among them.
        entropy, margin: whether they read differently.
    """

    experts: frozenset[int] = frozenset()
    weights: frozenset[int] = frozenset()
    entropy: bool = False
    margin: bool = False


UNCHANGED = SiteChanges()


def changes(before: TokenFacts | None, now: TokenFacts | None) -> tuple[SiteChanges, ...]:
    """Site by site; nothing where there is nothing to compare with."""
    if before is None or now is None or len(before.sites) != len(now.sites):
        return ()
    return tuple(_site(one, other) for one, other in zip(before.sites, now.sites))


def _site(before: SiteFacts, now: SiteFacts) -> SiteChanges:
    if not before.passed or not now.passed:
        return UNCHANGED
    had = {choice.expert: number(choice.weight) for choice in before.choices}
    return SiteChanges(
        frozenset(choice.expert for choice in now.choices if choice.expert not in had),
        frozenset(choice.expert for choice in now.choices if had.get(choice.expert) != number(choice.weight)),
        number(before.entropy) != number(now.entropy),
        number(before.margin) != number(now.margin),
    )
