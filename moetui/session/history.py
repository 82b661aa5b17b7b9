"""What had happened in a recording when it stood at a token: branches, findings, interventions, settings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from moetui.routing.branches import BranchTree
from moetui.routing.events import (
    BranchAdded,
    BranchChange,
    BranchChanged,
    BreakpointHit,
    Event,
    Finding,
    FindingRaised,
    GenerationSettings,
    InterventionsChanged,
    Notice,
    RunState,
    RunStateChanged,
)
from moetui.routing.interventions import Intervention
from moetui.session.offers import Mark
from moetui.trace import RecordedEvent
from moetui.trace.recorded import unread_after

_CHANGED: dict[BranchChange, str] = {
    "renamed": "{} is called {} from here on",
    "promoted": "{} is the main branch of its run",
    "switched": "back to {}",
    "deleted": "{} is deleted",
    "other": "{} is changed",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is so at a token; ``unread`` is the text of the token that the run wrote last, which no step has passed."""

    tree: BranchTree = field(default_factory=BranchTree)
    findings: tuple[Finding, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    settings: GenerationSettings | None = None
    unread: str = ""


class History:
    """The events of a recording, by the number of tokens shown."""

    def __init__(self) -> None:
        self._events: list[RecordedEvent] = []
        self._at: list[int] = []
        self._standing = (0, Standing())

    def extend(self, events: Sequence[RecordedEvent]) -> None:
        """Take in the events that were not known before."""
        for item in events[len(self._events) :]:
            self._events.append(item)
            self._at.append(max(item.token, self._at[-1] if self._at else 0))

    def passed(self, position: int) -> int:
        """How many events have happened when ``position`` tokens are shown."""
        return bisect_right(self._at, position)

    def between(self, start: int, stop: int) -> list[RecordedEvent]:
        """Events number ``start`` to ``stop - 1``."""
        return self._events[start:stop]

    def standing(self, count: int) -> Standing:
        """What is so after the first ``count`` events."""
        known, standing = self._standing
        if count < known:  # backwards all is derived anew
            known, standing = 0, Standing()
        if known != count:
            standing = _after(standing, self._events[known:count])
            self._standing = (count, standing)
        return standing

    def marks(self) -> list[Mark]:
        """The places worth jumping to, in order of their tokens."""
        marks, tree = [], BranchTree()
        known: tuple[Intervention, ...] = ()
        for item in self._events:
            mark = _mark(item, tree)
            tree = tree.after(item.event)
            if isinstance(item.event, InterventionsChanged):
                if item.event.interventions == known:  # only how the weights are found was told
                    continue
                known = item.event.interventions
            if mark is not None:
                marks.append(mark)
        return sorted(marks, key=lambda mark: mark.token)


def _after(standing: Standing, events: Sequence[RecordedEvent]) -> Standing:
    tree, findings = standing.tree, list(standing.findings)
    interventions, settings, unread = standing.interventions, standing.settings, standing.unread
    for item in events:
        event = item.event
        tree, unread = tree.after(event), unread_after(unread, event)
        if isinstance(event, BranchAdded):
            settings = event.settings
        elif isinstance(event, FindingRaised):
            findings.append(event.finding)
        elif isinstance(event, InterventionsChanged):
            interventions = event.interventions
    return Standing(tree, tuple(findings), interventions, settings, unread)


def _mark(item: RecordedEvent, before: BranchTree) -> Mark | None:
    event = item.event
    if isinstance(event, BreakpointHit):
        return Mark(event.token, "breakpoint", event.expression)
    if isinstance(event, InterventionsChanged):
        names = ", ".join(each.name for each in event.interventions)
        return Mark(event.token, "interventions", names or "none any more")
    if isinstance(event, FindingRaised):
        return Mark(max(0, item.token - 1), "finding", event.finding.message)
    if isinstance(event, BranchAdded):
        return Mark(event.branch.first_token, "branch", event.branch.name)
    if isinstance(event, BranchChanged):
        branch = before.find(event.branch)
        name = f"branch {event.branch}" if branch is None else branch.name
        return Mark(max(0, item.token - 1), "branch", _CHANGED[event.change].format(name, event.name))
    return None


def as_played(item: RecordedEvent) -> Event | None:
    """An event as it passes; the run's own states are told in words, as the replay has states of its own.

    None where there is nothing to tell: that it ran is what is seen.
    """
    event = item.event
    if isinstance(event, RunStateChanged):
        if event.state in (RunState.LOADING, RunState.READY, RunState.RUNNING):
            return None
        why = f": {event.reason}" if event.reason else ""
        return Notice(f"recorded: {event.state.value}{why}", "error" if event.state is RunState.FAILED else "info")
    return event
