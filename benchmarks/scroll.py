"""How long a key takes until the screen shows its effect, over a view of many tokens, and what memory does meanwhile.

    python benchmarks/scroll.py [--tokens 100000] [--layers 6] [--experts 8] [--top-k 2] [--json]

The Network tab runs without a terminal at 120×40; a time runs from a key's arrival to the end of the repaint that it
causes. What a terminal and the line to it need comes on top.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

import psutil
from textual import events
from textual.app import App, ComposeResult

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from moetui.tui.ink import Ink
from moetui.tui.panels.network import NetworkPanel
from moetui.tui.themes import DARK
from tests.tui.builders import HeldSession, bulk_timeline, make_info

LIMIT_MS = 50.0
GROWTH_MB = 8.0
KEYS = {
    "line down": ["home", *["down"] * 150],
    "line up": ["end", *["up"] * 150],
    "page down": ["home", *["pagedown"] * 150],
    "page up": ["end", *["pageup"] * 150],
    "first, last": ["home", "end"] * 40,
    "layer": ["right"] * 60,
    "mark": ["m", "up"] * 30,
}


class Bench(App[None]):
    """Holds the panel and notes when the screen was painted."""

    def __init__(self) -> None:
        super().__init__()
        self.ink = Ink()
        self.register_theme(DARK)
        self.theme = DARK.name
        self.painted = asyncio.Event()

    def compose(self) -> ComposeResult:
        yield NetworkPanel()

    def post_display_hook(self) -> None:
        self.painted.set()


async def press(app: Bench, key: str) -> tuple[float, float]:
    """Milliseconds from the key to the end of its repaint, and how many of them the processor worked for it."""
    app.painted.clear()
    start, worked = time.perf_counter(), time.thread_time()
    app.post_message(events.Key(key, key if len(key) == 1 else None))
    try:
        await asyncio.wait_for(app.painted.wait(), 1.0)
    except asyncio.TimeoutError:
        return 0.0, 0.0  # nothing changed on the screen, as for a key at the end of the table
    return (time.perf_counter() - start) * 1000, (time.thread_time() - worked) * 1000


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(name: str, pressed: list[tuple[float, float]]) -> dict[str, object]:
    times, works = zip(*(pair for pair in pressed if pair[0]))
    return {
        "what": name,
        "keys": len(times),
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(quantile(list(times), 0.95), 1),
        "max_ms": round(max(times), 1),
        "cpu_median_ms": round(statistics.median(works), 1),
        "cpu_p95_ms": round(quantile(list(works), 0.95), 1),
    }


async def measure(tokens: int, layers: int, experts: int, top_k: int) -> dict[str, object]:
    timeline = bulk_timeline(make_info(layers, experts, top_k), tokens)
    process = psutil.Process()
    app = Bench()
    rows = []
    async with app.run_test(size=(120, 40)) as pilot:
        panel = app.query_one(NetworkPanel)
        start = time.perf_counter()
        panel.refresh_from(timeline.snapshot(), HeldSession(timeline))
        first = (time.perf_counter() - start) * 1000
        panel.tokens.focus()
        await pilot.pause()
        await pilot.pause(1.0)
        for key in [
            "home",
            *["pagedown"] * 100,
            "end",
        ]:  # fills the caches, so that their growth is not taken for a leak
            await press(app, key)
        memory = process.memory_info().rss
        for name, keys in KEYS.items():
            rows.append(row(name, [await press(app, key) for key in keys]))
        rows.append(row("sort by the next column", [await press(app, "S") for _ in range(10)]))
        growth = (process.memory_info().rss - memory) / 1e6
    worst = max(float(str(one["p95_ms"])) for one in rows[: len(KEYS)])
    return {
        "tokens": tokens,
        "layers": layers,
        "experts": experts,
        "first_picture_ms": round(first, 1),
        "rows": rows,
        "memory_growth_mb": round(growth, 1),
        "p95_ms": worst,
        "ok": worst <= LIMIT_MS and growth <= GROWTH_MB,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = asyncio.run(measure(asked.tokens, asked.layers, asked.experts, asked.top_k))
    if asked.json:
        print(json.dumps(found, indent=2))
        return 0 if found["ok"] else 1
    print(f"{asked.tokens:,} tokens, {asked.layers} layers × {asked.experts} experts, 120×40")
    print(f"{'':26}{'keys':>6}{'median':>9}{'p95':>9}{'max':>9}{'cpu':>9}{'cpu p95':>9}  ms")
    rows = found["rows"]
    assert isinstance(rows, list)
    for one in rows:
        print(
            f"{one['what']:26}{one['keys']:6}{one['median_ms']:9}{one['p95_ms']:9}{one['max_ms']:9}{one['cpu_median_ms']:9}{one['cpu_p95_ms']:9}"
        )
    print(f"first picture {found['first_picture_ms']} ms; memory grew by {found['memory_growth_mb']} MB")
    print(f"p95 {found['p95_ms']} ms, limit {LIMIT_MS:g} ms: {'ok' if found['ok'] else 'too slow'}")
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
