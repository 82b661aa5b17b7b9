"""The routing of a recording as the engine wants it: looked up by site, sequence and position, on the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from moetui.engine.interventions.site_function import Recorded
from moetui.routing import NO_EXPERT, Site, TimelineView
from moetui.routing.branches import Line, line_rows
from moetui.routing.events import Finding
from moetui.routing.step import F16, U16

_CHUNK = 4096


def recorded_routing(
    view: TimelineView,
    line: Line = ((0, None),),
    sequence: int | None = None,
    on_finding: Callable[[Finding], None] = lambda _: None,
) -> Recorded:
    """Look up what a recording's tokens did, by their sequence and the position in it.

    Args:
        view: the recording; read in slices, and kept in memory as ``[sequences, positions, S, K]`` indices and weights.
        line: the branch to follow, from its start (``BranchTree.line``).
        sequence: the row of the recording's batch that all sequences follow; None where each follows its own.
        on_finding: told once of sequences that the recording lacks, and of each site whose tokens cannot be told; in
            the generating thread.

    Returns:
        A lookup by site name, sequence and position. What the recording has not is unknown and keeps its own routing,
        as do tokens that got no expert there.
    """
    indices, weights = _by_position(view, line, sequence)
    numbers = {site.name: site.index for site in view.sites}
    cache: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
    told: set[str] = set()

    def tell(kind: str, message: str, suggestion: str, site: str | None = None) -> None:
        if kind + (site or "") not in told:
            told.add(kind + (site or ""))
            on_finding(Finding(kind, "warning", message, suggestion, site))

    def lookup(site: Site, positions: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor] | None:
        number = numbers.get(site.name)
        if number is None or not indices.size:
            return None
        if not batch:
            message = (
                f"{site.name} keeps its own routing: it gets some of the tokens only, or all of them several times"
            )
            tell("replay_unplaced", message, "a recording tells the routing of whole sequences, passed once", site.name)
            return None
        held, length = indices.shape[:2]
        if batch > held and sequence is None:
            message = f"the recording has {held} of the batch's {batch} sequences: the others keep their own routing"
            tell("replay_lacks_sequences", message, "replay as many as were recorded, or say which one all follow")
        key = (number, positions.device)
        if key not in cache:
            cache[key] = (
                torch.from_numpy(indices[:, :, number].astype(np.int64)).flatten(0, 1).to(positions.device),
                torch.from_numpy(weights[:, :, number].astype(np.float32)).flatten(0, 1).to(positions.device),
            )
        stored, weighed = cache[key]
        here = (positions >= 0) & (positions < length)
        at = positions.clamp(0, length - 1)
        if sequence is None:
            own = torch.arange(len(positions), device=positions.device) // (len(positions) // batch)
            here &= own < held
            at = at + own.clamp(max=held - 1) * length
        chosen, gate = stored[at], weighed[at]
        empty = (chosen == NO_EXPERT) | (chosen >= max(site.num_experts, site.num_classes))
        return chosen.masked_fill(empty, 0), gate.masked_fill(empty, 0.0), here & ~empty.all(-1)

    return lookup


def _by_position(view: TimelineView, line: Line, sequence: int | None) -> tuple[U16, F16]:
    """``[sequences, positions, S, K]``; of one sequence where it is said which."""
    blocks = []
    for start in range(view.first, view.end, _CHUNK):
        tokens = view.tokens(start, start + _CHUNK)
        mine = line_rows(tokens, line, view.stacks) & (tokens.position >= 0) & (tokens.sequence >= 0)
        if sequence is not None:
            mine &= tokens.sequence == sequence
        if mine.any():
            block = view.routing(start, start + _CHUNK)
            gate = np.full(block.indices.shape, np.nan, np.float16) if block.weights is None else block.weights
            own = tokens.sequence[mine] if sequence is None else np.zeros(int(mine.sum()), np.int16)
            blocks.append((own, tokens.position[mine], block.indices[mine], gate[mine]))
    held = 1 + max((int(block[0].max()) for block in blocks), default=-1)
    length = 1 + max((int(block[1].max()) for block in blocks), default=-1)
    slots = max((block[2].shape[2] for block in blocks), default=1)
    indices = np.full((held, length, len(view.sites), slots), NO_EXPERT, np.uint16)
    weights = np.full(indices.shape, np.nan, np.float16)
    for own, position, chosen, gate in blocks:
        row, site = np.nonzero((chosen != NO_EXPERT).any(-1))  # an encoder's token has the position of a decoder's
        indices[own[row], position[row], site, : chosen.shape[2]] = chosen[row, site]
        weights[own[row], position[row], site, : chosen.shape[2]] = gate[row, site]
    return indices, weights
