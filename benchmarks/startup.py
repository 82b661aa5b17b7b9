"""How long a command takes to start, as multiples of what it cannot do without, measured in the same run.

    python benchmarks/startup.py [--times 5] [--json]

Help and statistics against importing click; the first picture of ``run`` and ``replay`` against that of a Textual app
of one label; until a model is ready, against importing transformers' own module of it. Also asserts that torch is
imported after the first picture. All run from bytecode, as what was installed does, whatever the environment says about
writing it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.tui.pty_terminal import Terminal

MINIMAL = """
from textual.app import App
from textual.widgets import Label
class Minimal(App):
    def compose(self):
        yield Label("minimal")
Minimal().run()
"""
# Notes when torch is first asked for, on the clock that all processes share.
WATCHED = """
import sys, time
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            open({note!r}, "w").write(repr(time.monotonic()))
sys.meta_path.insert(0, Watch())
from moetui.cli import main
main({arguments!r})
"""


def seconds_of(command: Sequence[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def first_picture(command: Sequence[str], sign: str) -> tuple[float, float]:
    """Seconds until ``sign`` stands on the screen, and the moment at which it did."""
    started = time.monotonic()
    opened = Terminal(command, columns=120, rows=40)
    seen = 0
    try:
        while True:
            if not opened.pump(0.002):
                raise SystemExit(f"ended before its first picture:\n{opened.text()}")
            now = time.monotonic()
            if len(opened.received) > seen:
                seen = len(opened.received)
                if sign in opened.text():
                    return now - started, now
    finally:
        opened.close()


def watched(arguments: list[str], sign: str) -> Callable[[], float]:
    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder) / "torch"
            code = WATCHED.format(note=str(note), arguments=arguments)
            seconds, painted = first_picture([sys.executable, "-c", code], sign)
            if note.exists() and float(note.read_text()) < painted - 0.02:
                raise SystemExit(f"moetui {' '.join(arguments)}: torch was imported before the first picture")
            return seconds

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        trace = str(Path(folder) / "x.msgpack")
        moetui = [python, "-m", "moetui"]
        subprocess.run([*moetui, "record", "demo", "-p", "Once there was", "-n", "32", "-o", trace, "-q"], check=True)
        quick = {
            'python -c "import click"': lambda: seconds_of([python, "-c", "import click"]),
            "moetui --help": lambda: seconds_of([*moetui, "--help"]),
            "moetui stats": lambda: seconds_of([*moetui, "stats", trace]),
        }
        pictures = {
            "a Textual app of one label": lambda: first_picture([python, "-c", MINIMAL], "minimal")[0],
            "moetui run demo": watched(["run", "demo"], "Profiler"),
            "moetui replay": watched(["replay", trace], "Profiler"),
            "moetui replay, tokens shown": watched(["replay", trace], "waterfall"),
        }
        own = "from transformers.models.mixtral import modeling_mixtral"
        ready = {
            "importing transformers' Mixtral": lambda: seconds_of([python, "-c", own]),
            "moetui run demo, ready": lambda: first_picture([*moetui, "run", "demo"], "○ ready")[0],
            "moetui run random:mixtral": lambda: first_picture([*moetui, "run", "random:mixtral"], "○ ready")[0],
        }
        kinds = {"start to end": quick, "start to first picture": pictures, "start until the model is ready": ready}
        results = {title: medians(measures, options.times) for title, measures in kinds.items()}
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for title, rows in results.items():
        print(f"\n{title}")
        for name, row in rows.items():
            print(f"  {name:<30} {row['ms']:7.0f} ms  {row['ratio']:5.2f}×  (best {row['best_ms']:.0f} ms)")


def medians(measures: dict[str, Callable[[], float]], times: int) -> dict[str, dict[str, float]]:
    """Milliseconds by name: the median, the least, and the median as a multiple of the first one's."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for measure in measures.values():  # once unmeasured: it leaves its bytecode behind
        measure()
    for _ in range(times):  # in turns, so that a busy moment hits all alike
        for name, measure in measures.items():
            found[name].append(measure())
    base = statistics.median(next(iter(found.values())))
    return {
        name: {
            "ms": 1e3 * statistics.median(values),
            "ratio": statistics.median(values) / base,
            "best_ms": 1e3 * min(values),
        }
        for name, values in found.items()
    }


if __name__ == "__main__":
    main()
