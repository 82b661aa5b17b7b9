"""What the screen sends: bytes a frame, bytes a second, and how long a key takes on a thin line.

    python benchmarks/wire.py                    # all three parts
    python benchmarks/wire.py --parts echo --json

``frames``: the same frames of a scripted run, as Textual sends them and as differences, by colour mode, tab and size of
the model, at 120 x 40. ``steady``: the command itself in a pseudo-terminal, on the demo model while it generates and on
a replay of 48 sites x 128 experts at about 11 tokens a second; then the same with the run at an end or paused.
``echo``: seconds from a key to its echo while 10 and 60 tokens a second come, over lines of 1 Mbit/s and 256 kbit/s
whose round trip takes 200 ms, which is part of what is told.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import LayoutUpdate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moetui.tui.delta import SentScreen
from moetui.tui.options import Look, ScreenOptions
from moetui.tui.widgets.heatmap import Heatmap
from tests.tui.pty_terminal import Terminal
from tests.tui.recordings import write_recording
from tests.tui.scripted import ScriptedSession, model_info
from tests.tui.test_app_link import TwoTerminals

SIZE = (120, 40)
MODELS = {"6x8": model_info(6, 8, 2), "24x128": model_info(24, 128, 8), "48x128": model_info(48, 128, 8)}
TABS = ("network", "elements", "profiler")
COLORS: dict[Literal["truecolor", "256"], ColorSystem] = {
    "truecolor": ColorSystem.TRUECOLOR,
    "256": ColorSystem.EIGHT_BIT,
}
LINES = {"1 Mbit/s": 125_000.0, "256 kbit/s": 32_000.0}
ROUND_TRIP = 0.2  # s
MARKS = "abcdefghijklmnopqrstuvwxyz"


class Counted(TwoTerminals):
    """Both ways of sending the same frames, in the colours of its look."""

    def start_link(self, *, delta: bool = True) -> None:
        super().start_link(delta=delta)
        system = COLORS[self.look.colors]  # type: ignore[index]
        self.sent = SentScreen(system)
        self.console_of_test = Console(color_system=self.look.colors, force_terminal=True)  # type: ignore[arg-type]


class MapAlone:
    """What the heatmap takes of a frame: its cells against those of the frame before."""

    def __init__(self, app: Counted) -> None:
        self._app = app
        self._sent = SentScreen(COLORS[app.look.colors])  # type: ignore[index]
        self.bytes = 0

    def take(self) -> None:
        region = self._app.query_one(Heatmap).region
        strips = self._app.screen._compositor.render_strips()
        rows = [[strip.crop(region.x, region.right)] for strip in strips[region.y : region.bottom]]
        known = self._sent.known
        text = self._sent.encode(LayoutUpdate(rows, region))  # type: ignore[arg-type]
        self.bytes += len(text.encode()) if known else 0


async def frames(number: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, info in MODELS.items():
        for colors in COLORS:
            session = ScriptedSession(info)
            app = Counted(session, ScreenOptions(), Look(colors, slow=False, ascii=False, mouse=True))
            async with app.run_test(size=SIZE) as pilot:
                await pilot.pause(0.3)
                session.generate("once there was a small river")
                session.advance(60)
                for tab in TABS:
                    await app.action_tab(tab)
                    await pilot.pause(1.0)
                    app.bytes = [0, 0]
                    app.ticker._painted.clear()
                    alone = MapAlone(app) if tab == "network" else None
                    if alone is not None:
                        alone.take()
                    for _ in range(number):
                        session.advance(2)
                        await pilot.pause(0.26)
                        if alone is not None:
                            alone.take()
                    painted = max(1, len(app.ticker._painted))
                    for way, sent in zip(("whole", "difference"), app.bytes):
                        found[f"{name}, {colors}, {tab}, {way}"] = sent / painted
                    if alone is not None:
                        found[f"{name}, {colors}, {tab}, difference of the map alone"] = alone.bytes / number
    return found


class ThinLine(Terminal):
    """A terminal behind a line of so many bytes a second that takes its time both ways; it answers what has arrived."""

    rate = 0.0  # bytes a second; 0: as fast as it can be read
    delay = 0.0  # s, one way

    def __init__(self, *args: Any, **options: Any) -> None:
        self._allowed = 0.0
        self._then = time.monotonic()
        self._coming: deque[tuple[float, bytes]] = deque()
        self._going: deque[tuple[float, str]] = deque()
        self.bytes = 0
        super().__init__(*args, **options)

    def pump(self, seconds: float = 0.05) -> bool:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            while self._going and self._going[0][0] <= now:
                super().send(self._going.popleft()[1])
            while self._coming and self._coming[0][0] <= now:
                self.take(self._coming.popleft()[1])
            if self.rate:
                self._allowed = min(2048.0, self._allowed + (now - self._then) * self.rate)
            self._then = now
            if (self.rate and self._allowed < 256) or not select.select([self.fd], [], [], 0.002)[0]:
                time.sleep(0.001)
                continue
            try:
                data = os.read(self.fd, int(self._allowed) if self.rate else 65536)
            except OSError:
                return False
            self._allowed -= len(data)
            self.bytes += len(data)
            self._coming.append((now + self.delay, data))
        return True

    def send(self, keys: str) -> None:
        self._going.append((time.monotonic() + self.delay, keys))


def bytes_a_second(opened: ThinLine, seconds: float) -> float:
    before, began = opened.bytes, time.monotonic()
    opened.pump(seconds)
    return (opened.bytes - before) / (time.monotonic() - began)


def steady(seconds: float) -> dict[str, float]:
    found: dict[str, float] = {}
    moetui = [sys.executable, "-m", "moetui"]
    with tempfile.TemporaryDirectory() as folder:
        trace = write_recording(Path(folder) / "big.msgpack", MODELS["48x128"], decode=400)
        commands = {
            "demo": [*moetui, "run", "demo", "-p", "Once there was", "-n", "480", "--temperature", "1", "--seed", "1"],
            "replay of 48x128": [*moetui, "replay", str(trace), "--speed", "0.25"],
        }
        for name, command in commands.items():
            for colors in COLORS:
                home = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"), folder)
                opened = ThinLine([*command, "--color", colors], columns=SIZE[0], rows=SIZE[1], environ=home)
                try:
                    if name == "demo":
                        opened.sees("running", 120)
                    else:
                        opened.sees("following", 120)
                    opened.pump(1.0 if name == "demo" else 5.0)  # the rate settles; the demo is soon at its end
                    found[f"{name}, {colors}"] = bytes_a_second(opened, seconds)
                    if name == "demo":
                        opened.sees("finished", 120)
                    else:
                        opened.send(" ")
                    opened.pump(6.0)
                    found[f"{name}, {colors}, at rest"] = bytes_a_second(opened, 5.0)
                finally:
                    opened.close()
    return found


def echo(keys: int) -> dict[str, dict[str, float]]:
    found = {}
    for tokens in (10, 60):
        for line, rate in LINES.items():
            found[f"{line}, {tokens} tokens/s"] = echo_on(rate, tokens, keys)
    return found


def echo_on(rate: float, tokens: int, keys: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.tui.play", "--rate", str(tokens), "--tokens", "4000"]
    opened = ThinLine(command, columns=SIZE[0], rows=SIZE[1])
    opened.rate, opened.delay = rate, ROUND_TRIP / 2
    try:
        opened.sees("○ ready")
        opened.send("once there was\r")
        opened.sees("running")
        opened.pump(3.0)
        opened.send("p")
        opened.pump(1.0)
        before, began = opened.bytes, time.monotonic()
        waits = []
        for number in range(keys):
            mark = MARKS[number % len(MARKS)]
            pressed = time.monotonic()
            opened.send(mark)
            column = 17 + number  # behind the mark and "once there was"
            opened.until(lambda mark=mark, column=column: opened.screen.display[2][column] == mark, 20)
            waits.append(time.monotonic() - pressed)
        took = time.monotonic() - began
        return {
            "median_s": statistics.median(waits),
            "p95_s": statistics.quantiles(waits, n=20)[-1],
            "kb_per_second": (opened.bytes - before) / took / 1e3,
        }
    finally:
        opened.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="frames,steady,echo", type=lambda text: text.split(","))
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a steady state")
    parser.add_argument("--keys", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    if "frames" in options.parts:
        results["bytes a frame"] = asyncio.run(frames(options.frames))
    if "steady" in options.parts:
        results["bytes a second"] = steady(options.seconds)
    if "echo" in options.parts:
        results["key to echo"] = echo(options.keys)
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for title, numbers in results.items():
        print(f"\n{title}")
        for name, value in numbers.items():
            told = (
                "   ".join(f"{key} {each:.3f}" for key, each in value.items())
                if isinstance(value, dict)
                else f"{value:10,.0f}"
            )
            print(f"  {name:<58} {told}")


if __name__ == "__main__":
    main()
