"""What looking costs: tokens a second of a live run with the screen at work, and with its thread asleep.

    python benchmarks/screen_cost.py                       # the demo model, 120×40, each tab
    python benchmarks/screen_cost.py --fps 10 --tabs network --windows 40 --json

One process in a real pseudo-terminal runs the app on a live session. Its event loop is let run and is blocked in turns,
in windows of a second or two, as separate processes differ by more than the effect; which comes first changes from
pair to pair. Blocked, the process does what a recording without a screen does: it captures, and its main thread sleeps.
A window's tokens a second are those between the steps of a run that lie in it, so that runs which end and begin do not
matter. A pair's ratio is that of the live window over that of the headless one; told are the median of the ratios and
their quartiles. ``headless-again`` is headless in both windows of a pair: its ratio shows the noise. Besides: frames a
second, processor time of the screen's thread a frame, all included, and the share of the time that it took.
``stalled`` lets the screen paint, with nobody reading what it sends in the first window of a pair, which lasts
``--stall`` seconds; the run is recorded, and tokens that were captured and are not in the recording at the end are
told.

``--model 12x512`` is a random Mixtral of 12 layers, 512 wide, with 8 experts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moetui.routing.phase import Phase

SETTLE = 0.3  # s before a window that are not counted: what came together in the last one is dealt with
GLANCE = 0.1  # s between looks whether the run has ended
SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
CHILD = "MOETUI_SCREEN_COST"
PROMPT = "1 + 1 = "  # greedily, the demo model goes on from it for 400 tokens


def measure(options: argparse.Namespace) -> None:
    """In the pseudo-terminal: run the app, and write what was measured to the file that the parent named."""
    from moetui.engine.models import LoadRequest
    from moetui.routing.events import GenerationSettings
    from moetui.session.live import LiveOptions, LiveSession
    from moetui.trace import open_trace
    from moetui.tui.app import MoetuiApp
    from moetui.tui.driver import TerminalDriver
    from moetui.tui.options import ScreenOptions, resolve

    settings = GenerationSettings(max_new_tokens=400)
    record = Path(os.environ[CHILD]).with_suffix(".msgpack")
    session = LiveSession(LiveOptions(LoadRequest(options.model), settings=settings, record=record))
    screen = ScreenOptions(fps=options.fps)
    app = MoetuiApp(session, screen, resolve(screen, os.environ), driver_class=TerminalDriver)
    results: dict[str, Any] = {}
    asyncio.run(_watched(app, session, options, results))
    with open_trace(record) as trace:
        results["stalled"]["tokens_not_recorded"] = session.timeline.snapshot().end - trace.num_tokens
    Path(os.environ[CHILD]).write_text(json.dumps(results))


async def _watched(app: Any, session: Any, options: argparse.Namespace, results: dict[str, Any]) -> None:
    running = asyncio.create_task(app.run_async(mouse=False))
    try:
        results.update(await Windows(app, session, options).all())
    finally:
        app.exit(0)
        await running
        if app.crash is not None:
            raise app.crash
        session.close()


@dataclass(frozen=True)
class Seen:
    """A window: tokens a second, frames, and the processor time of the screen's thread, seconds."""

    rate: float
    frames: int
    spent: float
    seconds: float


class Windows:
    """Windows of time in which the screen is at work or its thread sleeps."""

    def __init__(self, app: Any, session: Any, options: argparse.Namespace) -> None:
        self._app, self._session, self._options = app, session, options

    async def all(self) -> dict[str, Any]:
        """Every tab, and the control."""
        while self._session.info is None:
            if self._session.error is not None:
                raise self._session.error
            await asyncio.sleep(0.1)
        self._run_on()
        await self._window(2.0, live=True)
        out = {}
        for tab in self._options.tabs:
            with self._app._context():
                await self._app.action_tab(tab)
            await self._window(2.0, live=True)
            out[tab] = await self._pairs((True, False))
        out["headless-again"] = await self._pairs((False, False))
        out["stalled"] = await self._stalls()
        return out

    async def _stalls(self) -> dict[str, Any]:
        """Windows in which the terminal does not read, against windows in which it does; live in both."""
        stop = stop_file(Path(os.environ[CHILD]))
        pairs: list[tuple[Seen, Seen]] = []
        for _ in range(self._options.stalls):
            stop.touch()
            stalled = await self._window(self._options.stall, live=True)
            stop.unlink()
            pairs.append((stalled, await self._window(self._options.stall, live=True)))
        return told(pairs)

    async def _pairs(self, kinds: tuple[bool, bool]) -> dict[str, Any]:
        pairs: list[tuple[Seen, Seen]] = []
        for number in range(self._options.windows):
            seen: dict[int, Seen] = {}
            for place in (0, 1) if number % 2 else (1, 0):
                seen[place] = await self._window(self._options.seconds, live=kinds[place])
            pairs.append((seen[0], seen[1]))
        return told(pairs)

    async def _window(self, seconds: float, *, live: bool) -> Seen:
        """What happens in a window; a run that ends is followed by the next."""
        await asyncio.sleep(SETTLE)
        began, spent = time.perf_counter(), time.thread_time()
        ticks, steps = time.monotonic(), int(self._session.timeline.snapshot().steps().index.max(initial=-1))
        while time.perf_counter() - began < seconds:
            if live:
                await asyncio.sleep(GLANCE)
            else:
                time.sleep(GLANCE)
            self._run_on()
        spent = time.thread_time() - spent
        frames = sum(1 for when in self._app.ticker._painted if when >= ticks)
        return Seen(self._rate_since(steps), frames, spent, time.perf_counter() - began)

    def _rate_since(self, step: int) -> float:
        columns = self._session.timeline.snapshot().steps()
        rows = np.flatnonzero(columns.index > step)
        decoding = columns.phase[rows] == int(Phase.DECODE)
        gaps = np.diff(columns.started[rows])[decoding[1:] & decoding[:-1]]
        return float(1 / gaps.mean())

    def _run_on(self) -> None:
        if self._session.state.value in ("ready", "finished"):
            self._session.generate(PROMPT)


def told(pairs: list[tuple[Seen, Seen]]) -> dict[str, Any]:
    """The figures of pairs of windows."""
    ratios = sorted(first.rate / second.rate for first, second in pairs)
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    firsts = [first for first, _ in pairs]
    frames = sum(one.frames for one in firsts)
    spent, seconds = sum(one.spent for one in firsts), sum(one.seconds for one in firsts)
    return {
        "tokens_per_second": statistics.median(one.rate for one in firsts),
        "tokens_per_second_other": statistics.median(second.rate for _, second in pairs),
        "ratio": middle,
        "quartiles": [low, high],
        "frames_per_second": frames / seconds,
        "ms_per_frame": 1000 * spent / frames if frames else None,
        "thread_share": spent / seconds,
    }


def stop_file(target: Path) -> Path:
    """While this file is there, the terminal does not read."""
    return target.with_suffix(".stop")


def save_12x512(folder: Path) -> None:
    """A random model of 12 layers with the tokens of the demo model."""
    import torch
    from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

    from moetui.demo import model_path

    tokenizer = AutoTokenizer.from_pretrained(model_path())
    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_local_experts=8,
        num_experts_per_tok=2,
        vocab_size=len(tokenizer),
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def launch(options: argparse.Namespace) -> dict[str, Any]:
    """Run this script in a pseudo-terminal of the wanted size; what it measured."""
    from tests.tui.pty_terminal import Terminal

    class Blind(Terminal):
        """Swallows what is drawn and answers questions; emulating would take the processor that is measured."""

        def take(self, data: bytes) -> None:
            self.received = (self.received + data)[-4000:]
            for _ in range(data.count(b"\x1b[6n")):
                self.send("\x1b[1;1R")

    columns, rows = SIZES[options.size]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "results.json"
        command = [sys.executable, __file__, *sys.argv[1:]]
        if options.model == "12x512":
            save_12x512(Path(folder) / "12x512")
            command += ["--model", str(Path(folder) / "12x512")]
        terminal = Blind(command, columns=columns, rows=rows, environ={CHILD: str(target)})
        stop = stop_file(target)
        while stop.exists() or terminal.pump(0.1):
            if os.waitpid(terminal.pid, os.WNOHANG)[0]:
                break
            if stop.exists():
                time.sleep(0.05)
        if not target.exists():
            raise SystemExit(f"the app ended early:\n{terminal.received.decode(errors='replace')}")
        return dict(json.loads(target.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--size", choices=SIZES, default="120x40")
    parser.add_argument("--tabs", default="network,elements,profiler", type=lambda text: text.split(","))
    parser.add_argument("--fps", type=float, default=None, help="default: as the app chooses by itself")
    parser.add_argument("--windows", type=int, default=30, help="pairs of windows a tab")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a window")
    parser.add_argument("--stalls", type=int, default=3, help="pairs of windows with and without a reader")
    parser.add_argument("--stall", type=float, default=10.0, help="seconds without a reader")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.stalls < 1:
        parser.error("--stalls: one at least")
    if CHILD in os.environ:
        measure(options)
        return
    results = launch(options)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{options.model}, {options.size}: tokens a second, live and headless\n")
    for name, found in results.items():
        low, high = found["quartiles"]
        frame = f"{found['ms_per_frame']:5.1f} ms each" if found["ms_per_frame"] else ""
        print(
            f"  {name:<14} {found['tokens_per_second']:6.1f} {found['tokens_per_second_other']:6.1f}   "
            f"ratio {found['ratio']:.3f} ({low:.3f} to {high:.3f})   {100 * found['thread_share']:4.1f}% of a thread   "
            f"{found['frames_per_second']:4.1f} frames/s {frame}"
        )
    print(f"\n  tokens not recorded: {results['stalled']['tokens_not_recorded']}")


if __name__ == "__main__":
    main()
