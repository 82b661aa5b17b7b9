"""A parsed query, ready to be asked of any view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moetui.routing.model import Site
from moetui.routing.query.evaluate import at_sites, matching
from moetui.routing.query.explain import Explanation, explain_tree
from moetui.routing.query.frame import Frame, Source
from moetui.routing.query.names import Known, coming_branches
from moetui.routing.query.parser import parse_tree
from moetui.routing.query.tree import Node, asks_about, is_condition, is_site_level, leaves, names
from moetui.routing.step import Bool
from moetui.routing.timeline import TimelineView
from moetui.routing.totals import chunk_tokens


@dataclass(frozen=True, slots=True)
class Needs:
    """What a query reads beyond the light columns.

    Attributes:
        routing: experts and flags; ``weights`` and ``logits`` likewise.
        history: tokens before the one asked about (``load_cv``, ``flip``).
        text: the token's text.
    """

    routing: bool = False
    weights: bool = False
    logits: bool = False
    history: bool = False
    text: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A filter, a search, a breakpoint's condition. Equal queries have equal trees; ``str`` parses back to the same.

    A token matches if there is a site that it passed at which all site-level terms hold together, and all token-level
    terms hold of it: ``layer:3 expert:5 entropy>1.2`` asks for a token that at a site of layer 3 went to expert 5 with
    that entropy. Terms of ``layer`` and ``site`` alone say where the others are asked. A negated site-level term must
    hold at every such site that the token passed: ``-forced`` asks for tokens that were forced nowhere, ``entropy>1.2
    -forced`` for those of them with that entropy at some site, and ``layer:3 -forced`` for those not forced in layer 3.
    So any term but one of place can only narrow what it is added to. Alternatives (``or``) are judged each by itself.

    ``weight`` alone is the weight of some chosen expert, and beside ``expert:5`` that expert's. What is
    unknown matches nothing, negated or not. Padding matches only queries that mention ``pad``.
    """

    tree: Node

    def __str__(self) -> str:
        return str(self.tree)

    @property
    def site_level(self) -> bool:
        """Whether it asks about sites."""
        return is_site_level(self.tree)

    @property
    def conditional(self) -> bool:
        """Whether it says anything of the values that it names."""
        return is_condition(self.tree)

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that it asks about."""
        return frozenset(name for leaf in leaves(self.tree) for name in names(leaf))

    def coming_branches(self, branches: Mapping[str, int]) -> list[int]:
        """The branches that it names by numbers that none has yet, ascending."""
        return coming_branches(self.tree, branches)

    @property
    def needs(self) -> Needs:
        """What has to be read to answer it."""
        asked = self.fields
        return Needs(
            routing=self.site_level,
            weights=bool(asked & {"weight", "first", "nan", "inf"}),
            logits=bool(asked & {"entropy", "margin", "nan", "inf"}),
            history=bool(asked & {"load_cv", "flip"}),
            text="token" in asked,
        )

    def match(self, view: TimelineView, start: int, stop: int) -> Bool:
        """Which tokens match.

        Args:
            view: where they are.
            start: number of the first token.
            stop: one past the last.

        Returns:
            ``[n]``, one for each token of the range that the view holds, as ``view.tokens(start, stop)`` has them.
        """
        return match_all((self,), view, start, stop)[0]

    def match_sites(self, view: TimelineView, start: int, stop: int) -> Bool:
        """Where they match: at which of the sites that a matching token passed the site-level terms hold.

        Returns:
            ``[n, S]``; of a query without site-level terms, all sites passed. All False for tokens that do not match.
        """
        frames = _frames(view, start, stop)
        return np.concatenate([at_sites(self.tree, frame) & self.matching(frame)[:, None] for frame in frames])

    def explain(self, view: TimelineView, token: int) -> Explanation:
        """Why the token matches or not, with the values of each term.

        Raises:
            IndexError: the view does not hold the token.
        """
        if not view.first <= token < view.end:
            raise IndexError(f"token {token} is not held")
        return explain_tree(self.tree, Frame.of(Source(view), token, token + 1))

    def matching(self, frame: Frame) -> Bool:
        """Which of a frame's tokens match; padding does only where the query asks about it."""
        found = matching(self.tree, frame)
        return found if asks_about(self.tree, "pad") else found & ~frame.columns.pad


def match_all(queries: Sequence[Query], view: TimelineView, start: int, stop: int) -> list[Bool]:
    """Which tokens match each of several queries, as ``Query.match`` says of one; what they ask about is read once."""
    found: list[list[Bool]] = [[] for _ in queries]
    for frame in _frames(view, start, stop):
        for query, pieces in zip(queries, found):
            pieces.append(query.matching(frame))
    return [pieces[0] if len(pieces) == 1 else np.concatenate(pieces) for pieces in found]


def _frames(view: TimelineView, start: int, stop: int) -> Iterator[Frame]:
    """The range in pieces, one at least; each is forgotten before the next is read."""
    low = min(max(start, view.first), view.end)
    high = max(low, min(stop, view.end))
    source, size = Source(view), chunk_tokens(view.sites)
    for at in range(low, max(high, low + 1), size):
        yield Frame.of(source, at, min(at + size, high))


def parse(
    text: str, branches: Mapping[str, int] | None = None, sites: Sequence[Site] = (), *, values: bool = False
) -> Query:
    """Parse a filter line, a search or a breakpoint's condition.

    Terms are ``field:value`` (``layer:3``, ``layer:2-5,7``, ``token:"foo"``, ``phase:decode``), comparisons
    (``entropy < 0.3``, ``0.1 < weight[5] <= 0.4``), ``3 in topk``, ``token ~ "regex"``, marks (``forced``) and
    ``flip vs BRANCH``; joined by ``and`` (or nothing), ``or``, ``not`` (or ``-``) and parentheses. See ``Query`` for
    what they mean together.

    Args:
        text: the query; an empty one matches every token but padding.
        branches: numbers of branches by name.
        sites: those of the model, where it is known: a query that names others could never hold, and is refused.
        values: whether a number may stand alone (``entropy``), to be looked at: it holds where it is known.

    Raises:
        QueryError: it does not parse, or names a layer, site, expert, stack or branch that there is not; with the place
            and, where there is one, a better word.
    """
    return Query(parse_tree(text, Known(sites, branches or {}), values=values))
