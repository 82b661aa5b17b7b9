"""A timeline without the tokens of branches that were deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from moetui.routing.branches import BranchTree, Line, line_rows
from moetui.routing.model import Site
from moetui.routing.phase import Phase
from moetui.routing.step import Bool
from moetui.routing.timeline import RoutingBlock, StepColumns, TimelineView, TokenColumns, view_text

_BLOCK = 256


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeptView:
    """A view in which tokens that are gone are padding, which nothing counts or shows; their steps are not there.

    Tokens keep their numbers.

    Attributes:
        gone: by branch, the position from which its tokens are gone (``BranchTree.gone``).
        sites: those of the view, in a tuple of their own: who keeps sums over tokens by their sites begins anew when
            other tokens are gone.
    """

    view: TimelineView
    gone: Mapping[int, int]
    sites: tuple[Site, ...]

    def __repr__(self) -> str:
        return f"<{view_text(self)}>"

    @property
    def first(self) -> int:
        """Number of the oldest token held."""
        return self.view.first

    @property
    def end(self) -> int:
        """One past the newest token."""
        return self.view.end

    @property
    def stacks(self) -> tuple[str, ...]:
        """Names that ``TokenColumns.stack`` indexes."""
        return self.view.stacks

    def tokens(self, start: int, stop: int) -> TokenColumns:
        """Light columns of tokens ``start .. stop - 1``, clipped to what is held."""
        columns = self.view.tokens(start, stop)
        gone = self._gone(columns)
        return replace(columns, pad=columns.pad | gone) if gone.any() else columns

    def routing(self, start: int, stop: int) -> RoutingBlock:
        """Routing of tokens ``start .. stop - 1``, clipped to what is held."""
        return self.view.routing(start, stop)

    def steps(self) -> StepColumns:
        """The steps whose tokens are held and not gone."""
        steps = self.view.steps()
        rows = np.flatnonzero(np.isin(steps.branch, list(self.gone)))
        if not rows.size:
            return steps
        first = steps.first_token.astype(np.int64)[rows]
        start = max(self.view.first, int(first.min()))
        columns = self.view.tokens(start, int(first.max()) + 1)
        at = np.clip(first - start, 0, len(columns.position) - 1)
        keep = np.ones(len(steps.branch), np.bool_)
        keep[rows[self._gone(columns)[at]]] = False
        return StepColumns(**{field.name: getattr(steps, field.name)[keep] for field in fields(StepColumns)})

    def text(self, token_id: int) -> str:
        """Text of a token id (not yet made drawable); ``‹id›`` where unknown."""
        return self.view.text(token_id)

    def _gone(self, columns: TokenColumns) -> Bool:
        numbers = np.array(sorted(self.gone), np.int64)
        starts = np.array([self.gone[number] for number in numbers.tolist()], np.int64)
        at = np.minimum(np.searchsorted(numbers, columns.branch), len(numbers) - 1)
        after = columns.position >= starts[at]
        others = [number for number, name in enumerate(self.view.stacks) if name != "decoder"]
        if others:  # positions are the decoder's; what an encoder read is shared as a whole
            after = np.where(np.isin(columns.stack, others), starts[at] == 0, after)
        return np.asarray((numbers[at] == columns.branch) & after, np.bool_)


class KeptTimeline:
    """What is held of a timeline that grows, and of a tree whose branches are deleted meanwhile: a ``TimelineSource``.

    Args:
        view: gives the view with all tokens.
        tree: gives the tree as it is now.
    """

    def __init__(self, view: Callable[[], TimelineView], tree: Callable[[], BranchTree]) -> None:
        self._view, self._tree = view, tree
        self._known: tuple[BranchTree | None, Mapping[int, int]] = (None, {})
        self._made: tuple[tuple[Site, ...], Mapping[int, int], tuple[Site, ...]] = ((), {}, ())

    def snapshot(self) -> TimelineView:
        """The present picture; while nothing is gone the very one with all tokens."""
        view, gone = self._view(), self._gone()
        if not gone:
            return view
        sites, known, own = self._made
        if sites is not view.sites or known != gone:
            own = tuple(list(view.sites))  # noqa: C414 - another tuple, not the same one
            self._made = (view.sites, gone, own)
        return KeptView(view, gone, own)

    def _gone(self) -> Mapping[int, int]:
        tree = self._tree()
        known, gone = self._known
        if tree is not known:
            gone = tree.gone
            self._known = (tree, gone)
        return gone


def newest_token(view: TimelineView, line: Line | None = None) -> int | None:
    """The newest token that is no padding; None if there is none.

    Args:
        line: of a branch, of whose sequence it is to be; None for any.
    """
    for stop in range(view.end, view.first, -_BLOCK):
        start = max(view.first, stop - _BLOCK)
        columns = view.tokens(start, stop)
        rows = np.flatnonzero(~columns.pad if line is None else ~columns.pad & line_rows(columns, line, view.stacks))
        if rows.size:
            return start + int(rows[-1])
    return None


def before_token(view: TimelineView, token: int) -> str:
    """Where a run stands that was taken back to a token, in words: a prompt goes through the model as a whole."""
    phase = view.tokens(token, token + 1).phase
    whole = bool(phase.size) and int(phase[0]) == Phase.PREFILL
    return f"before the prompt, which token {token} is of" if whole else f"before token {token}"


def newest_branch(view: TimelineView) -> int | None:
    """The branch of the newest token that is no padding; None if there is none."""
    newest = newest_token(view)
    return None if newest is None else int(view.tokens(newest, newest + 1).branch[0])


def without_deleted(view: TimelineView, tree: BranchTree) -> TimelineView:
    """A view without the tokens of deleted branches that no other branch shares."""
    return KeptTimeline(lambda: view, lambda: tree).snapshot()
