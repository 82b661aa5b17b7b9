"""Damages a trace in thousands of ways and looks at all that is left of it, within bounds of memory and time.

Run as a program, so that the bound on memory is that of a process: ``python -m tests.trace.fuzz SECONDS``.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from moetui.routing import TraceError
from moetui.routing.totals import RoutingTotals
from moetui.trace import TraceWriter, open_trace, sums
from tests.trace.trace_cases import make_info, make_steps

LEAST = 5000  # cases, however long they take
ROOM = 600 << 20  # bytes of address space beyond what the imports took


def look(path):
    """Ask for all that a screen asks for; a ``TraceError`` is a fine answer."""
    try:
        trace = open_trace(path)
    except TraceError as error:
        return "refused" if "\n" not in error.message else "refused in many lines"
    with trace:
        view = trace.timeline
        for start in range(0, min(view.end, 40_000), 4096):
            tokens, block = view.tokens(start, start + 4096), view.routing(start, start + 4096)
            count = len(tokens.step)
            assert block.indices.shape[0] == count == min(4096, view.end - start)
            assert block.weights is None or block.weights.shape == block.indices.shape
            assert block.logits is None or block.logits.shape[:2] == block.indices.shape[:2]
            for token_id in tokens.token_id[:5].tolist():
                view.text(token_id)
        steps = view.steps()
        assert len(steps.index) == len(steps.site_ms)
        assert not len(steps.index) or int((steps.first_token + steps.num_tokens).max()) <= view.end
        counted = [totals(each) for each in (view, Unsummed(view))]
        findings = trace.verify()
        # Sums need no widths, without which the tokens' own columns cannot be read.
        assert trace._unreadable or all(np.array_equal(*both) for both in zip(*counted, strict=True))
        assert trace.complete == (not any(f.kind in ("trace_incomplete", "trace_damaged") for f in findings))
        return "whole" if trace.complete else "partial"


class Unsummed:
    """A view that knows no sums, so that its tokens are counted one by one."""

    def __init__(self, view):
        self._view = view

    def __getattr__(self, name):
        if name in ("summed", "counts"):
            raise AttributeError(name)
        return getattr(self._view, name)


def totals(view):
    """Whole numbers that statistics are made of, over the first tokens of a view."""
    counted = RoutingTotals(view.sites)
    counted.update(view, 40_000)
    return counted.tokens, counted.routed, counted.loads, counted.dropped, counted.forced, counted.non_finite


def bases(folder):
    """Small traces: packed and plain, whole and cut off, of one chunk and of many, with and without sums."""
    info = make_info()
    sums.SUMS_TOKENS = 20
    out = []
    for compression in ("zstd", None):
        path = folder / f"{compression}.msgpack"
        with TraceWriter(path, info, compression=compression, flush_seconds=math.inf) as writer:
            for number, step in enumerate(make_steps(info, prefill=20, decode=30)):
                writer.write_step(step)
                if number % 12 == 0:
                    writer.flush()
        data = path.read_bytes()
        out += [data, data[: data.rfind(b"\x97\xa6moetui\xa5index")]]
    return out


def damaged(data, other, rng):
    """One way or another of damaging ``data``."""
    way = rng.randrange(6)
    out = bytearray(data)
    at = rng.randrange(len(out))
    if way == 0:
        for _ in range(rng.choice((1, 1, 1, 3, 30))):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif way == 1:
        del out[at:]
    elif way == 2:
        del out[at : at + rng.choice((1, 8, 100, 3000))]
    elif way == 3:
        begin = rng.randrange(len(other))
        out[at:at] = other[begin : begin + rng.choice((1, 50, 5000))]
    elif way == 4:
        out[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xc6\xff\xff\xff", b"\xdd\x7f\xff\xff", b"\0\0\0\0"))
    else:
        begin = rng.randrange(len(out))
        size = rng.randrange(2000)
        out[at : at + size] = out[begin : begin + size]
    return bytes(out)


def main(seconds):
    rng = random.Random(0)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk takes longer than all that is tested
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        files = bases(folder)
        path = folder / "x.msgpack"
        for data in files:
            path.write_bytes(data)
            look(path)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        seen = {"refused": 0, "partial": 0, "whole": 0}
        slowest = 0.0
        cuts = [(data, cut) for data in files[:2] for cut in range(0, len(data), 11)]
        ends = time.monotonic() + seconds
        number = 0
        while time.monotonic() < ends or number < max(len(cuts), LEAST):
            if number < len(cuts):
                data, cut = cuts[number]
                data = data[:cut]
            else:
                data = damaged(rng.choice(files), rng.choice(files), rng)
            path.write_bytes(data)
            begun = time.process_time()  # what a busy machine gives to others is not this file's cost
            try:
                seen[look(path)] += 1
            except BaseException:
                (Path(tempfile.gettempdir()) / "moetui-fuzz-failure.msgpack").write_bytes(data)
                raise
            slowest = max(slowest, time.process_time() - begun)
            number += 1
        json.dump({"cases": number, "slowest": slowest, "peak": _peak(), **seen}, sys.stdout)


def _peak() -> int:
    """Most bytes this program had resident. ``getrusage`` counts the program that started it in."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main(float(sys.argv[1]))
