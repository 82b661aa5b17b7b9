"""A recording cut into samples: the tokens that went through one stack as one sequence of one branch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moetui.routing.model import Site
from moetui.routing.step import F32, I64
from moetui.routing.timeline import RoutingBlock, TimelineView
from moetui.trace.recorded import Recorded

_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Tokens ``rows`` of the timeline, in order: prompt, then generated; without padding.

    ``token_ids`` and ``logprobs`` are theirs; ``sites`` are those of their stack.
    """

    rows: I64
    token_ids: I64
    logprobs: F32
    sites: tuple[Site, ...]


def samples_of(recorded: Recorded) -> list[Sample]:
    """The samples in the order in which they began."""
    view = recorded.timeline
    keys, ids, logprobs, rows = [], [], [], []
    for start, stop in light_blocks(view):
        tokens = view.tokens(start, stop)
        keep = ~tokens.pad
        rows.append(np.arange(start, stop)[keep])
        columns = (tokens.branch, tokens.sequence, tokens.stack)
        keys.append(np.stack([column[keep].astype(np.int64) for column in columns], axis=1))
        ids.append(tokens.token_id[keep].astype(np.int64))
        logprobs.append(tokens.logprob[keep])
    if not rows:
        return []
    key, row, token_id, logprob = (np.concatenate(parts) for parts in (keys, rows, ids, logprobs))
    _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    out = []
    for number in np.argsort(first, kind="stable").tolist():
        own = group.reshape(-1) == number
        stack = int(key[first[number], 2])
        name = view.stacks[stack] if stack < len(view.stacks) else "decoder"
        sites = tuple(site for site in view.sites if site.stack == name) or view.sites
        out.append(Sample(row[own], token_id[own], logprob[own], sites))
    return out


def light_blocks(view: TimelineView, rows: int = 16_384) -> Iterator[tuple[int, int]]:
    """Ranges that cover a view's tokens."""
    for start in range(view.first, view.end, rows):
        yield start, min(start + rows, view.end)


def heavy_blocks(view: TimelineView, rows: I64) -> Iterator[tuple[I64, RoutingBlock]]:
    """Blocks of the timeline that hold ``rows`` (ascending): which rows of each block, and the block."""
    width = 2 * max(1, len(view.sites)) * max((max(site.num_classes, site.top_k) for site in view.sites), default=1)
    size = max(1, min(4096, _BLOCK_BYTES // max(1, width)))
    at = 0
    while at < len(rows):
        start = int(rows[at])
        stop = int(np.searchsorted(rows, start + size))
        yield rows[at:stop] - start, view.routing(start, int(rows[stop - 1]) + 1)
        at = stop
