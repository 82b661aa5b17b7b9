"""Why a token matches: each term with the values it was judged by, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.query.evaluate import at_sites, matching, truth
from moetui.routing.query.frame import Frame
from moetui.routing.query.tree import (
    And,
    Compare,
    Flip,
    Leaf,
    Mark,
    Member,
    Node,
    Not,
    Number,
    Or,
    Text,
    is_condition,
    is_site_level,
    leaves,
)
from moetui.routing.step import NO_EXPERT
from moetui.routing.text import drawable

_LISTED = 4


@dataclass(frozen=True, slots=True)
class TermTruth:
    """One term at one token.

    Attributes:
        term: the term as the language writes it.
        values: what it was judged by: ``entropy = 0.31``. Safe to draw.
        holds: None where that is unknown.
    """

    term: str
    values: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A query at one token.

    Attributes:
        holds: whether the token matches.
        site: index of the first site at which the terms hold together; -1 if there is none, or the query does not
            ask about sites. Values of site terms are those of this site, at -1 those of all sites passed.
        terms: the query's terms from left to right.
        because: those of them that make it what it is: of alternatives the ones that hold.
    """

    holds: bool
    site: int
    terms: tuple[TermTruth, ...]
    because: tuple[TermTruth, ...] = ()

    @property
    def words(self) -> str:
        """All values on one line, each once: ``entropy = 0.31, layer = 5``."""
        return _listed(self.terms)

    @property
    def reasons(self) -> str:
        """The values of ``because`` on one line, each once: what was true, and by how much."""
        return _listed(self.because)


def explain_tree(tree: Node, frame: Frame) -> Explanation:
    """Explain ``tree`` at the one token of ``frame``."""
    holds = bool(matching(tree, frame)[0])
    judged = is_site_level(tree) and is_condition(tree)
    found = np.flatnonzero(at_sites(tree, frame)[0]) if judged else np.zeros(0, np.int64)
    column = int(found[0]) if found.size else -1
    terms = tuple(_term(leaf, frame, column) for leaf in leaves(tree))
    site = frame.chosen[column].index if column >= 0 else -1
    return Explanation(holds, site, terms, tuple(_because(tree, dict(zip(leaves(tree), terms)), holds)))


def _because(node: Node, terms: Mapping[Leaf, TermTruth], wanted: bool) -> Iterator[TermTruth]:
    """The terms that make ``node`` what is wanted."""
    if isinstance(node, Not):
        yield from _because(node.term, terms, not wanted)
    elif isinstance(node, And | Or):
        # Of an *and* that holds all count, and of an *or* that does not; else only those that decided it.
        each = wanted is isinstance(node, And)
        for term in node.terms:
            if each or _is(term, terms) is wanted:
                yield from _because(term, terms, wanted)
    else:
        yield terms[node]


def _is(node: Node, terms: Mapping[Leaf, TermTruth]) -> bool | None:
    """Kleene's truth of ``node``, by its terms."""
    if isinstance(node, Not):
        inner = _is(node.term, terms)
        return None if inner is None else not inner
    if isinstance(node, And | Or):
        parts, decides = {_is(term, terms) for term in node.terms}, isinstance(node, Or)
        return decides if decides in parts else None if None in parts else not decides
    return terms[node].holds


def _listed(terms: Iterable[TermTruth]) -> str:
    return ", ".join(dict.fromkeys(term.values for term in terms))


def _term(leaf: Leaf, frame: Frame, column: int) -> TermTruth:
    if not is_site_level(leaf):
        found, chosen = truth(leaf, frame), np.zeros(1, np.int64)
    else:
        part = np.zeros(len(frame.chosen), np.bool_)
        part[[column] if column >= 0 else frame.passed[0]] = True
        frame = frame.only(part)
        found, chosen = truth(leaf, frame), np.arange(len(frame.chosen))
    holds: bool | None = None
    if found.true[0, chosen].any():
        holds = True
    elif chosen.size and found.false[0, chosen].all():
        holds = False
    return TermTruth(str(leaf), ", ".join(_values(leaf, frame, holds)), holds)


def _values(leaf: Leaf, frame: Frame, holds: bool | None) -> Iterator[str]:
    if isinstance(leaf, Compare):
        for operand in leaf.operands:
            if not isinstance(operand, Number):
                name = str(operand)
                values = frame.weight_of(operand.expert) if name.startswith("weight[") else frame.value(name)  # type: ignore[union-attr]
                yield _named(name, values)
    elif isinstance(leaf, Member) and leaf.field != "site":
        yield _named(leaf.field, frame.value(leaf.field))
    elif isinstance(leaf, Flip):
        here, there = frame.block.indices, frame.other(leaf.branch)[0]
        yield f"experts {_experts(here)} here, {_experts(there)} in branch {leaf.branch}"
    elif isinstance(leaf, Mark):
        yield f"{leaf.name} unknown" if holds is None else leaf.name if holds else f"not {leaf.name}"
    elif isinstance(leaf, Text):
        text = frame.source.view.text(int(frame.columns.token_id[0]))
        yield f'token = "{drawable(text, spaces=True)}"'
    elif leaf.field == "site":
        names = [drawable(site.name) for site in frame.chosen]
        yield f"site = {', '.join(names[:_LISTED])}{' …' if len(names) > _LISTED else ''}"
    else:
        column = frame.columns.phase if leaf.field == "phase" else frame.columns.stack
        yield f"{leaf.field} = {drawable(frame.texts(leaf.field)[int(column[0])])}"


def _named(name: str, values: NDArray[Any]) -> str:
    known = values[~np.isnan(values)]
    if not known.size:
        return f"{name} unknown"
    if known.size <= _LISTED:
        return f"{name} = {', '.join(f'{value:.4g}' for value in known.tolist())}"
    return f"{name} = {known.min():.4g} … {known.max():.4g}"


def _experts(indices: NDArray[Any]) -> str:
    chosen = sorted({int(expert) for expert in indices.ravel().tolist() if expert != NO_EXPERT})
    listed = ", ".join(map(str, chosen[: 2 * _LISTED])) + (" …" if len(chosen) > 2 * _LISTED else "")
    return listed or "unknown"
