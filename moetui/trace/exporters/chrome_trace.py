"""Chrome trace events, for Perfetto: steps, layers and their parts as slices, rates as counters, events as marks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np

from moetui.routing.errors import UnsupportedError
from moetui.routing.events import (
    BranchAdded,
    BranchChanged,
    BreakpointHit,
    FindingRaised,
    InterventionsChanged,
    RunStateChanged,
)
from moetui.routing.phase import Phase
from moetui.routing.step import join_texts
from moetui.routing.text import drawable
from moetui.routing.timeline import StepColumns, TimelineView
from moetui.trace.recorded import Recorded
from moetui.trace.values import LastingEvent, RecordedEvent

_PROCESS = 1
_THREAD = 1
_TEXT = 200


def export(recorded: Recorded, stream: BinaryIO) -> None:
    """Write ``{"traceEvents": [...], "displayTimeUnit": "ms"}``; times are microseconds since the session's start.

    A step's slice holds one slice a layer with routers, and that one slice a site, which is a part of it: from the
    routing of the site before to its own, as the host saw it.

    Raises:
        UnsupportedError: the recording has no times.
    """
    view = recorded.timeline
    steps = view.steps()
    if view.end > view.first and not np.isfinite(steps.started).any():
        damaged = any(finding.kind == "trace_damaged" for finding in recorded.findings)
        lost = "damage took them: get the file again from where it was recorded"
        raise UnsupportedError(
            "this recording has no times", lost if damaged else "nobody measured them, as in logs of other tools"
        )
    stream.write(b'{"displayTimeUnit": "ms", "traceEvents": [\n')
    for number, event in enumerate(_all_events(recorded, view, steps)):
        stream.write((b",\n" if number else b"") + json.dumps(event).encode())
    stream.write(b"\n]}\n")


def _all_events(recorded: Recorded, view: TimelineView, steps: StepColumns) -> Iterator[dict[str, Any]]:
    yield _named("process_name", {"name": f"{drawable(recorded.info.name)} {drawable(recorded.info.architecture)}"})
    yield _named("thread_name", {"name": "steps"})
    ends: list[float] = []
    last = 0.0
    for row in range(len(steps.index)):
        start, duration = float(steps.started[row]) * 1e6, float(steps.duration[row]) * 1e3
        if not (math.isfinite(start) and math.isfinite(duration)):
            ends.append(last)
            continue
        start = max(start, last)  # slices of one thread must not cross
        last = start + max(duration, 0.0)
        ends.append(last)
        yield from _step(view, steps, row, start, last)
    table = steps.first_token + steps.num_tokens
    for item in recorded.events:
        row = int(np.searchsorted(table, item.token, "left"))
        yield _mark(item, ends[min(row, len(ends) - 1)] if ends and item.token else 0.0)


def _step(view: TimelineView, steps: StepColumns, row: int, start: float, end: float) -> Iterator[dict[str, Any]]:
    first, count = int(steps.first_token[row]), int(steps.num_tokens[row])
    tokens = view.tokens(first, first + count)
    prefill = steps.phase[row] == Phase.PREFILL
    phase = Phase.PREFILL if prefill else Phase.DECODE
    shown = tokens.token_id[: _TEXT // 4]
    text = join_texts([view.text(token_id) for token_id in shown.tolist() if token_id >= 0])
    args = {
        "step": int(steps.index[row]),
        "tokens": count,
        "first token": first,
        "branch": int(steps.branch[row]),
        "text": drawable(text)[:_TEXT],
    }
    yield _slice(f"{phase.label} {int(steps.index[row])}", "step", start, end, args)
    yield from _sites(view, steps.site_ms[row], start, end)
    real = count - int(tokens.pad.sum())
    if end > start:
        yield _counter("tokens/s", start, {"tokens/s": real / (end - start) * 1e6})
    if math.isfinite(memory := float(steps.memory[row])):
        yield _counter("memory", end, {"MB": memory})
    entropy = tokens.entropy[~np.isnan(tokens.entropy)]
    if len(entropy):
        yield _counter("router entropy", start, {"nats": float(entropy.mean(dtype=np.float64))})


def _sites(view: TimelineView, site_ms: Any, start: float, end: float) -> Iterator[dict[str, Any]]:
    known = [index for index in np.argsort(site_ms, kind="stable").tolist() if math.isfinite(site_ms[index])]
    at = start
    for (stack, layer), group in groupby(known, lambda index: (view.sites[index].stack, view.sites[index].layer)):
        parts, began = [], at
        for index in group:
            name = drawable(view.sites[index].name)
            stop = min(max(start + float(site_ms[index]) * 1e3, at), end)
            parts.append(_slice(f"to {name}", "part", at, stop, {"site": name, "layer": layer}))
            at = stop
        yield _slice(f"layer {layer}", "layer", began, at, {"layer": layer, "stack": drawable(stack)})
        yield from parts
    if known and at < end:
        yield _slice("after the last site", "part", at, end, {})


def _mark(item: RecordedEvent, at: float) -> dict[str, Any]:
    name, text = _words(item.event)
    place = {"ph": "i", "s": "p", "ts": round(at, 3), "pid": _PROCESS, "tid": _THREAD}
    return {"name": drawable(name), "cat": "event", **place, "args": {"text": drawable(text), "token": item.token}}


def _words(event: LastingEvent) -> tuple[str, str]:
    if isinstance(event, BreakpointHit):
        return f"breakpoint {event.breakpoint}", f"{event.expression}: {event.values}"
    if isinstance(event, InterventionsChanged):
        return "interventions", ", ".join(each.name for each in event.interventions) or "none"
    if isinstance(event, FindingRaised):
        return event.finding.kind, event.finding.message
    if isinstance(event, BranchAdded):
        return f"branch {event.branch.name}", event.branch.prompt[:_TEXT]
    if isinstance(event, BranchChanged):
        return f"branch {event.branch} {event.change}", event.name
    assert isinstance(event, RunStateChanged)
    return event.state.value, event.reason


def _slice(name: str, category: str, start: float, end: float, args: dict[str, Any]) -> dict[str, Any]:
    # Both ends are rounded alike, or a slice would reach a nanosecond into the next one, and be taken for its parent.
    times = {"ts": round(start, 3), "dur": round(round(end, 3) - round(start, 3), 3)}
    return {"name": name, "cat": category, "ph": "X", "pid": _PROCESS, "tid": _THREAD, **times, "args": args}


def _counter(name: str, at: float, values: dict[str, float]) -> dict[str, Any]:
    return {"name": name, "ph": "C", "pid": _PROCESS, "ts": round(at, 3), "args": values}


def _named(kind: str, args: dict[str, str]) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": _THREAD, "args": args}
