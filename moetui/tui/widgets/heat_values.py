"""What a heatmap cell shows: from sums over tokens to values, a scale, and sixteen levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from moetui.routing import drawable
from moetui.routing.model import Site
from moetui.routing.step import F64, I64, U8, Bool
from moetui.tui.cells import fit
from moetui.tui.ramps import LEVELS
from moetui.tui.widgets.sums import RoutingSums

Measure = Literal["load", "mass", "chance", "entropy", "difference"]
MEASURES: tuple[Measure, ...] = ("load", "mass", "chance", "entropy", "difference")
MEASURE_NAMES: dict[Measure, str] = {
    "load": "load share",
    "mass": "gate mass",
    "chance": "mean probability",
    "entropy": "entropy of its tokens",
    "difference": "load share, difference",
}
Pooling = Literal["max", "mean"]
_NAME = 16  # cells of a site's name beside a value

ZERO, UNKNOWN, ABSENT = LEVELS, LEVELS + 1, LEVELS + 2
"""Levels past the ramp: nothing was sent there; not known; no such expert at this site."""

Levels: TypeAlias = U8


@dataclass(frozen=True, slots=True, eq=False)
class HeatValues:
    """One value a site and expert, with its scale.

    Attributes:
        values: ``[S, E]``, NaN where unknown.
        zero: ``[S, E]`` experts that nothing was sent to (in either run, for a difference).
        absent: ``[S, E]`` cells that are no expert of the site.
        low, high: ends of the scale.
        unit: what stands behind a value: ``%``, ``× uniform``, ``nats`` ...
        diverging: the scale's middle means "no change".
    """

    values: F64
    zero: Bool
    absent: Bool
    low: float
    high: float
    unit: str
    diverging: bool = False


def heat_values(
    sums: RoutingSums, sites: tuple[Site, ...], measure: Measure, *, relative: bool, baseline: RoutingSums | None = None
) -> HeatValues:
    """The cells of one measure.

    Shares are of a site's slots (load), gate mass, or probability. ``relative`` is to uniform: a share times the
    site's number of experts, an entropy over ln of it.
    """
    counts = np.array([site.num_experts for site in sites], np.float64)[:, None]
    absent = np.arange(sums.loads.shape[1])[None, :] >= counts
    zero = (sums.loads == 0) & ~absent
    unit, factor = ("× uniform", counts) if relative else ("%", np.full_like(counts, 100.0))
    diverging = False
    with np.errstate(all="ignore"):
        if measure == "load":
            values = _share(sums.loads) * factor
        elif measure == "mass":
            values = np.where(sums.weighed[:, None] > 0, _share(sums.mass), np.nan) * factor
        elif measure == "chance":
            values = sums.chance / sums.known[:, None] * factor
            zero = np.zeros_like(zero)
        elif measure == "entropy":
            unit, factor = ("of ln E", np.log(counts)) if relative else ("nats", np.ones_like(counts))
            values = np.where(sums.spread_count > 0, sums.spread / sums.spread_count, np.nan) / factor
        else:
            other = np.full_like(sums.mass, np.nan) if baseline is None else _share(baseline.loads)
            values = (_share(sums.loads) - other) * factor
            unit, diverging = ("× uniform" if relative else "points"), True
            zero &= np.zeros_like(zero) if baseline is None else baseline.loads == 0
    values = np.where(absent, np.nan, values)
    zero &= np.isfinite(values) | (measure == "entropy")
    if not sums.loads.any() and not diverging:
        zero = ~absent  # before the first token nothing is unknown: there is nothing yet
    peak = float(np.nanmax(np.abs(values), initial=0.0))
    high = nice_ceiling(peak, doubling=unit == "× uniform" and not diverging)
    return HeatValues(values, zero, absent, -high if diverging else 0.0, high, unit, diverging)


def _share(sums: NDArray[np.number]) -> F64:
    with np.errstate(all="ignore"):
        return np.asarray(sums / sums.sum(1, keepdims=True), np.float64)


def nice_ceiling(value: float, *, doubling: bool = False) -> float:
    """The next round number at or above ``value``: 1, 2, 5, 10 ... or, doubling, 2, 3, 4, 6, 8, 12 ..."""
    if not math.isfinite(value) or value <= 0:
        return 2.0 if doubling else 1.0
    if doubling:
        power = 2.0 ** math.floor(math.log2(value) + 1e-9)
        return max(2.0, next(step * power for step in (1, 1.5, 2) if value <= step * power * (1 + 1e-9)))
    power = 10.0 ** math.floor(math.log10(value))
    for step in (1, 2, 5, 10):
        if value <= step * power * (1 + 1e-9):
            return step * power
    return 10 * power


def quantise(heat: HeatValues, low: float, high: float) -> Levels:
    """Levels 0..15 over ``low..high``, and ``ZERO``, ``UNKNOWN``, ``ABSENT``."""
    with np.errstate(all="ignore"):
        scaled = (heat.values - low) / (high - low) * LEVELS
        levels = np.clip(np.nan_to_num(scaled, nan=0.0), 0, LEVELS - 1).astype(np.uint8)
    levels[np.isnan(heat.values)] = UNKNOWN
    levels[heat.zero] = ZERO
    levels[heat.absent] = ABSENT
    return levels


def pool(levels: Levels, fold: int, how: Pooling, *, diverging: bool = False) -> Levels:
    """Every ``fold`` columns as one: the most extreme or the mean level of those known.

    A folded cell is ``ZERO`` only where all its members are zero; unknown members do not count beside known ones.
    """
    if fold <= 1:
        return levels
    rows, columns = levels.shape
    width = -(-columns // fold)
    padded = np.full((rows, width * fold), ABSENT, np.uint8)
    padded[:, :columns] = levels
    groups = padded.reshape(rows, width, fold)
    known = groups < LEVELS
    counted = known | (groups == ZERO)
    grades = np.where(known, groups, 0).astype(np.float64)
    if how == "max" and diverging:
        middle = (LEVELS - 1) / 2
        away = np.where(known, np.abs(groups - middle), -1.0)
        out = np.take_along_axis(groups, away.argmax(-1)[..., None], -1)[..., 0]
    elif how == "max":
        out = grades.max(-1).astype(np.uint8)
    else:
        out = np.round(grades.sum(-1) / np.maximum(1, counted.sum(-1))).astype(np.uint8)
    out = np.where(known.any(-1), out, UNKNOWN).astype(np.uint8)
    out[~known.any(-1) & counted.any(-1)] = ZERO
    out[(groups == ABSENT).all(-1)] = ABSENT
    return out


_SHORT_UNITS = {"%": "%", "× uniform": "×"}


@dataclass(frozen=True, slots=True, eq=False)
class HeatPicture:
    """What a heatmap shows: sites down, experts across, before folding and swapping.

    Attributes:
        names: site names, not yet drawable.
        heat: values and scale.
        title: what is shown, in words.
        entropy, fairness: ``[S]`` by site, NaN where unknown.
        trail: ``[B, S]`` entropy by site over the last groups of tokens, oldest first.
        loads: ``[S, E]`` slots, for the cursor's exact line.
        loads_before: of the run that this one is held against; entropy and fairness are differences then. None for one
            run alone.
    """

    names: tuple[str, ...]
    heat: HeatValues
    title: str
    entropy: F64
    fairness: F64
    trail: F64
    loads: I64 = field(repr=False)
    loads_before: I64 | None = field(default=None, repr=False)

    def cursor_text(self, site: int, expert: int) -> str:
        """One cell's exact value, in words."""
        values = self.heat.values
        if site >= values.shape[0] or expert >= values.shape[1]:
            return ""
        name = drawable(self.names[site])
        if cell_len(name) > _NAME:
            name = fit(name, _NAME, "left", "…").rstrip()
        if self.heat.absent[site, expert]:
            return f"{name} has no expert {expert}"
        value, unit, load = values[site, expert], self.heat.unit, int(self.loads[site, expert])
        shown = "unknown" if np.isnan(value) else f"{value:.3g}{_SHORT_UNITS.get(unit, ' ' + unit)}"
        if not load and not self.heat.diverging:
            shown = f"no load{'' if np.isnan(value) or not value else ', ' + shown}"
        count = f"{load:,} of {int(self.loads[site].sum()):,}"
        if self.loads_before is not None:
            count = f"{int(self.loads_before[site, expert]):,} → {count}"
        return f"{name} E{expert}  {shown}  {count}"
