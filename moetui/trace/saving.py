"""What a session holds in memory becomes a trace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from moetui.routing.errors import TraceError
from moetui.routing.events import BranchAdded, BreakpointHit, InterventionsChanged
from moetui.routing.phase import Phase
from moetui.routing.step import Step
from moetui.routing.timeline import TimelineView, unknown_text
from moetui.trace.arrays import Array
from moetui.trace.recorded import Recorded
from moetui.trace.values import LastingEvent
from moetui.trace.writer import TraceWriter


def save_recorded(recorded: Recorded, path: str | Path, *, overwrite: bool = False) -> int:
    """Write what is held to a new trace; its bytes. Tokens are numbered from the oldest one held.

    Raises:
        TraceError: the file exists (without ``overwrite``), or cannot be written.
    """
    view = recorded.timeline
    block = view.routing(view.first, view.first + 1)
    writer = TraceWriter(
        path,
        recorded.info,
        settings=recorded.settings,
        prompt=recorded.prompt,
        overwrite=overwrite,
        has_logits=block.logits is not None,
        has_weights=block.weights is not None,
        flush_seconds=math.inf,
    )
    with writer:
        events = list(recorded.events)
        written = view.first
        for step in steps_of(view):
            while events and events[0].token <= written:
                writer.write_event(_renumbered(events.pop(0).event, view.first))
            writer.write_step(step)
            written += step.num_tokens
        for item in events:
            writer.write_event(_renumbered(item.event, view.first))
    if writer.problem:
        raise TraceError(writer.problem, "make room, or choose another place")
    return writer.nbytes


def steps_of(view: TimelineView) -> Iterator[Step]:
    """The steps whose tokens a view holds, as they were recorded."""
    table = view.steps()
    known: set[int] = set()
    for row in range(len(table.index)):
        start = max(int(table.first_token[row]), view.first)
        stop = min(int(table.first_token[row] + table.num_tokens[row]), view.end)
        tokens, block = view.tokens(start, stop), view.routing(start, stop)
        names = view.stacks
        stack = int(tokens.stack[0]) if len(tokens.stack) else 0
        yield Step(
            index=int(table.index[row]),
            phase=Phase.PREFILL if table.phase[row] == Phase.PREFILL else Phase.DECODE,
            started=float(table.started[row]),
            duration=float(table.duration[row]),
            sequence=tokens.sequence,
            position=tokens.position,
            token_id=tokens.token_id,
            pad=tokens.pad,
            logprob=tokens.logprob,
            indices=block.indices,
            weights=block.weights,
            logits=block.logits,
            flags=block.flags,
            candidate_ids=tokens.candidate_ids,
            candidate_logprobs=tokens.candidate_logprobs,
            site_ms=table.site_ms[row],
            memory=float(table.memory[row]),
            branch=int(table.branch[row]),
            stack=names[stack] if stack < len(names) else "decoder",
            vocabulary=_texts(view, np.concatenate([tokens.token_id, tokens.candidate_ids.ravel()]), known),
        )


def _renumbered(event: LastingEvent, first: int) -> LastingEvent:
    """The event with tokens counted from ``first``; what was before it counts as its beginning."""
    if isinstance(event, BranchAdded):
        branch = replace(event.branch, first_token=max(0, event.branch.first_token - first))
        return replace(event, branch=branch)
    if isinstance(event, (BreakpointHit, InterventionsChanged)):
        return replace(event, token=max(0, event.token - first))
    return event


def _texts(view: TimelineView, ids: Array, known: set[int]) -> dict[int, str]:
    fresh = {token_id for token_id in np.unique(ids).tolist() if token_id >= 0} - known
    known |= fresh
    texts = {token_id: view.text(token_id) for token_id in sorted(fresh)}
    return {token_id: text for token_id, text in texts.items() if text != unknown_text(token_id)}
