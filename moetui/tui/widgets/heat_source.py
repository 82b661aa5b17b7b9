"""From a view of the timeline to the heatmap's picture: window, measure, baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moetui.routing import drawable
from moetui.routing.events import Branch
from moetui.routing.kept import newest_branch
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
        recording: name and view of another recording, which goes before ``other``; its sites must be alike.
    """

    def __init__(self) -> None:
        self.measure: Measure = "load"
        self.window: Window = WINDOWS[0]
        self.relative = True
        self.other: int | None = None
        self.recording: tuple[str, TimelineView] | None = None
        self._sums = WindowSums()
        self._others = SlidingSums()
        self._trail = EntropyTrail()
        self.sums: RoutingSums | None = None

    def compare_with(self, name: str, view: TimelineView) -> None:
        """Take another recording of the same sites as what ``difference`` compares with."""
        self.recording, self._others = (name, view), SlidingSums()
        self.measure = "difference"

    def next_measure(self, view: TimelineView | None) -> None:
        """The next of ``MEASURES``; a difference only where there is another run to compare with."""
        comparable = self.recording is not None or (view is not None and len(np.unique(view.steps().branch)) > 1)
        offered = [measure for measure in MEASURES if comparable or measure != "difference"]
        at = offered.index(self.measure) if self.measure in offered else -1
        self.measure = offered[(at + 1) % len(offered)]

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
        window, sums, baseline, share = self._gather(view, token, matched, branches)
        self.sums = sums
        newest = newest_branch(view)
        heat = heat_values(
            sums, sites, self.measure, relative=self.relative, baseline=None if baseline is None else baseline.sums
        )
        words = [MEASURE_NAMES[self.measure], window.words(_branch_name(branches, newest))]
        if self.measure == "difference":
            words.append(f"against {baseline.name}" if baseline is not None else "nothing to compare with yet")
        words.append(self._relation())
        if share < 1.0:
            words.append(f"counted {100 * share:.0f}%")
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
        return picture, share >= 1.0

    def _relation(self) -> str:
        if self.measure == "entropy":
            return "of ln E" if self.relative else ""
        return "× uniform" if self.relative else ""

    def advance(
        self, view: TimelineView, *, token: int | None, matched: Matched | None, branches: Sequence[Branch] = ()
    ) -> bool:
        """Count one portion more without a picture; True when all of the window is counted."""
        return self._gather(view, token, matched, branches)[3] >= 1.0

    def _gather(
        self, view: TimelineView, token: int | None, matched: Matched | None, branches: Sequence[Branch]
    ) -> tuple[Window, RoutingSums, Baseline | None, float]:
        window = self.window if matched is not None or self.window.kind != "filter" else WINDOWS[0]
        differs = self.measure == "difference"
        if differs and window.kind not in ("branch", "filter"):
            window = Window("branch")
        sums, share = self._sums.of(view, window, token=token, matched=matched)
        baseline, other_share = self._compared(view, branches) if differs else (None, 1.0)
        return window, sums, baseline, min(share, other_share)

    def _compared(self, view: TimelineView, branches: Sequence[Branch]) -> tuple[Baseline | None, float]:
        if self.recording is not None:
            name, other_view = self.recording
            sums, share = self._others.move(other_view, "recording", other_view.first, other_view.end)
            return Baseline(name, sums), share
        newest = newest_branch(view)
        held = np.unique(view.steps().branch)
        other = self.other
        if other is None or other == newest or other not in held:
            before = held[held != newest]
            if not len(before):
                return None, 1.0
            other = int(before[-1])
        sums, share = self._others.move(view, other, view.first, view.end, of_branch(other))
        return Baseline(_branch_name(branches, other), sums), share


def _branch_name(branches: Sequence[Branch], number: int | None) -> str:
    number = number or 0
    name = next((branch.name for branch in branches if branch.id == number), "")
    return drawable(name) or f"branch {number}"
