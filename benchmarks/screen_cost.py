"""What looking costs: tokens a second bare, captured without a screen, and with the app live.

    python benchmarks/screen_cost.py                       # the demo model, 120×40, each tab
    python benchmarks/screen_cost.py --fps 10 --tabs network --turns 40 --json

One process in a real pseudo-terminal runs the app on a live session, as separate processes differ by more than the
effect. Whole runs take turns in it, in an order that is drawn anew each turn: ``bare`` without a hook on the model and
with the screen's thread asleep, ``headless`` captured and with that thread asleep, which is what a recording without a
screen does, ``live`` captured and with the screen at work, and ``headless-again``, whose ratio shows the noise. All run
in the same thread. A run's tokens a second are those of its decode steps. Told for each way are the median, and its
ratios to the medians of ``bare`` and ``headless``, with the quartiles of the turns' own ratios to ``headless``.
Besides: frames a second, processor time of the screen's thread a frame, all included, and the share of the time that
it took. ``stalled`` lets the screen paint in windows of ``--stall`` seconds, with nobody reading what it sends in the
first of a pair; the run is recorded, and tokens that were captured and are not in the recording at the end are told.

``--model 12x512`` is a random Mixtral of 12 layers, 512 wide, with 8 experts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
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

SETTLE = 0.3  # s before a run or window that are not counted: what came together in the last one is dealt with
GLANCE = 0.1  # s between looks whether the run has ended
SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
WAYS = ("bare", "headless", "headless-again", "live")
CHILD = "MOETUI_SCREEN_COST"
PROMPT = "1 + 1 = "  # greedily, the demo model goes on from it for 400 tokens


def measure(options: argparse.Namespace) -> None:
    """In the pseudo-terminal: run the app, and write what was measured to the file that the parent named."""
    from moetui.engine.models import LoadRequest
    from moetui.routing.events import GenerationSettings
    from moetui.session.live import LiveSession
    from moetui.session.options import LiveOptions
    from moetui.trace import open_trace
    from moetui.tui.app import MoetuiApp
    from moetui.tui.driver import TerminalDriver
    from moetui.tui.options import ScreenOptions, resolve

    settings = GenerationSettings(max_new_tokens=options.tokens)
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
        results.update(await Turns(app, session, options).all())
    finally:
        app.exit(0)
        await running
        if app.crash is not None:
            raise app.crash
        session.close()


@dataclass(frozen=True)
class Seen:
    """A run or a window: tokens a second, frames, and the processor time of the screen's thread, seconds."""

    rate: float
    frames: int
    spent: float
    seconds: float


class Turns:
    """Runs that take turns, and windows of time with and without a reader."""

    def __init__(self, app: Any, session: Any, options: argparse.Namespace) -> None:
        self._app, self._session, self._options = app, session, options
        self._order = random.Random(0)

    async def all(self) -> dict[str, Any]:
        """Every tab, and the terminal that does not read."""
        while self._session.info is None:
            if self._session.error is not None:
                raise self._session.error
            await asyncio.sleep(0.1)
        out = {}
        for tab in self._options.tabs:
            with self._app._context():
                await self._app.action_tab(tab)
            seen: dict[str, list[Seen]] = {way: [] for way in WAYS}
            for way in WAYS:  # once unmeasured
                await self._run(way)
            for _ in range(self._options.turns):
                for way in self._order.sample(WAYS, len(WAYS)):
                    seen[way].append(await self._run(way))
            out[tab] = told_of_ways(seen)
        self._run_on()
        out["stalled"] = await self._stalls()
        return out

    async def _run(self, way: str) -> Seen:
        """One run from its prompt to its end."""
        await asyncio.sleep(SETTLE)
        began, spent, ticks = time.perf_counter(), time.thread_time(), time.monotonic()
        if way == "bare":
            rate = self._session.call(self._bare).result()
        else:
            last = self._last_step()
            self._session.generate(PROMPT)
            if way == "live":
                await asyncio.to_thread(self._session.wait)
            else:
                self._session.wait()
            rate = self._rate_since(last)
        spent = time.thread_time() - spent
        return Seen(rate, self._frames_since(ticks), spent, time.perf_counter() - began)

    def _bare(self, model: Any, tokenizer: Any) -> float:
        """In the generation thread: a run of the model as it is without moetui."""
        from moetui.engine.generation import encode, generate

        debugger, settings = self._session._worker.debugger, self._session.settings
        prompt, times = encode(tokenizer, PROMPT, settings), []
        debugger.detach()
        try:
            generate(model, prompt, settings, chosen=lambda _: times.append(time.perf_counter()))
        finally:
            debugger.attach()
        return (len(times) - 2) / (times[-1] - times[1])  # behind the prompt's pass

    async def _stalls(self) -> dict[str, Any]:
        """Windows in which the terminal does not read, against windows in which it does; live in both."""
        stop = stop_file(Path(os.environ[CHILD]))
        pairs: list[tuple[Seen, Seen]] = []
        for _ in range(self._options.stalls):
            stop.touch()
            stalled = await self._window(self._options.stall)
            stop.unlink()
            pairs.append((stalled, await self._window(self._options.stall)))
        return told(pairs)

    async def _window(self, seconds: float) -> Seen:
        """What happens in a window; a run that ends is followed by the next."""
        await asyncio.sleep(SETTLE)
        began, spent = time.perf_counter(), time.thread_time()
        ticks, last = time.monotonic(), self._last_step()
        while time.perf_counter() - began < seconds:
            await asyncio.sleep(GLANCE)
            self._run_on()
        spent = time.thread_time() - spent
        return Seen(self._rate_since(last), self._frames_since(ticks), spent, time.perf_counter() - began)

    def _frames_since(self, moment: float) -> int:
        return sum(1 for when in self._app.ticker._painted if when >= moment)

    def _last_step(self) -> int:
        return int(self._session.timeline.snapshot().steps().index.max(initial=-1))

    def _rate_since(self, step: int) -> float:
        columns = self._session.timeline.snapshot().steps()
        rows = np.flatnonzero(columns.index > step)
        decoding = columns.phase[rows] == int(Phase.DECODE)
        gaps = np.diff(columns.started[rows])[decoding[1:] & decoding[:-1]]
        return float(1 / gaps.mean())

    def _run_on(self) -> None:
        if self._session.state.value in ("ready", "finished"):
            self._session.generate(PROMPT)


def told_of_ways(seen: dict[str, list[Seen]]) -> dict[str, Any]:
    """The figures of a tab: ``ways`` by name, and what the screen's thread did in the live runs."""
    rates = {way: statistics.median(one.rate for one in runs) for way, runs in seen.items()}
    ways = {}
    for way, runs in seen.items():
        ratios = [own.rate / other.rate for own, other in zip(runs, seen["headless"])]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        ways[way] = {
            "tokens_per_second": rates[way],
            "of_bare": rates[way] / rates["bare"],
            "of_headless": rates[way] / rates["headless"],
            "quartiles_of_headless": [low, high],
        }
    return {"ways": ways, **told_of_thread(seen["live"])}


def told(pairs: list[tuple[Seen, Seen]]) -> dict[str, Any]:
    """The figures of pairs of windows."""
    ratios = sorted(first.rate / second.rate for first, second in pairs)
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    firsts = [first for first, _ in pairs]
    return {
        "tokens_per_second": statistics.median(one.rate for one in firsts),
        "tokens_per_second_other": statistics.median(second.rate for _, second in pairs),
        "ratio": middle,
        "quartiles": [low, high],
        **told_of_thread(firsts),
    }


def told_of_thread(seen: list[Seen]) -> dict[str, Any]:
    """What painting took."""
    frames = sum(one.frames for one in seen)
    spent, seconds = sum(one.spent for one in seen), sum(one.seconds for one in seen)
    return {
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
    parser.add_argument("--turns", type=int, default=30, help="turns a tab, each of a run of every way")
    parser.add_argument("--tokens", type=int, default=300, help="length of a run")
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
    show(f"{options.model}, {options.size}", results)


def show(title: str, results: dict[str, Any]) -> None:
    """The table."""
    stalled = results.pop("stalled")
    print(f"{title}\n\n  {'tab':<10} {'way':<15} {'tokens/s':>8} {'of bare':>8} {'of headless':>12}  quartiles")
    for tab, found in results.items():
        for way, figures in found["ways"].items():
            low, high = figures["quartiles_of_headless"]
            print(
                f"  {tab:<10} {way:<15} {figures['tokens_per_second']:8.1f} {figures['of_bare']:8.3f}"
                f" {figures['of_headless']:12.3f}  {low:.3f} to {high:.3f}"
            )
        print(f"  {tab:<10} {painting(found)}")
    low, high = stalled["quartiles"]
    print(f"\n  nobody reads: {stalled['ratio']:.3f} of what it is with a reader ({low:.3f} to {high:.3f})")
    print(f"  {painting(stalled)}; tokens not recorded: {stalled['tokens_not_recorded']}")


def painting(found: dict[str, Any]) -> str:
    frame = f" of {found['ms_per_frame']:.1f} ms" if found["ms_per_frame"] else ""
    return f"{found['frames_per_second']:.1f} frames/s{frame}, {100 * found['thread_share']:.1f}% of a thread"


if __name__ == "__main__":
    main()
