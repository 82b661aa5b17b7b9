"""What looking costs: tokens a second of a live run with the screen painting, and with the screen standing still.

    python benchmarks/screen_cost.py                       # the demo model, 120×40, each tab
    python benchmarks/screen_cost.py --fps 10 --tabs network --windows 20 --json

One process in a real pseudo-terminal runs the app on a live session. Its ticker is let go and held in turns, in windows
of a few seconds, as separate processes differ by more than the effect; which comes first changes from pair to pair.
A pair's ratio is tokens a second while painting over tokens a second while held; told are the median of the ratios
and their quartiles. ``held-again`` holds the ticker in both windows of a pair: its ratio shows the noise. ``stalled``
lets the screen paint, with nobody reading what it sends in the first window of a pair, which lasts ``--stall`` seconds;
the run is recorded, and tokens that were captured and are not in the recording at the end are told.

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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SETTLE = 0.3  # s at the start of a window that are not counted: the last frame is still on its way
SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
CHILD = "MOETUI_SCREEN_COST"
PROMPT = "Once there was"


def measure(options: argparse.Namespace) -> None:
    """In the pseudo-terminal: run the app, and write what was measured to the file that the parent named."""
    from moetui.engine.models import LoadRequest
    from moetui.routing.events import GenerationSettings
    from moetui.session.live import LiveOptions, LiveSession
    from moetui.trace import open_trace
    from moetui.tui.app import MoetuiApp
    from moetui.tui.driver import TerminalDriver
    from moetui.tui.options import ScreenOptions, resolve

    settings = GenerationSettings(max_new_tokens=400, temperature=1.0, seed=1)
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
        session.close()


class Windows:
    """Windows of time in which the screen paints or is held."""

    def __init__(self, app: Any, session: Any, options: argparse.Namespace) -> None:
        self._app, self._session, self._options = app, session, options
        self._held = False
        may_paint = app.ticker._may_paint
        app.ticker._may_paint = lambda: not self._held and may_paint()

    async def all(self) -> dict[str, Any]:
        """Every tab, and the control."""
        while self._session.info is None:
            if self._session.error is not None:
                raise self._session.error
            await asyncio.sleep(0.1)
        self._run_on()
        await self._count(2.0)
        out = {}
        for tab in self._options.tabs:
            await self._app.action_tab(tab)
            out[tab] = await self._pairs((False, True))
        out["held-again"] = await self._pairs((True, True))
        out["stalled"] = await self._stalls()
        return out

    async def _stalls(self) -> dict[str, Any]:
        """Windows in which the terminal does not read, against windows in which it does; painted in both."""
        stop = stop_file(Path(os.environ[CHILD]))
        rates: list[tuple[float, float]] = []
        for _ in range(self._options.stalls):
            stop.touch()
            stalled = await self._count(self._options.stall)
            stop.unlink()
            rates.append((stalled, await self._count(self._options.stall)))
        return self._told(rates, self._app.ticker.recent())

    async def _pairs(self, kinds: tuple[bool, bool]) -> dict[str, Any]:
        rates: list[tuple[float, float]] = []
        frames = 0.0
        for number in range(self._options.windows):
            order = (0, 1) if number % 2 else (1, 0)
            pair = [0.0, 0.0]
            for place in order:
                self._held = kinds[place]
                pair[place] = await self._count(self._options.seconds)
                frames = self._app.ticker.recent() if not self._held else frames
            self._held = False
            rates.append((pair[0], pair[1]))
        return self._told(rates, frames)

    @staticmethod
    def _told(rates: list[tuple[float, float]], frames: float) -> dict[str, Any]:
        ratios = sorted(first / second for first, second in rates)
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return {
            "tokens_per_second": statistics.median(first for first, _ in rates),
            "tokens_per_second_held": statistics.median(second for _, second in rates),
            "ratio": middle,
            "quartiles": [low, high],
            "frames_per_second": frames,
        }

    async def _count(self, seconds: float) -> float:
        """Tokens a second over a window; a run that ends is followed by the next."""
        await asyncio.sleep(SETTLE)
        began, tokens = time.perf_counter(), self._tokens()
        while time.perf_counter() - began < seconds:
            await asyncio.sleep(0.2)
            self._run_on()
        return (self._tokens() - tokens) / (time.perf_counter() - began)

    def _tokens(self) -> int:
        return int(self._session.timeline.snapshot().end)

    def _run_on(self) -> None:
        if self._session.state.value in ("ready", "finished"):
            self._session.generate(PROMPT)


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
    parser.add_argument("--windows", type=int, default=10, help="pairs of windows a tab")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a window")
    parser.add_argument("--stalls", type=int, default=3, help="pairs of windows with and without a reader")
    parser.add_argument("--stall", type=float, default=10.0, help="seconds without a reader")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if CHILD in os.environ:
        measure(options)
        return
    results = launch(options)
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{options.model}, {options.size}: tokens a second, painting and held\n")
    for name, found in results.items():
        low, high = found["quartiles"]
        print(
            f"  {name:<12} {found['tokens_per_second']:6.1f} {found['tokens_per_second_held']:6.1f}   "
            f"ratio {found['ratio']:.3f} ({low:.3f} to {high:.3f})   {found['frames_per_second']:.1f} frames/s"
        )
    print(f"\n  tokens not recorded: {results['stalled']['tokens_not_recorded']}")


if __name__ == "__main__":
    main()
