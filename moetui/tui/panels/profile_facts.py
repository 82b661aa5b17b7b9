"""Where the time went, from the timeline alone: rates, step times, times between routers, experts' tokens, what-ifs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.routing import Phase, Site, StepColumns, TimelineView
from moetui.routing.metrics import balanced_placement, cache_hit_rates, contiguous_placement, loads, placement_imbalance

STEPS = 256  # newest decode steps looked at
WINDOW = 2048  # newest tokens looked at for experts


@dataclass(frozen=True, slots=True, eq=False)
class StepFacts:
    """The newest decode steps.

    Attributes:
        number: how many; ms: ``[number]`` their durations; rate: ``[number]`` tokens a second of each.
        median, high: median and 95th percentile of the durations; NaN without steps.
        prefill_rate: tokens a second of the newest prefill; NaN if there is none.
        prefill_tokens: its tokens.
    """

    number: int
    ms: NDArray[np.float32]
    rate: NDArray[np.float64]
    median: float
    high: float
    prefill_rate: float
    prefill_tokens: int


def step_facts(steps: StepColumns) -> StepFacts:
    """Look at the durations of the steps held."""
    decode = np.flatnonzero(steps.phase == Phase.DECODE)[-STEPS:]
    prefill = np.flatnonzero(steps.phase == Phase.PREFILL)[-1:]
    ms = steps.duration[decode]
    with np.errstate(all="ignore"):
        rate = steps.num_tokens[decode] / (ms.astype(np.float64) / 1e3)
    prefill_tokens = int(steps.num_tokens[prefill].sum())
    prefill_ms = float(steps.duration[prefill].sum())
    return StepFacts(
        int(decode.size),
        ms,
        rate,
        float(np.median(ms)) if ms.size else math.nan,
        float(np.percentile(ms, 95)) if ms.size else math.nan,
        1e3 * prefill_tokens / prefill_ms if prefill_ms > 0 else math.nan,
        prefill_tokens,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """A part of a step between two moments that the hooks saw: from one router's choice to the next one's.

    Attributes:
        start, stop: names of the ends; ``ms`` its mean duration; ``share`` of the steps' whole duration.
        offset: where it starts, as a share of the whole.
    """

    start: str
    stop: str
    ms: float
    share: float
    offset: float


def stretches(steps: StepColumns, sites: tuple[Site, ...], step: int | None = None) -> tuple[list[Stretch], int]:
    """Mean stretches of the newest decode steps, or of one step by its index; and of how many steps they are.

    The times are the host's. On a GPU they tell when work was issued, not when it ran.
    """
    if step is not None:
        rows = np.flatnonzero(steps.index == step)
    else:
        rows = np.flatnonzero(steps.phase == Phase.DECODE)[-STEPS:]
        if not rows.size:
            rows = np.arange(len(steps.index))[-1:]
    times = steps.site_ms[rows].astype(np.float64)
    whole = steps.duration[rows].astype(np.float64)
    known = np.asarray(np.isfinite(times).any(0), np.bool_) if rows.size else np.zeros(len(sites), np.bool_)
    passed = [site for site in sites if known[site.index]]
    if not passed:
        return [], 0
    # Sites in the order in which they were passed: a tower or an encoder may come first.
    means = [float(np.nanmean(times[:, site.index])) for site in passed]
    order = np.argsort(means, kind="stable")
    total = float(whole.mean())
    ends = [0.0, *(means[i] for i in order), total]
    names = ["start", *(passed[i].name for i in order), "end"]
    out = []
    for number in range(len(ends) - 1):
        ms = max(0.0, ends[number + 1] - ends[number])
        share = ms / total if total > 0 else 0.0
        out.append(Stretch(names[number], names[number + 1], ms, share, ends[number] / total if total > 0 else 0.0))
    return out, int(rows.size)


@dataclass(frozen=True, slots=True, eq=False)
class ExpertLoads:
    """Experts' tokens over a window, and what serving would make of it.

    Attributes:
        tokens: tokens of the window, padding left out.
        loads: ``[S, E]``.
        hits: share of expert look-ups that an LRU cache of each size would answer, mean over the sites, ``[E]``.
        cache: a size for the example: half of the experts.
        devices: number of devices for the example; even, balanced: max over mean of their loads, mean over sites, with
            the experts in order, and placed by the loads seen.
    """

    tokens: int
    loads: NDArray[np.int64]
    hits: NDArray[np.float64]
    cache: int
    devices: int
    even: float
    balanced: float

    def busiest(self, sites: tuple[Site, ...], most: int) -> list[tuple[Site, int, int, float]]:
        """Site, expert, tokens, and those over the even share: the most overloaded first."""
        rows = []
        for site in sites:
            row = self.loads[site.index, : site.num_experts]
            total = int(row.sum())
            for expert in np.argsort(-row, kind="stable")[:most]:
                load = int(row[expert])
                if load:
                    rows.append((site, int(expert), load, load * site.num_experts / total))
        rows.sort(key=lambda row: -row[3])
        return rows[:most]


def expert_loads(view: TimelineView, devices: int = 4) -> ExpertLoads | None:
    """Look at the newest tokens; None while there are none."""
    start = max(view.first, view.end - WINDOW)
    columns, block = view.tokens(start, view.end), view.routing(start, view.end)
    keep = ~columns.pad
    if not keep.any() or not view.sites:
        return None
    counts = loads(block.indices, view.sites, keep)
    experts = max(site.num_experts for site in view.sites)
    hits, even, balanced = [], [], []
    for site in view.sites:
        rates = cache_hit_rates(block.indices[keep][:, site.index, : site.top_k], site.num_experts)
        hits.append(np.pad(rates, (0, experts - site.num_experts), mode="edge"))
        row = counts[site.index, : site.num_experts]
        if row.sum():
            number = min(devices, site.num_experts)
            even.append(placement_imbalance(row, contiguous_placement(site.num_experts, number)))
            balanced.append(placement_imbalance(row, balanced_placement(row, number)))
    with np.errstate(all="ignore"):
        mean_hits = np.nanmean(np.array(hits), 0)
    return ExpertLoads(
        int(keep.sum()),
        counts,
        mean_hits,
        max(1, experts // 2),
        min(devices, experts),
        float(np.mean(even)) if even else math.nan,
        float(np.mean(balanced)) if balanced else math.nan,
    )
