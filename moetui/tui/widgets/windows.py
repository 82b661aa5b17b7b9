"""Which tokens a picture is of, and the sums over them, kept up to date from view to view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from moetui.routing.kept import newest_branch, newest_token
from moetui.routing.metrics import loads
from moetui.routing.scores import site_entropy
from moetui.routing.step import F64, I64, Bool
from moetui.routing.timeline import TimelineView, TokenColumns
from moetui.tui.widgets.sums import (
    Balance,
    Chooser,
    RoutingSums,
    SlidingSums,
    mean_balance,
    no_sums,
    sum_tokens,
)

WindowKind = Literal["last", "token", "branch", "all", "filter"]
LAST_TOKENS = (64, 256)
TRAIL_GROUPS, TRAIL_SIZE = 8, 8


@dataclass(frozen=True, slots=True)
class Window:
    """A choice of tokens: the last ``count``, one, the newest token's branch, all held, or those a filter lets pass."""

    kind: WindowKind = "last"
    count: int = 64

    def words(self, branch: str = "") -> str:
        """As a title says it."""
        return {
            "last": f"last {self.count} tokens",
            "token": "selected token",
            "branch": branch or "this run",
            "all": "all tokens",
            "filter": "filtered tokens",
        }[self.kind]


WINDOWS: tuple[Window, ...] = (
    *(Window("last", count) for count in LAST_TOKENS),
    Window("token"),
    Window("branch"),
    Window("all"),
    Window("filter"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Tokens that a filter lets pass, by their timeline numbers in ascending order."""

    numbers: I64
    key: object


class WindowSums:
    """Sums over a ``Window`` of each view it is given."""

    def __init__(self) -> None:
        self._sliding = SlidingSums()

    def of(
        self, view: TimelineView, window: Window, *, token: int | None, matched: Matched | None = None
    ) -> tuple[RoutingSums, float]:
        """The sums and the share of the window they cover (see ``SlidingSums.move``)."""
        if window.kind == "token":
            at = newest_token(view) if token is None else token
            if at is None:
                return no_sums(view.sites), 1.0
            return sum_tokens(view, at, at + 1), 1.0
        if window.kind == "last":
            return self._sliding.move(view, ("last", window.count), max(view.first, view.end - window.count), view.end)
        if window.kind == "filter" and matched is not None:
            key = ("filter", matched.key)
            return self._sliding.move(view, key, view.first, view.end, _among(matched.numbers))
        branch = newest_branch(view) if window.kind == "branch" else None
        if branch is not None:
            return self._sliding.move(view, ("branch", branch), view.first, view.end, of_branch(branch))
        return self._sliding.move(view, "all", view.first, view.end)


def of_branch(branch: int) -> Chooser:
    """Chooses a branch's tokens."""

    def choose(columns: TokenColumns, _first: int) -> Bool:
        return np.asarray(~columns.pad & (columns.branch == branch), np.bool_)

    return choose


def _among(numbers: I64) -> Chooser:
    def choose(columns: TokenColumns, first: int) -> Bool:
        out = np.zeros(len(columns.pad), np.bool_)
        low, high = np.searchsorted(numbers, (first, first + len(out)))
        out[numbers[low:high] - first] = True
        return out & ~columns.pad

    return choose


class EntropyTrail:
    """Mean router entropy by site over groups of consecutive tokens; a full group never changes, so it is kept."""

    def __init__(self, size: int = TRAIL_SIZE) -> None:
        self._size = size
        self._kept: dict[int, F64] = {}
        self._sites: object = None

    def of(self, view: TimelineView, groups: int = TRAIL_GROUPS) -> F64:
        """``[groups, S]`` of the newest groups, oldest first; NaN where unknown or before the first token."""
        if self._sites is not view.sites:
            self._kept, self._sites = {}, view.sites
        newest = (view.end - 1) // self._size
        rows = [self._group(view, group) for group in range(newest - groups + 1, newest + 1)]
        for group in [g for g in self._kept if not newest - 64 < g <= newest]:
            del self._kept[group]
        return np.stack(rows)

    def _group(self, view: TimelineView, group: int) -> F64:
        if group in self._kept:
            return self._kept[group]
        start = group * self._size
        stop = start + self._size
        out: F64 = np.full(len(view.sites), np.nan)
        if stop <= view.first or start >= view.end:
            return out
        first = max(start, view.first)
        block, columns = view.routing(first, stop), view.tokens(first, stop)
        if block.logits is not None and len(columns.pad):
            entropies = site_entropy(block.logits[~columns.pad], view.sites)
            known = np.isfinite(entropies)
            count = known.sum(0)
            with np.errstate(all="ignore"):
                out = np.where(count > 0, np.where(known, entropies, 0.0).sum(0) / count, np.nan)
        if stop <= view.end and start >= view.first:
            self._kept[group] = out
        return np.asarray(out, np.float64)


class BalanceTrail:
    """Balance over the last N tokens, as it was every ``stride`` tokens and as it is now."""

    def __init__(self, window: int = 64, stride: int = 8) -> None:
        self._window, self._stride = window, stride
        self._kept: dict[int, Balance] = {}
        self._sites: object = None

    def of(self, view: TimelineView, points: int = 12) -> list[Balance]:
        """The newest points, oldest first, the present one last."""
        if self._sites is not view.sites:
            self._kept, self._sites = {}, view.sites
        last = view.end // self._stride
        wanted = range(max(1, last - points + 1), last + 1)
        for point in [p for p in self._kept if p > last or p < last - 64]:
            del self._kept[point]
        for point in wanted:
            if point not in self._kept:
                stop = point * self._stride
                self._kept[point] = mean_balance(_loads(view, stop - self._window, stop), view.sites)
        present = mean_balance(_loads(view, view.end - self._window, view.end), view.sites)
        return [*(self._kept[point] for point in wanted), present]


def _loads(view: TimelineView, start: int, stop: int) -> I64:
    first = max(start, view.first)
    return loads(view.routing(first, stop).indices, view.sites, ~view.tokens(first, stop).pad)


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens per second: over the last steps together, and step by step, oldest first. NaN where nothing is known."""

    overall: float
    by_step: tuple[float, ...]


def token_rate(view: TimelineView, steps: int = 32) -> Rate:
    """The rate over the last steps of the newest step's branch and phase.

    A step's time runs from its start to the next one's, so that what lies between forward passes counts; a gap of
    more than five medians is a pause, and the step's own duration stands for it.
    """
    columns = view.steps()
    if not len(columns.index):
        return Rate(float("nan"), ())
    recent = slice(max(0, len(columns.index) - steps), None)
    alike = (columns.branch[recent] == columns.branch[-1]) & (columns.phase[recent] == columns.phase[-1])
    started = columns.started[recent][alike]
    seconds = columns.duration[recent][alike].astype(np.float64) / 1000
    tokens = columns.num_tokens[recent][alike]
    took = seconds.copy()
    gaps = np.diff(started)
    paused = gaps > 5 * np.median(gaps) if len(gaps) else np.zeros(0, np.bool_)
    took[:-1] = np.where(paused | (gaps <= 0), seconds[:-1], gaps)
    with np.errstate(all="ignore"):
        rates = np.where(took > 0, tokens / took, np.nan)
        overall = tokens.sum() / took.sum() if took.sum() > 0 else float("nan")
    return Rate(float(overall), tuple(rates.tolist()))
