"""Which token of one run stands against which of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moetui.routing.branches import Line, line_rows
from moetui.routing.step import I32, I64, Bool
from moetui.routing.timeline import TimelineView


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Pairs of tokens, in the order in which the first run met them.

    Attributes:
        a: ``[p]`` timeline numbers in the first view; ``b`` in the second.
        same: ``[p]`` whether both are the same token; where an id is unknown this is assumed.
        prefix: ``[p]`` whether this and all tokens before it in its sequence are the same.
        known: whether any pair's token ids were known.
        only_a: number of tokens of the first run without a partner; ``only_b`` of the second.
    """

    a: I64
    b: I64
    same: Bool
    prefix: Bool
    known: bool
    only_a: int
    only_b: int


def align(a: TimelineView, b: TimelineView, line_a: Line | None = None, line_b: Line | None = None) -> Alignment:
    """Pair tokens at the same position of the same stack and batch row.

    Branches meet their namesakes, unless a sequence is chosen on a side: then only its tokens take part, and of two in
    one view those that they do not share. Where a branch passed a position several times (several prompts), the n-th
    time meets the n-th. Padding has no partner.
    """
    stacks = {name: number for number, name in enumerate(dict.fromkeys((*a.stacks, *b.stacks)))}
    chosen = line_a is not None or line_b is not None
    one = a is b
    keys_a, numbers_a, ids_a = _places(a, stacks, line_a, line_b if one else None, chosen)
    keys_b, numbers_b, ids_b = _places(b, stacks, line_b, line_a if one else None, chosen)
    both, rows_a, rows_b = _intersection(keys_a, keys_b)
    order = np.argsort(rows_a, kind="stable")
    both, rows_a, rows_b = both[order], rows_a[order], rows_b[order]
    known = (ids_a[rows_a] >= 0) & (ids_b[rows_b] >= 0)
    same = ~known | (ids_a[rows_a] == ids_b[rows_b])
    return Alignment(
        numbers_a[rows_a],
        numbers_b[rows_b],
        same,
        _prefixes(both, same),
        bool(known.any()),
        len(keys_a) - len(both),
        len(keys_b) - len(both),
    )


def _places(
    view: TimelineView, stacks: dict[str, int], line: Line | None, other: Line | None, chosen: bool
) -> tuple[I64, I64, I32]:
    """``[n, 5]`` branch, stack, row, how often the position was met before, position; numbers and ids of the tokens."""
    columns = view.tokens(view.first, view.end)
    keep = ~columns.pad
    if line is not None:
        keep &= line_rows(columns, line, view.stacks)
        if other is not None:
            keep &= ~line_rows(columns, other, view.stacks)
    rows = np.flatnonzero(keep)
    own = np.array([stacks[name] for name in view.stacks] or [0], np.int64)
    key = np.stack(
        [
            np.zeros(rows.size, np.int64) if chosen else columns.branch[rows].astype(np.int64),
            own[columns.stack[rows]],
            columns.sequence[rows].astype(np.int64),
            np.zeros(rows.size, np.int64),
            columns.position[rows].astype(np.int64),
        ],
        axis=1,
    )
    _, group = np.unique(key, axis=0, return_inverse=True)
    key[:, 3] = _occurrence(group.ravel())
    return key, rows + view.first, columns.token_id[rows]


def _occurrence(group: I64) -> I64:
    """How many equal values stand before each value."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.r_[ordered.size > 0, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, ordered.size])
    out = np.empty(group.shape, np.int64)
    out[order] = np.arange(ordered.size) - np.repeat(starts, lengths)
    return out


def _intersection(a: I64, b: I64) -> tuple[I64, I64, I64]:
    """Rows that both have (no row is there twice), and where they are in each."""
    _, group = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)
    _, rows_a, rows_b = np.intersect1d(group.ravel()[: len(a)], group.ravel()[len(a) :], True, return_indices=True)
    return a[rows_a], rows_a.astype(np.int64), rows_b.astype(np.int64)


def _prefixes(keys: I64, same: Bool) -> Bool:
    """Whether no earlier position of the same sequence differs."""
    if not len(keys):
        return same
    order = np.lexsort(keys.T[::-1])
    ordered, equal = keys[order], same[order]
    fresh = np.r_[True, (ordered[1:, :4] != ordered[:-1, :4]).any(1)]
    differences = np.cumsum(~equal)
    starts = np.maximum.accumulate(np.where(fresh, np.arange(len(ordered)), 0))
    out = np.empty(len(ordered), np.bool_)
    out[order] = differences == (differences - ~equal)[starts]
    return out
