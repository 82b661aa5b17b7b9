"""Queries at random, and a slow way of answering them, one token and one site at a time."""

from __future__ import annotations

import math
import operator
import re
from typing import Any

import numpy as np
from hypothesis import strategies as st

from moetui.routing import NO_EXPERT, Phase, SiteFlag, TimelineView, metrics
from moetui.routing.query import tree

_OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_SITE = (
    "layer",
    "site",
    "expert",
    "first",
    "weight",
    "entropy",
    "margin",
    "load_cv",
    "forced",
    "dropped",
    "nan",
    "inf",
    "flip",
)

small = st.integers(0, 5)
value = st.one_of(small.map(str), st.sampled_from(["0.25", "0.5", "1.1", "-0.4", "2"]))
ranges = st.one_of(small.map(str), st.tuples(small, small).map(lambda pair: f"{min(pair)}-{max(pair)}"))
numeric = st.sampled_from(
    [
        "layer",
        "expert",
        "first",
        "weight",
        "weight[2]",
        "entropy",
        "margin",
        "position",
        "index",
        "id",
        "logp",
        "prob",
        "conf",
    ]
)
leaf = st.one_of(
    st.tuples(st.sampled_from(["layer", "expert", "first", "position", "id", "branch", "site"]), ranges, ranges).map(
        lambda parts: f"{parts[0]}:{parts[1]},{parts[2]}"
    ),
    small.map(lambda number: f"expert:{number}"),
    st.tuples(numeric, st.sampled_from(list(_OPERATORS)), value).map(" ".join),
    st.tuples(value, numeric, value).map(lambda parts: f"{parts[0]} < {parts[1]} <= {parts[2]}"),
    st.tuples(numeric, numeric).map(" >= ".join),
    small.map(lambda number: f"{number} not in topk"),
    st.sampled_from(["forced", "dropped", "nan", "inf", "pad", "phase:decode", "site:L1", "stack == decoder"]),
    st.sampled_from(
        ['token:"w1"', 'token == " w2"', 'token ~ "[1-3]$"', 'token !~ "1"', '"W"', "flip vs 0", "load_cv > 0.6"]
    ),
)


def _joined(parts: list[str], word: str) -> str:
    return "(" + word.join(parts) + ")"


text = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: _joined(parts, " ")),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: _joined(parts, " or ")),
        inner.map(lambda part: f"-{part}" if not part.startswith("-") and not part[0].isdigit() else f"not {part}"),
    ),
    max_leaves=6,
)


class Slow:
    """Answers a query by its definition."""

    def __init__(self, view: TimelineView) -> None:
        self.view = view
        self.columns = view.tokens(0, view.end)
        self.block = view.routing(0, view.end)
        self.entropy = metrics.site_entropy(self.block.logits, view.sites, view.end)
        self.margin = metrics.site_margin(self.block.logits, view.sites, view.end)

    def match(self, node: tree.Node, token: int) -> bool:
        mentions_pad = any(isinstance(part, tree.Mark) and part.name == "pad" for part in tree.leaves(node))
        return (mentions_pad or not self.columns.pad[token]) and self._match(node, token)

    def _match(self, node: tree.Node, token: int) -> bool:
        if isinstance(node, tree.Or):
            return any(self._match(term, token) for term in node.terms)
        terms = node.terms if isinstance(node, tree.And) else (node,)
        light = [term for term in terms if not self._asks_site(term)]
        heavy = [term for term in terms if self._asks_site(term)]
        if not all(self.holds(term, token, 0) for term in light):
            return False
        if not heavy:
            return True
        sites = [site.index for site in self.view.sites if self.passed(token, site.index)]
        if all(isinstance(term, tree.Not) and not self._says_where(term) for term in heavy):
            return all(self.beside(term, token, -1, sites) for term in heavy)
        return any(self.beside(tree.And(tuple(heavy)), token, site, sites) for site in sites)

    def beside(self, node: tree.Node, token: int, site: int, sites: list[int]) -> bool:
        """Whether ``node`` holds at ``site``, and its negated terms at each of ``sites``, fewer if it says where."""
        if isinstance(node, tree.Or):
            return any(self.beside(term, token, site, sites) for term in node.terms)
        if isinstance(node, tree.And):
            where = [term for term in node.terms if self._says_where(term)]
            sites = [other for other in sites if all(self.holds(term, token, other) for term in where)]
            return all(self.beside(term, token, site, sites) for term in node.terms)
        if isinstance(node, tree.Not) and self._asks_site(node) and not self._says_where(node):
            return all(self.holds(node, token, other) for other in sites)
        return self.holds(node, token, site) is True

    def _says_where(self, node: tree.Node) -> bool:
        return all(name in ("layer", "site") for part in tree.leaves(node) for name in tree.names(part))

    def _asks_site(self, node: tree.Node) -> bool:
        return any(name in _SITE for part in tree.leaves(node) for name in tree.names(part))

    def passed(self, token: int, site: int) -> bool:
        return bool(self.slots(token, site)) or bool(self.block.flags[token, site] & SiteFlag.DROPPED)

    def slots(self, token: int, site: int) -> list[int]:
        return [slot for slot, expert in enumerate(self.block.indices[token, site].tolist()) if expert != NO_EXPERT]

    def experts(self, token: int, site: int) -> list[int]:
        return [int(self.block.indices[token, site, slot]) for slot in self.slots(token, site)]

    def holds(self, node: tree.Node, token: int, site: int) -> bool | None:
        if isinstance(node, tree.Not):
            inner = self.holds(node.term, token, site)
            return None if inner is None else not inner
        if isinstance(node, tree.And | tree.Or):
            parts = [self.holds(term, token, site) for term in node.terms]
            decisive = isinstance(node, tree.Or)
            if decisive in parts:
                return decisive
            return None if None in parts else not decisive
        return self._leaf(node, token, site)

    def _leaf(self, node: tree.Leaf, token: int, site: int) -> bool | None:
        columns = self.columns
        if isinstance(node, tree.Text):
            found = self.view.text(int(columns.token_id[token]))
            if node.how == "contains":
                fold = node.pattern == node.pattern.lower()
                return node.pattern in (found.lower() if fold else found)
            return found == node.pattern if node.how == "equals" else re.search(node.pattern, found) is not None
        if isinstance(node, tree.Words):
            words = {
                "phase": Phase(int(columns.phase[token])).label,
                "stack": self.view.stacks[int(columns.stack[token])],
                "site": self.view.sites[site].name,
            }
            return words[node.field] in node.values
        if isinstance(node, tree.Flip):
            return self._flip(node.branch, token, site)
        if isinstance(node, tree.Mark):
            return self._mark(node.name, token, site)
        if isinstance(node, tree.Member):
            if node.field == "expert" and not self.passed(token, site):
                return None
            values = self._values(node.field, token, site)
            if node.field == "expert":
                return any(low <= found <= high for found in values for low, high in node.ranges)
            return self._some(
                [{"": found} for found in values],
                lambda found: any(low <= found[""] <= high for low, high in node.ranges),
            )
        return self._compare(node, token, site)

    def _compare(self, node: tree.Compare, token: int, site: int) -> bool | None:
        names = [str(part) for part in node.operands]
        slotted = any(name in ("weight", "expert") for name in names)
        cases = []
        for slot in self.slots(token, site) if slotted else [None]:
            case: dict[str, Any] = {}
            for name, operand in zip(names, node.operands):
                if isinstance(operand, tree.Number):
                    case[name] = operand.value
                elif name in ("weight", "expert"):
                    case[name] = self._values(name, token, site)[self.slots(token, site).index(slot)]
                elif isinstance(operand, tree.Weight):
                    chosen = self.experts(token, site)
                    values = self._values("weight", token, site)
                    case[name] = values[chosen.index(operand.expert)] if operand.expert in chosen else math.nan
                else:
                    case[name] = self._values(name, token, site)[0]
            cases.append(case)
        return self._some(
            cases,
            lambda case: all(
                _OPERATORS[sign](case[left], case[right]) for sign, left, right in zip(node.operators, names, names[1:])
            ),
        )

    def _some(self, cases: list[dict[str, float]], test: Any) -> bool | None:
        known = [case for case in cases if not any(math.isnan(found) for found in case.values())]
        if any(test(case) for case in known):
            return True
        return False if cases and len(known) == len(cases) else None

    def _values(self, name: str, token: int, site: int) -> list[float]:
        columns = self.columns
        if name == "expert":
            return [float(expert) for expert in self.experts(token, site)]
        if name == "weight":
            if self.block.weights is None:
                return [math.nan for _ in self.slots(token, site)]
            return [float(self.block.weights[token, site, slot]) for slot in self.slots(token, site)]
        if name == "first":
            weights = self._values("weight", token, site)
            order = sorted(range(len(weights)), key=lambda slot: (math.isnan(weights[slot]), -weights[slot]))
            return [float(self.experts(token, site)[order[0]])] if order else [math.nan]
        if name == "load_cv":
            return [self._load_cv(token, site)]
        single: dict[str, float] = {
            "layer": self.view.sites[site].layer,
            "site": site,
            "entropy": self.entropy[token, site],
            "margin": self.margin[token, site],
            "index": token,
            "position": columns.position[token] if columns.position[token] >= 0 else math.nan,
            "id": columns.token_id[token] if columns.token_id[token] >= 0 else math.nan,
            "branch": columns.branch[token],
            "logp": columns.logprob[token],
            "prob": math.exp(columns.logprob[token]),
            "conf": columns.confidence[token],
        }
        return [float(single[name])]

    def _load_cv(self, token: int, site: int) -> float:
        counts = np.zeros(self.view.sites[site].num_experts)
        for other in range(max(0, token - 63), token + 1):
            if not self.columns.pad[other]:
                for expert in self.experts(other, site):
                    counts[expert] += 1
        return float(np.std(counts) / counts.mean()) if counts.any() else math.nan

    def _flip(self, branch: int, token: int, site: int) -> bool | None:
        columns = self.columns
        if columns.branch[token] == branch:
            return None
        for other in reversed(range(self.view.end)):
            if (
                columns.branch[other] == branch
                and not columns.pad[other]
                and columns.position[other] == columns.position[token]
            ):
                here, there = set(self.experts(token, site)), set(self.experts(other, site))
                return here != there if here and there else None
        return None

    def _mark(self, name: str, token: int, site: int) -> bool:
        if name == "pad":
            return bool(self.columns.pad[token])
        flags = int(self.block.flags[token, site])
        if name in ("forced", "dropped"):
            return bool(flags & (SiteFlag.FORCED if name == "forced" else SiteFlag.DROPPED))
        if not flags & SiteFlag.NON_FINITE:
            return False
        seen = list(self._values("weight", token, site)) if self.block.weights is not None else []
        if self.block.logits is not None:
            seen += self.block.logits[token, site, : self.view.sites[site].num_classes].tolist()
        nan, infinite = any(map(math.isnan, seen)), any(map(math.isinf, seen))
        return (nan if name == "nan" else infinite) or not (nan or infinite)
