"""One row a token, site and slot: what CSV and Parquet share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moetui.routing.events import BranchAdded
from moetui.routing.phase import Phase
from moetui.routing.step import NO_EXPERT
from moetui.routing.timeline import TimelineView
from moetui.trace.arrays import Array
from moetui.trace.recorded import Recorded

COLUMNS = (
    "run",
    "branch",
    "step",
    "phase",
    "position",
    "token_id",
    "token",
    "site",
    "layer",
    "slot",
    "expert",
    "weight",
)
_BLOCK_ROWS = 200_000


def table_blocks(recorded: Recorded) -> Iterator[dict[str, Array]]:
    """Numeric columns by name, a few hundred thousand rows at a time.

    Padding and slots without an expert have no row. ``site`` is the site's index, ``phase`` a ``Phase``; ``token``
    is left to the caller; a weight not known is NaN.
    """
    view = recorded.timeline
    branches = [item.event.branch for item in recorded.events if isinstance(item.event, BranchAdded)]
    runs = {branch.id: branch.run for branch in branches}
    layers = np.array([site.layer for site in view.sites], np.int32)
    size = max(1, _BLOCK_ROWS // max(1, len(view.sites) * max((site.top_k for site in view.sites), default=1)))
    for start in range(view.first, view.end, size):
        yield _block(view, start, min(start + size, view.end), runs, layers)


def phase_names() -> dict[int, str]:
    """The words for phases."""
    return {int(phase): phase.label for phase in Phase}


def _block(view: TimelineView, start: int, stop: int, runs: dict[int, int], layers: Array) -> dict[str, Array]:
    tokens, block = view.tokens(start, stop), view.routing(start, stop)
    row, site, slot = np.nonzero((block.indices != NO_EXPERT) & ~tokens.pad[:, None, None])
    weights = block.weights
    run = np.array([runs.get(branch, 0) for branch in tokens.branch.tolist()], np.int32)
    return {
        "run": run[row],
        "branch": tokens.branch[row],
        "step": tokens.step[row],
        "phase": tokens.phase[row],
        "position": tokens.position[row],
        "token_id": tokens.token_id[row],
        "site": site.astype(np.int32),
        "layer": layers[site],
        "slot": slot.astype(np.int32),
        "expert": block.indices[row, site, slot].astype(np.int32),
        "weight": np.full(len(row), np.nan, np.float32)
        if weights is None
        else weights[row, site, slot].astype(np.float32),
    }
