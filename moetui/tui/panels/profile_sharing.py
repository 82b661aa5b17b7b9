"""The Profiler's boxes as rows to take along, each with a header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moetui.routing import ModelInfo, Site, drawable
from moetui.tui.panels.profile_facts import ExpertLoads, StepFacts, Stretch
from moetui.tui.status import LineFacts
from moetui.tui.widgets.sharing import Rows


def rate_shared(facts: StepFacts) -> Rows:
    """The newest decode steps, the oldest of them first, as the chart draws them."""
    yield ("steps_before_now", "ms", "tokens_per_second")
    for place, (ms, rate) in enumerate(zip(facts.ms.tolist(), facts.rate.tolist())):
        yield (facts.number - 1 - place, ms, rate)


def stretch_shared(parts: Sequence[Stretch]) -> Rows:
    """From one router's choice to the next one's."""
    yield ("from", "to", "ms", "share", "starts_at")
    for part in parts:
        yield (drawable(part.start), drawable(part.stop), part.ms, part.share, part.offset)


def loads_shared(facts: ExpertLoads | None, sites: tuple[Site, ...]) -> Rows:
    """Every expert that got a token, the most overloaded first."""
    yield ("site", "layer", "expert", "tokens", "times_even")
    if facts is not None:
        for site, expert, load, relative in facts.busiest(sites, facts.loads.size):
            yield (drawable(site.name), site.layer, expert, load, relative)


def cost_shared(rss: int, info: ModelInfo | None, costs: Mapping[str, float], line: LineFacts) -> Rows:
    """Memory, and what the debugger takes."""
    yield ("what", "unit", "value")
    yield ("process, resident", "bytes", rss)
    if info is not None and info.nbytes:
        yield ("model", "bytes", info.nbytes)
    for name, share in costs.items():
        yield (drawable(name), "share of the run's time", share)
    yield ("screen", "frames/s", line.fps)
    yield ("line", "KB/s", line.kilobytes)
    if line.round_trip is not None:
        yield ("terminal", "ms", 1e3 * line.round_trip)
