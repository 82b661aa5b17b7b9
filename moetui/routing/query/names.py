"""What a query may name: layers, sites, experts, stacks and branches that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moetui.routing.errors import QueryError
from moetui.routing.model import Site
from moetui.routing.query.fields import did_you_mean
from moetui.routing.query.tree import COMPARES, Compare, Field, Flip, Member, Node, Number, leaves

_LISTED = 8
_WHAT = {"layer": "layer", "site": "site", "expert": "expert", "first": "expert"}


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to name. A condition on something else could never hold, and would be waited for in vain.

    Attributes:
        sites: the model's; empty where they are not known yet, and then any is taken.
        branches: numbers by name. Others may be named by number: they may come to be.
    """

    sites: Sequence[Site] = ()
    branches: Mapping[str, int] = field(default_factory=dict)

    def check_range(self, name: str, low: float, high: float, position: int) -> None:
        """Refuse a range of layers, sites or experts none of which the model has.

        Raises:
            QueryError: with ``position``.
        """
        known = self._numbers(name)
        if known and not any(low <= number <= high for number in known):
            asked = f"{low:.0f}" if low == high else f"{low:.0f}-{high:.0f}"
            raise QueryError(f"there is no {_WHAT[name]} {asked}", position, self._valid(name, known))

    def check_word(self, name: str, word: str, position: int) -> None:
        """Refuse a site or a stack that the model does not have.

        Raises:
            QueryError: with ``position``.
        """
        if not self.sites or name not in ("site", "stack"):
            return
        words = list(dict.fromkeys(site.name if name == "site" else site.stack for site in self.sites))
        if word in words:
            return
        near = next((f"did you mean '{each}'?" for each in words if each.lower() == word.lower()), "")
        listed = ", ".join(words[:_LISTED]) + (f" … {words[-1]}" if len(words) > _LISTED else "")
        hint = near or did_you_mean(word, words) or f"{name}s: {listed}"
        raise QueryError(f"there is no {name} '{word}'", position, hint)

    def check_comparison(self, term: Compare, position: int) -> None:
        """Refuse a comparison of a layer, site or expert with numbers that none of the model's passes.

        Raises:
            QueryError: with ``position``.
        """
        asked = {operand.name for operand in term.operands if isinstance(operand, Field)}
        name = asked.pop() if len(asked) == 1 else ""
        known = self._numbers(name)
        if not known or not all(isinstance(operand, Field | Number) for operand in term.operands):
            return
        for number in known:
            values = [operand.value if isinstance(operand, Number) else number for operand in term.operands]
            if all(COMPARES[sign](left, right) for sign, left, right in zip(term.operators, values, values[1:])):
                return
        raise QueryError(f"{term} is true of no {_WHAT[name]}", position, self._valid(name, known))

    def _numbers(self, name: str) -> list[int]:
        """The numbers that a field can have, ascending; none where any will do."""
        if name == "layer":
            return sorted({site.layer for site in self.sites})
        if name == "site":
            return list(range(len(self.sites)))
        if name in ("expert", "first"):
            return list(range(max((site.num_experts + site.zero_experts for site in self.sites), default=0)))
        return []

    def _valid(self, name: str, known: Sequence[int]) -> str:
        if known[-1] - known[0] + 1 == len(known):
            return f"{_WHAT[name]}s: {known[0]} to {known[-1]}"
        listed = ", ".join(map(str, known[:_LISTED]))
        return f"{_WHAT[name]}s: {listed}" + (f" … {known[-1]}" if len(known) > _LISTED else "")


def coming_branches(tree: Node, branches: Mapping[str, int]) -> list[int]:
    """The branches that a query names by numbers that none has yet, ascending."""
    asked: set[int] = set()
    for leaf in leaves(tree):
        if isinstance(leaf, Flip):
            asked.add(leaf.branch)
        elif isinstance(leaf, Member) and leaf.field == "branch":
            asked.update(int(low) for low, high in leaf.ranges if low == high)
    return sorted(asked - set(branches.values()))
