"""The truth of a query over tokens and sites, in three values: true, false, unknown."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.query.frame import Frame
from moetui.routing.query.patterns import contains, matches
from moetui.routing.query.tree import (
    COMPARES,
    And,
    Compare,
    Field,
    Leaf,
    Mark,
    Member,
    Node,
    Not,
    Number,
    Operand,
    Or,
    Text,
    Weight,
    Words,
    is_place,
    is_site_level,
)
from moetui.routing.step import NO_EXPERT, Bool, SiteFlag

_FEW = 1024  # tokens times sites that are looked at as quickly as it is found out which of them matter


@dataclass(frozen=True, slots=True)
class Truth:
    """Where a term is true and where it is false, ``[n, 1]`` or ``[n, m]``; unknown is neither."""

    true: Bool
    false: Bool


def matching(node: Node, frame: Frame) -> Bool:
    """Which tokens match, ``[n]``.

    Terms of layer and site alone say where the other terms of their conjunction are asked: the negated ones
    (``-forced``) must hold at all of these sites that the token passed, the others together at one of them. *or*
    chooses between conjunctions.
    """
    if isinstance(node, Or):
        if sum(map(is_site_level, node.terms)) > 1:
            frame.block  # noqa: B018  read once, for all terms
        out = np.zeros(len(frame.numbers), np.bool_)
        for term in node.terms:
            rest = ~out
            out[rest] = matching(term, frame.at(rest))
        return out
    terms = node.terms if isinstance(node, And) else (node,)
    out = np.ones(len(frame.numbers), np.bool_)
    for term in terms:
        if not is_site_level(term):
            out &= truth(term, frame).true[:, 0]
            if not out.any():
                return out
    heavy = tuple(term for term in terms if is_site_level(term))
    if not heavy:
        return out
    part = _selected(heavy, frame.at(out))
    holds = _holding(And(heavy), part, part.passed)
    # Negated terms alone hold of a token that passed no site, too.
    out[out] = holds[:, 0] if all(map(_of_all_sites, heavy)) else (holds & part.passed).any(1)
    return out


def at_sites(node: Node, frame: Frame) -> Bool:
    """At which sites that a token passed the terms hold, ``[n, m]``."""
    return np.asarray(_holding(node, frame, frame.passed) & frame.passed, np.bool_)


def _holding(node: Node, frame: Frame, where: Bool) -> Bool:
    """Where a token's terms hold, ``[n, m]`` or, if it is the same at all sites, ``[n, 1]``.

    A negated term is one truth of the token, that of the sites ``where`` (``[n, m]``) it is asked: a term more beside
    it can then only take tokens away.
    """
    if isinstance(node, Or):
        return reduce(operator.or_, (_holding(term, frame, where) for term in node.terms))
    if _of_all_sites(node):
        return np.asarray((truth(node, frame).true | ~where).all(1, keepdims=True), np.bool_)
    if not isinstance(node, And) or is_place(node):
        return truth(node, frame).true
    out = np.ones((len(frame.numbers), 1), np.bool_)
    for term in sorted(node.terms, key=is_place, reverse=True):
        out = out & _holding(term, frame, where)
        if not out.any():
            break
        if is_place(term):
            where = where & out
    return out


def _of_all_sites(node: Node) -> bool:
    """Whether ``node`` has to hold at every site that it is asked at."""
    return isinstance(node, Not) and is_site_level(node) and not is_place(node)


def truth(node: Node, frame: Frame) -> Truth:
    """Kleene's truth of ``node``: a comparison with an unknown value is unknown, and so is its negation."""
    if isinstance(node, Not):
        inner = truth(node.term, frame)
        return Truth(inner.false, inner.true)
    if isinstance(node, And):
        return _all([truth(term, frame) for term in node.terms] or [_known(np.ones((len(frame.numbers), 1), np.bool_))])
    if isinstance(node, Or):
        either = _all([_swapped(truth(term, frame)) for term in node.terms])
        return _swapped(either)
    return _leaf(node, frame)


def _leaf(leaf: Leaf, frame: Frame) -> Truth:
    if isinstance(leaf, Compare):
        return _compare(leaf, frame)
    if isinstance(leaf, Member):
        return _member(leaf, frame)
    if isinstance(leaf, Words):
        return _words(leaf, frame)
    if isinstance(leaf, Text):
        return _text(leaf, frame)
    if isinstance(leaf, Mark):
        return _mark(leaf.name, frame)
    same, known = frame.same_experts(leaf.branch)
    return Truth(~same & known, same & known)


def _compare(leaf: Compare, frame: Frame) -> Truth:
    values = [_operand(operand, frame) for operand in leaf.operands]
    if max(value.ndim for value in values) == 3:
        values = [value if value.ndim == 3 else value[..., None] for value in values]
    compared = [COMPARES[sign](*pair) for sign, *pair in zip(leaf.operators, values, values[1:])]
    given = [~np.isnan(value) for operand, value in zip(leaf.operands, values) if not isinstance(operand, Number)]
    known = reduce(operator.and_, given)  # numbers alone are refused
    return _over_slots(reduce(operator.and_, compared, known), known, _experts_chosen(leaf, frame))


def _experts_chosen(leaf: Compare, frame: Frame) -> Bool | None:
    """Slots that hold an expert, if the leaf compares slot by slot."""
    slots = any(isinstance(operand, Field) and operand.name in ("weight", "expert") for operand in leaf.operands)
    return ~np.isnan(frame.value("expert")) if slots else None


def _over_slots(holds: NDArray[Any], known: NDArray[Any], chosen: Bool | None) -> Truth:
    """True if it is true of some slot that holds an expert, false if it is false of all of them."""
    if chosen is None:
        return Truth(holds, known & ~holds)
    some = np.asarray((holds & chosen).any(-1), np.bool_)
    all_known = np.asarray((known | ~chosen).all(-1) & chosen.any(-1), np.bool_)
    return Truth(some, all_known & ~some)


def _operand(operand: Operand, frame: Frame) -> NDArray[Any]:
    if isinstance(operand, Number):
        return np.array([[operand.value]], np.float64)
    return frame.weight_of(operand.expert) if isinstance(operand, Weight) else frame.value(operand.name)


def _member(leaf: Member, frame: Frame) -> Truth:
    values = frame.value(leaf.field)
    holds = np.zeros(values.shape, np.bool_)
    for low, high in leaf.ranges:
        holds |= (values >= low) & (values <= high)
    if values.ndim == 3:
        # Which experts were chosen is known; only of a site the token did not pass nothing can be said.
        if leaf.field == "expert":
            some = np.asarray(holds.any(-1), np.bool_)
            return Truth(some, ~some & frame.passed)
        return _over_slots(holds, ~np.isnan(values), ~np.isnan(frame.value("expert")))
    return _spread(Truth(holds, ~np.isnan(values) & ~holds), frame)


def _words(leaf: Words, frame: Frame) -> Truth:
    if leaf.field == "site":
        return _spread(_known(np.array([[site.name in leaf.values for site in frame.chosen]], np.bool_)), frame)
    column = frame.columns.phase if leaf.field == "phase" else frame.columns.stack
    held = np.array([word in leaf.values for word in frame.texts(leaf.field)] or [False], np.bool_)
    return _known(held[column][:, None])


def _text(leaf: Text, frame: Frame) -> Truth:
    test = {"contains": contains, "matches": matches, "equals": _equals}[leaf.how](leaf.pattern)
    return _known(frame.text_ids(test)[:, None])


def _equals(pattern: str) -> Callable[[str], bool]:
    return lambda text: text == pattern


def _mark(name: str, frame: Frame) -> Truth:
    if name == "pad":
        return _known(frame.columns.pad[:, None])
    flags = frame.block.flags
    if name in ("forced", "dropped"):
        return _known((flags & (SiteFlag.FORCED if name == "forced" else SiteFlag.DROPPED)) != 0)
    flagged = (flags & SiteFlag.NON_FINITE) != 0
    if not flagged.any():
        return _known(flagged)
    nan, infinite = _non_finite(frame, flagged)
    # Flagged, but the number that was not finite is not among those kept: it may have been either.
    unclear = flagged & ~nan & ~infinite
    found = nan if name == "nan" else infinite
    return _known(found | unclear)


def _non_finite(frame: Frame, flagged: Bool) -> tuple[Bool, Bool]:
    """Where the kept logits and weights of flagged places hold NaN, and where infinity."""
    nan, infinite = np.zeros(flagged.shape, np.bool_), np.zeros(flagged.shape, np.bool_)
    block = frame.block
    for column, site in enumerate(frame.chosen):
        rows = flagged[:, column]
        if not rows.any():
            continue
        if block.logits is not None:
            values = block.logits[rows, column, : site.num_classes]
            nan[rows, column] |= np.isnan(values).any(-1)
            infinite[rows, column] |= np.isinf(values).any(-1)
        if block.weights is not None:
            weights = frame.weights[rows, column]
            chosen = block.indices[rows, column] != NO_EXPERT
            nan[rows, column] |= (np.isnan(weights) & chosen).any(-1)
            infinite[rows, column] |= np.isinf(weights).any(-1)
    return nan, infinite


def _selected(terms: tuple[Node, ...], frame: Frame) -> Frame:
    """The frame at those sites that the terms can hold at: reading one layer is cheaper than reading all of many."""
    if len(frame.numbers) * len(frame.chosen) <= _FEW:
        return frame
    sites = np.ones(len(frame.chosen), np.bool_)
    for term in terms:
        if is_place(term):
            sites &= truth(term, _headless(frame)).true[0]
    return frame if sites.all() else frame.only(sites)


def _headless(frame: Frame) -> Frame:
    """One row of the frame: enough for what depends on the site alone."""
    first = np.zeros(len(frame.numbers), np.bool_)
    first[0] = True
    return frame.at(first)


def _spread(found: Truth, frame: Frame) -> Truth:
    """A truth that is one for all tokens, for each of them."""
    shape = (len(frame.numbers), found.true.shape[1])
    return Truth(np.broadcast_to(found.true, shape), np.broadcast_to(found.false, shape))


def _known(holds: NDArray[Any]) -> Truth:
    return Truth(holds, ~holds)


def _swapped(found: Truth) -> Truth:
    return Truth(found.false, found.true)


def _all(parts: list[Truth]) -> Truth:
    true, false = parts[0].true, parts[0].false
    for part in parts[1:]:
        true, false = true & part.true, false | part.false
    return Truth(true, false)
