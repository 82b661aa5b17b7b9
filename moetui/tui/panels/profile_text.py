"""The Profiler's facts as rows of text. What is measured, apportioned or only imagined is said beside the number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from moetui.routing import ModelInfo, Site, drawable
from moetui.tui.ink import Ink
from moetui.tui.panels.element_text import Piece, Row, Rows, percent
from moetui.tui.panels.outline import bytes_text
from moetui.tui.panels.profile_facts import ExpertLoads, StepFacts, Stretch
from moetui.tui.status import LineFacts, RunFacts

_BAR = 28
_STRETCHES = (
    "from one router's choice to the next one's, as the host saw it: a layer's experts, the next one's attention and"
    " router. On a GPU work is issued then, not done."
)


def nothing_rows(tokens: int, *, replayed: bool) -> Rows:
    """Why there is nothing to show, where the other functions have no rows."""
    if tokens:
        text = "no times are known of these tokens"
    else:
        text = "no tokens yet" if replayed else "no tokens yet: type a prompt (p), Enter runs it"
    return [Row(None, (Piece(text, "dim"),))]


def rate_rows(facts: StepFacts, run: RunFacts, ink: Ink, room: int) -> Rows:
    """Decode rate and step times, with up to the last 24 steps as a spark.

    Args:
        run: the run last begun or gone back to, whose rate over all its decode steps is shown.
        room: cells beside the labels.
    """
    rows: Rows = []
    if facts.number:
        mean = ink.glyphs.dash if math.isnan(run.whole) else f"{run.whole:.1f}"
        unit = " tok/s this run  " if run.others else " tok/s  "
        spark = ink.glyphs.spark(
            [float(value) for value in facts.rate], max(1, min(24, room - len(mean) - len(unit) - 2)), 0.0
        )
        rows.append(Row("decode", (Piece(mean, "strong"), Piece(unit), Piece(spark, "bar"))))
        times = f"{facts.median:.1f} ms median  p95 {facts.high:.1f}"
        of = f"  of {facts.number}, all runs" if run.others else f"  of {facts.number}"
        rows.append(Row("step", (Piece(times), Piece(of, "dim"))))
    if not math.isnan(facts.prefill_rate):
        text = f"{facts.prefill_rate:,.0f} tokens/s"
        rows.append(Row("prefill", (Piece(text), Piece(f"  {facts.prefill_tokens} tokens", "dim"))))
    return rows


def stretch_rows(parts: list[Stretch], ink: Ink, width: int, stopped: str = "") -> Rows:
    """The waterfall of a step: one row from each router's choice to the next one's; ``stopped``'s is marked."""
    if not parts:
        return []
    name = max(len(f"{drawable(part.start)} → {drawable(part.stop)}") for part in parts)
    bar = max(4, min(_BAR, width - name - (23 if stopped else 21)))
    arrow = "->" if ink.ascii_only else "→"
    rows = []
    for part in parts:
        label = f"{drawable(part.start)} {arrow} {drawable(part.stop)}"
        here = bool(stopped) and part.start == stopped
        mark = f"{ink.glyphs.stopped if here else ' '} " if stopped else ""
        before = min(bar - 1, round(part.offset * bar))
        length = max(1, round((part.offset + part.share) * bar) - before)
        rows.append(
            Row(
                None,
                (
                    Piece(f"{mark}{label:<{name + 1}}", "strong" if here else "dim"),
                    Piece(f"{part.ms:>7.2f} ms {part.share:>4.0%}  "),
                    Piece(" " * before + ink.glyphs.bar * length, "bar"),
                ),
            )
        )
    return [*rows, Row(), Row(None, (Piece(_STRETCHES, "dim"),))]


def expert_rows(facts: ExpertLoads | None, sites: tuple[Site, ...], ink: Ink, width: int) -> Rows:
    """The busiest experts, and what a cache or a placement would do with the routing seen."""
    if facts is None:
        return []
    times = ink.glyphs.times
    rows = []
    for site, expert, load, relative in facts.busiest(sites, 10):
        rows.append(
            Row(
                None,
                (
                    Piece(f"{drawable(site.name):<6} ", "dim"),
                    Piece(f"E{expert:<4}", expert=expert),
                    Piece(f"{load:>6,} tokens {relative:>4.1f}{times} "),
                    Piece(ink.glyphs.bar * max(1, min(12, width - 32, round(relative * 3))), expert=expert),
                ),
            )
        )
    hit = float(facts.hits[facts.cache - 1]) if facts.hits.size >= facts.cache else math.nan
    total = facts.hits.size
    cache = f"hits with {facts.cache} of {total} experts kept (LRU)"
    rows += [
        Row(),
        Row(None, (Piece("what if, by the routing seen", "dim"),)),
        Row("cache", (Piece(percent(hit), "strong"), Piece(f" {cache}"))),
        Row(
            f"{facts.devices} devices",
            (
                Piece(f"{facts.even:.2f}", "strong"),
                Piece(f" max/mean in order, {facts.balanced:.2f} by load"),
            ),
        ),
    ]
    return rows


def memory_held() -> int:
    """Bytes of memory that the process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def memory_rows(rss: int, info: ModelInfo | None) -> Rows:
    """What the process holds."""
    rows = [Row("process", (Piece(bytes_text(rss), "strong"), Piece("  resident", "dim")))]
    if info is not None and info.nbytes:
        rows.append(
            Row("model", (Piece(bytes_text(info.nbytes)), Piece(f"  on {drawable(info.device) or '–'}", "dim")))
        )
    return rows


def cost_rows(costs: Mapping[str, float], line: LineFacts) -> Rows:
    """What the debugger takes, measured: shares of the run's wall time, and the way to the terminal."""
    rows = [Row()]
    if costs:
        total = sum(costs.values())
        rows.append(Row("itself", (Piece(percent(total), "strong"), Piece("  of the run", "dim"))))
        for name, share in costs.items():
            rows.append(Row(f"  {drawable(name)}", (Piece(percent(share, 2)),)))
    else:
        rows.append(Row("itself", (Piece("not measured: nothing runs here", "dim"),)))
    if line.fps:
        rows.append(Row("screen", (Piece(f"{line.fps:.1f} fps  {line.kilobytes:.1f} KB/s"),)))
    if line.round_trip is not None:
        rows.append(Row("terminal", (Piece(f"answers in {1e3 * line.round_trip:.0f} ms"),)))
    return rows
