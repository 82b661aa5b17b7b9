"""What the title says of a run, from the timeline's arrays: nothing that a first picture needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moetui.routing import Phase, TimelineView
from moetui.routing.branches import BranchTree, line_rows
from moetui.routing.events import Branch
from moetui.tui.status import RunFacts

_RATE_STEPS = 32


def run_facts(view: TimelineView, branches: Sequence[Branch]) -> RunFacts:
    """Tokens and rate of the last of the branches; for a recording of unknown branches, of all steps."""
    steps = view.steps()
    mine = np.flatnonzero(steps.branch == branches[-1].id) if branches else np.arange(len(steps.index))
    others = len(branches) > 1
    if not mine.size:
        return RunFacts(others=others)
    decode = mine[steps.phase[mine] == Phase.DECODE]
    whole = mine if not branches or branches[-1].parent is None else _whole(view, branches)
    written = int((steps.phase[whole] == Phase.DECODE).sum())
    generated = written + (1 if written < whole.size else 0)
    timed = decode[steps.duration[decode] > 0]
    took = float(steps.duration[timed].sum(dtype=np.float64)) / 1e3
    mean = float(steps.num_tokens[timed].sum()) / took if took > 0 else math.nan
    last = decode[-_RATE_STEPS:]
    if last.size < 2:
        return RunFacts(generated, whole=mean, others=others)
    # Gaps between steps are the generation loop's own, except where the run was paused: then they say nothing.
    seconds = np.diff(steps.started[last])
    # Sorted: NumPy's median would load a part of NumPy for longer than a frame takes.
    usual = 4.0 * float(np.sort(seconds)[seconds.size // 2])
    spent = float(np.minimum(seconds, usual).sum())
    sequences = float(steps.num_tokens[last[1:]].sum())
    return RunFacts(generated, sequences / spent if spent > 0 else math.nan, mean, others)


def _whole(view: TimelineView, branches: Sequence[Branch]) -> NDArray[np.int64]:
    """Which steps wrote the last branch's sequence, with what it shares."""
    steps, columns = view.steps(), view.tokens(view.first, view.end)
    keep = line_rows(columns, BranchTree(tuple(branches)).line(branches[-1].id), view.stacks)
    at = steps.first_token.astype(np.int64) - view.first
    held = np.flatnonzero((at >= 0) & (at < keep.size))
    return held[keep[at[held]]]
