"""From a view of the timeline to the heatmap's picture: window, measure, baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moetui.routing import drawable
from moetui.routing.events import Branch
from moetui.routing.metrics import by_site, jain_fairness
from moetui.routing.timeline import TimelineView
from moetui.tui.widgets.heat_values import MEASURE_NAMES, MEASURES, HeatPicture, Measure, heat_values
from moetui.tui.widgets.sums import RoutingSums, SlidingSums
from moetui.tui.widgets.windows import WINDOWS, EntropyTrail, Matched, Window, WindowSums, of_branch


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Another run to compare with: its name and its sums."""

    name: str
    sums: RoutingSums


class HeatSource:
    """Makes pictures; holds what a person chose to see.

    Attributes:
        measure, window: what is shown, of which tokens.
        relative: shares as multiples of an even spread.
        other: the branch that ``difference`` compares with; None for the one before the newest.
        baseline: a run of another recording, which goes before ``other``.
    """

    def __init__(self) -> None:
        self.measure: Measure = "load"
        self.window: Window = WINDOWS[0]
        self.relative = True
        self.other: int | None = None
        self.baseline: Baseline | None = None
        self._sums = WindowSums()
        self._others = SlidingSums()
        self._trail = EntropyTrail()
        self.sums: RoutingSums | None = None

    def next_measure(self) -> None:
        """The next of ``MEASURES``."""
        self.measure = MEASURES[(MEASURES.index(self.measure) + 1) % len(MEASURES)]

    def next_window(self, *, filtered: bool) -> None:
        """The next window; the filtered tokens only where there is a filter."""
        offered = [window for window in WINDOWS if filtered or window.kind != "filter"]
        at = offered.index(self.window) if self.window in offered else -1
        self.window = offered[(at + 1) % len(offered)]

    def next_baseline(self, branches: Sequence[Branch], newest: int) -> Branch | None:
        """Compare with the next other branch; None if there is none."""
        others = [branch for branch in branches if branch.id != newest]
        if not others:
            return None
        at = next((i for i, branch in enumerate(others) if branch.id == self.other), len(others) - 2)
        chosen = others[(at + 1) % len(others)]
        self.other = chosen.id
        return chosen

    def picture(
        self, view: TimelineView, *, token: int | None, matched: Matched | None, branches: Sequence[Branch] = ()
    ) -> tuple[HeatPicture, bool]:
        """The picture, and whether all of the window is in it."""
        sites = view.sites
        window = self.window if matched is not None or self.window.kind != "filter" else WINDOWS[0]
        if self.measure == "difference" and window.kind not in ("branch", "filter"):
            window = Window("branch")
        sums, share = self._sums.of(view, window, token=token, matched=matched)
        self.sums = sums
        newest = int(view.tokens(view.end - 1, view.end).branch[0]) if view.end > view.first else 0
        baseline, other_share = self._baseline(view, newest, branches) if self.measure == "difference" else (None, 1.0)
        heat = heat_values(
            sums, sites, self.measure, relative=self.relative, baseline=None if baseline is None else baseline.sums
        )
        words = [MEASURE_NAMES[self.measure], window.words(_branch_name(branches, newest))]
        if self.measure == "difference":
            words.append(f"against {baseline.name}" if baseline is not None else "nothing to compare with yet")
        words.append(self._relation())
        done = share >= 1.0 and other_share >= 1.0
        if not done:
            words.append(f"counted {100 * min(share, other_share):.0f}%")
        known = np.maximum(sums.known, 1)
        picture = HeatPicture(
            names=tuple(site.name for site in sites),
            heat=heat,
            title=" · ".join(word for word in words if word),
            entropy=np.where(sums.known > 0, sums.entropy / known, np.nan),
            fairness=np.asarray(jain_fairness(by_site(sums.loads, sites)), np.float64),
            trail=self._trail.of(view),
            loads=sums.loads,
        )
        return picture, done

    def _relation(self) -> str:
        if self.measure == "entropy":
            return "of ln E" if self.relative else ""
        return "× uniform" if self.relative else ""

    def _baseline(self, view: TimelineView, newest: int, branches: Sequence[Branch]) -> tuple[Baseline | None, float]:
        if self.baseline is not None:
            return self.baseline, 1.0
        held = np.unique(view.steps().branch)
        other = self.other
        if other is None or other == newest or other not in held:
            before = held[held != newest]
            if not len(before):
                return None, 1.0
            other = int(before[-1])
        sums, share = self._others.move(view, other, view.first, view.end, of_branch(other))
        return Baseline(_branch_name(branches, other), sums), share


def _branch_name(branches: Sequence[Branch], number: int) -> str:
    name = next((branch.name for branch in branches if branch.id == number), "")
    return drawable(name) or f"branch {number}"
