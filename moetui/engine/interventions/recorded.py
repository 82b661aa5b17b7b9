"""The routing of a recording as the engine wants it: looked up by site and sequence position, on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moetui.engine.interventions.site_function import Recorded
from moetui.routing import NO_EXPERT, Site, TimelineView
from moetui.routing.branches import Line, line_rows
from moetui.routing.step import F16, U16

_CHUNK = 4096


def recorded_routing(view: TimelineView, line: Line = ((0, None),), sequence: int = 0) -> Recorded:
    """Look up what a recording's tokens did, by the position in their sequence.

    Args:
        view: the recording; read in slices, and kept in memory as ``[positions, S, K]`` indices and weights.
        line: the branch to follow, from its start (``BranchTree.line``).
        sequence: the row of the batch to follow.

    Returns:
        A lookup by site name and position; positions that the recording has not, and tokens that got no expert there,
        are unknown and keep their own routing.
    """
    indices, weights = _by_position(view, line, sequence)
    numbers = {site.name: site.index for site in view.sites}
    cache: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def lookup(site: Site, positions: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        number = numbers.get(site.name)
        if number is None or not len(indices):
            return None
        key = (number, positions.device)
        if key not in cache:
            cache[key] = (
                torch.from_numpy(indices[:, number].astype(np.int64)).to(positions.device),
                torch.from_numpy(weights[:, number].astype(np.float32)).to(positions.device),
            )
        stored, weighed = cache[key]
        rows = positions.clamp(0, stored.shape[0] - 1)
        chosen, gate = stored[rows], weighed[rows]
        empty = chosen == NO_EXPERT
        known = (positions >= 0) & (positions < stored.shape[0]) & ~empty.all(-1)
        gate = gate.masked_fill(empty, 0.0)
        return chosen.masked_fill(empty | (chosen >= site.num_experts), 0), gate, known

    return lookup


def _by_position(view: TimelineView, line: Line, sequence: int) -> tuple[U16, F16]:
    blocks = []
    for start in range(view.first, view.end, _CHUNK):
        tokens = view.tokens(start, start + _CHUNK)
        mine = line_rows(tokens, line, view.stacks) & (tokens.sequence == sequence) & (tokens.position >= 0)
        if mine.any():
            block = view.routing(start, start + _CHUNK)
            gate = np.full(block.indices.shape, np.nan, np.float16) if block.weights is None else block.weights
            blocks.append((tokens.position[mine], block.indices[mine], gate[mine]))
    length = 1 + max((int(block[0].max()) for block in blocks), default=-1)
    slots = max((block[1].shape[2] for block in blocks), default=1)
    indices = np.full((length, len(view.sites), slots), NO_EXPERT, np.uint16)
    weights = np.full(indices.shape, np.nan, np.float16)
    for position, chosen, gate in blocks:
        row, site = np.nonzero((chosen != NO_EXPERT).any(-1))  # an encoder's token has the position of a decoder's
        indices[position[row], site, : chosen.shape[2]] = chosen[row, site]
        weights[position[row], site, : chosen.shape[2]] = gate[row, site]
    return indices, weights
