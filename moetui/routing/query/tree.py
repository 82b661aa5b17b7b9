"""What a query is once it is parsed: a closed set of frozen values. Text goes in and comes out; nothing is executed."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from moetui.routing.query.fields import FIELDS

Operator = Literal["<", "<=", ">", ">=", "==", "!="]
COMPARES: dict[Operator, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
"""What each does: to numbers, and to arrays element by element."""


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float

    def __str__(self) -> str:
        return str(int(self.value)) if self.value.is_integer() and abs(self.value) < 1e15 else repr(self.value)


@dataclass(frozen=True, slots=True)
class Field:
    """A numeric field."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Weight:
    """The gate weight of one expert at a site; unknown where it was not chosen."""

    expert: int

    def __str__(self) -> str:
        return f"weight[{self.expert}]"


Operand: TypeAlias = Number | Field | Weight


@dataclass(frozen=True, slots=True)
class Compare:
    """``a < b``, or a chain ``a < b <= c``; one operator less than operands.

    A single operand is compared with nothing: it holds where it is known, and is there to be looked at.
    """

    operands: tuple[Operand, ...]
    operators: tuple[Operator, ...]

    def __str__(self) -> str:
        parts = [str(self.operands[0])]
        for sign, operand in zip(self.operators, self.operands[1:]):
            parts += [sign, str(operand)]
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Member:
    """A numeric field lies in one of some closed ranges: ``layer:2-5,7``."""

    field: str
    ranges: tuple[tuple[float, float], ...]

    def __str__(self) -> str:
        parts = [str(Number(low)) if low == high else f"{Number(low)}-{Number(high)}" for low, high in self.ranges]
        return f"{self.field}:{','.join(parts)}"


@dataclass(frozen=True, slots=True)
class Words:
    """A word field is one of some words: ``phase:decode``, ``site:L3``."""

    field: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.field}:{','.join(map(_value, self.values))}"


@dataclass(frozen=True, slots=True)
class Text:
    """The token's text contains, is, or matches a pattern."""

    pattern: str
    how: Literal["contains", "equals", "matches"]

    def __str__(self) -> str:
        if self.how == "contains":
            return f"token:{quoted(self.pattern)}"
        return f"token {'==' if self.how == 'equals' else '~'} {quoted(self.pattern)}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A field that is simply so: ``forced``."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Flip:
    """Other experts than at the same position of another branch."""

    branch: int

    def __str__(self) -> str:
        return f"flip vs {self.branch}"


@dataclass(frozen=True, slots=True)
class Not:
    """The term does not hold."""

    term: Node

    def __str__(self) -> str:
        return f"not {_grouped(self.term)}"


@dataclass(frozen=True, slots=True)
class And:
    """All terms hold; without terms, everything matches."""

    terms: tuple[Node, ...]

    def __str__(self) -> str:
        return " and ".join(map(_grouped, self.terms))


@dataclass(frozen=True, slots=True)
class Or:
    """One of the terms holds."""

    terms: tuple[Node, ...]

    def __str__(self) -> str:
        return " or ".join(map(_grouped, self.terms))


Leaf: TypeAlias = Compare | Member | Words | Text | Mark | Flip
Node: TypeAlias = Leaf | Not | And | Or


def both(terms: list[Node]) -> Node:
    """``And`` with nested ones unfolded; a bare ``weight`` beside ``expert:5`` becomes that expert's weight.

    Beside several it becomes the weight of each, and in a negated term it stays that of any expert: a term more must
    not make another one wider.
    """
    flat: list[Node] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, And) else [term])
    named = {
        int(term.ranges[0][0])
        for term in flat
        if isinstance(term, Member)
        and term.field == "expert"
        and len(term.ranges) == 1
        and len(set(term.ranges[0])) == 1
    }
    flat = [weighed for term in flat for weighed in _weighed(term, named)]
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def either(terms: list[Node]) -> Node:
    """``Or`` with nested ones unfolded."""
    flat: list[Node] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, Or) else [term])
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def negated(term: Node) -> Node:
    """``Not``, with a double negation taken away."""
    return term.term if isinstance(term, Not) else Not(term)


def leaves(node: Node) -> Iterator[Leaf]:
    """The terms that are no combination of others, from left to right."""
    if isinstance(node, Not):
        yield from leaves(node.term)
    elif isinstance(node, And | Or):
        for term in node.terms:
            yield from leaves(term)
    else:
        yield node


def names(leaf: Leaf) -> Iterator[str]:
    """The fields that a leaf asks about."""
    if isinstance(leaf, Compare):
        for operand in leaf.operands:
            if not isinstance(operand, Number):
                yield "weight" if isinstance(operand, Weight) else operand.name
    elif isinstance(leaf, Member | Words):
        yield leaf.field
    elif isinstance(leaf, Mark):
        yield leaf.name
    else:
        yield "flip" if isinstance(leaf, Flip) else "token"


@lru_cache(maxsize=1024)  # asked again and again of a breakpoint's terms, step by step
def is_site_level(node: Node) -> bool:
    """Whether the truth of ``node`` depends on the site."""
    return any(FIELDS[name].level == "site" for leaf in leaves(node) for name in names(leaf))


@lru_cache(maxsize=1024)
def is_place(node: Node) -> bool:
    """Whether ``node`` asks about nothing but layers and sites: it says where the terms beside it are asked."""
    return is_site_level(node) and all(name in ("layer", "site") for leaf in leaves(node) for name in names(leaf))


def is_condition(node: Node) -> bool:
    """Whether ``node`` says anything of the values that it names."""
    return any(not isinstance(leaf, Compare) or leaf.operators for leaf in leaves(node))


def quoted(text: str) -> str:
    """``text`` as a string of the language, on one line."""
    out = []
    for char in text:
        if char in '\\"':
            out.append("\\" + char)
        elif char < " " or char == "\x7f":
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def _value(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z_][\w.]*", word) else quoted(word)


def _grouped(node: Node) -> str:
    return f"({node})" if isinstance(node, And | Or) else str(node)


def _weighed(term: Node, experts: set[int]) -> list[Node]:
    """A comparison of a bare ``weight``, once for each of ``experts``; any other term as it is."""
    if not experts or not isinstance(term, Compare) or Field("weight") not in term.operands:
        return [term]
    return [
        Compare(
            tuple(Weight(expert) if operand == Field("weight") else operand for operand in term.operands),
            term.operators,
        )
        for expert in sorted(experts)
    ]


@lru_cache(maxsize=1024)
def asks_about(node: Node, field: str) -> bool:
    """Whether ``node`` asks about a field."""
    return any(field in names(leaf) for leaf in leaves(node))
