"""What the screen sends while a run goes on, against Textual's own way; and how long a key takes on a thin line.

``python benchmarks/wire.py``: bytes a frame for each tab, whole pictures against differences, from the same frames;
then seconds from a key to its echo while a run goes on, over a line of one megabit a second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moetui.tui.options import ScreenOptions
from tests.tui.pty_terminal import Terminal
from tests.tui.scripted import ScriptedSession, model_info
from tests.tui.test_app_link import LOOK, TwoTerminals

SIZES = {
    "demo, 120×40": (model_info(6, 8, 2), (120, 40)),
    "48×128 experts, 160×50": (model_info(48, 128, 8), (160, 50)),
}
CHUNK = 2048


async def bytes_a_frame(frames: int) -> None:
    print("bytes a frame while tokens come\n  " + " " * 34 + "whole  difference")
    for name, (info, size) in SIZES.items():
        session = ScriptedSession(info)
        app = TwoTerminals(session, ScreenOptions(), LOOK)
        async with app.run_test(size=size) as pilot:
            await pilot.pause(0.3)
            session.generate("once there was a small river")
            session.advance(60)
            for tab in ("network", "elements", "profiler"):
                await app.action_tab(tab)
                await pilot.pause(1.0)
                app.bytes = [0, 0]
                painted = len(app.ticker._painted)
                app.ticker._painted.clear()
                for _ in range(frames):
                    session.advance(2)
                    await pilot.pause(0.26)
                painted = max(1, len(app.ticker._painted))
                whole, part = (sent / painted for sent in app.bytes)
                print(f"  {name:<24} {tab:<9} {whole:9,.0f} {part:9,.0f}   {whole / max(part, 1):5.1f}×")


class ThinLine(Terminal):
    """A terminal behind a line of so many bytes a second; it answers what has arrived."""

    rate = 125_000.0
    _allowed = 0.0
    _then = 0.0

    def pump(self, seconds: float = 0.05) -> bool:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._allowed = min(CHUNK, self._allowed + (now - (self._then or now)) * self.rate)
            self._then = now
            if self._allowed < 256 or not select.select([self.fd], [], [], 0.002)[0]:
                time.sleep(0.001)
                continue
            data = os.read(self.fd, int(self._allowed))
            self._allowed -= len(data)
            self.take(data)
        return True


def key_echo(keys: int) -> None:
    command = [sys.executable, "-m", "tests.tui.play", "--rate", "60", "--tokens", "4000"]
    opened = ThinLine(command, columns=140, rows=40)
    try:
        opened.sees("○ ready")
        opened.send("once there was\r")
        opened.sees("running")
        opened.pump(3.0)
        before = len(opened.received)
        started = time.monotonic()
        opened.send("p")
        opened.pump(1.0)
        waits = []
        for number in range(keys):
            mark = "abcdefghijklmnopqrstuvwxyz"[number % 26]
            pressed = time.monotonic()
            opened.send(mark)
            column = 17 + number  # behind the mark and "once there was"
            opened.until(lambda mark=mark, column=column: opened.screen.display[2][column] == mark, 20)
            waits.append(time.monotonic() - pressed)
        sent = (len(opened.received) - before) / (time.monotonic() - started) / 1e3
        print(
            f"\nkey to echo on 1 Mbit/s while 60 tokens/s come: median {1e3 * statistics.median(waits):.0f} ms,"
            f" worst {1e3 * max(waits):.0f} ms, at {sent:.0f} KB/s"
        )
    finally:
        opened.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--keys", type=int, default=20)
    options = parser.parse_args()
    asyncio.run(bytes_a_frame(options.frames))
    key_echo(options.keys)


if __name__ == "__main__":
    main()
