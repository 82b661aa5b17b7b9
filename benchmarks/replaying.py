"""What ``moetui replay`` of a file takes in a terminal of 120×40; ``trace.py`` asks it of a large one and a small one.

    python benchmarks/replaying.py FILE... [--rounds 5] [--json]

Wall time and the process's highest resident memory, medians of turns: until the first picture, until tokens are on the
screen, and from Enter in the dialog that goes to the last token until that token is there; then all that is counted
over the whole recording is waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moetui.trace import open_trace
from tests.tui.pty_terminal import Terminal

_LIMIT = 120.0  # seconds that anything may take
_COUNTED = "dropped 0 "  # it has a question mark while not all is counted


def replays(cases: Mapping[str, tuple[Path, bool]], rounds: int = 5) -> dict[str, float]:
    """Medians by title of the case and figure; a case is a file, and whether it is out of the page cache before."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    found: dict[str, list[float]] = {}
    replay(next(iter(cases.values()))[0])  # unmeasured: it leaves bytecode behind
    for _ in range(rounds):
        for title, (file, cold) in cases.items():
            if cold:
                forget(file)
            for name, value in replay(file).items():
                found.setdefault(f"replay, {title}: {name}", []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def replay(path: Path) -> dict[str, float]:
    """One start."""
    with open_trace(path) as trace:
        tokens = trace.num_tokens
    begun = time.perf_counter()
    opened = Terminal([sys.executable, "-m", "moetui", "replay", str(path)], columns=120, rows=40)
    try:
        out = {
            "first picture, ms": seconds_until(opened, "Profiler", begun) * 1e3,
            "tokens on the screen, ms": seconds_until(opened, "waterfall", begun) * 1e3,
            "memory then, MB": memory_mb("VmHWM", opened.pid),
        }
        opened.send("g")
        seconds_until(opened, "go to token", begun)
        begun = time.perf_counter()
        opened.send(f"{tokens - 1}\r")
        # The selected row; a token of a prefill has a mark before its number.
        sign = rf"▌ +›?{tokens - 1} "
        out["jump to the last token, ms"] = seconds_until(opened, sign, begun) * 1e3
        seconds_until(opened, _COUNTED, begun)
        out["memory when all is counted, MB"] = memory_mb("VmHWM", opened.pid)
        return out
    finally:
        opened.close()


def seconds_until(opened: Terminal, sign: str, begun: float) -> float:
    """Seconds since ``begun`` until what ``sign`` matches stands on the screen."""
    seen = -1
    while time.perf_counter() - begun < _LIMIT:
        if len(opened.received) != seen:
            seen = len(opened.received)
            if re.search(sign, opened.text()):
                return time.perf_counter() - begun
        if not opened.pump(0.002):
            raise SystemExit(f"ended before {sign!r} stood there:\n{opened.text()}")
    raise SystemExit(f"no {sign!r} on the screen:\n{opened.text()}")


def forget(path: Path) -> None:
    """Ask the system to drop the file from its cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def memory_mb(name: str, process: int | str = "self") -> float:
    """``VmRSS``: resident now; ``VmHWM``: at most so far."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = replays({str(path): (path, False) for path in options.files}, options.rounds)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"  {name:<80} {value:>10,.1f}")


if __name__ == "__main__":
    main()
