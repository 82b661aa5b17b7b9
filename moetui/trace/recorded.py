"""What exporters and statistics need of a recording, be it a file or what a live session holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from moetui.routing.branches import BranchTree, line_rows
from moetui.routing.events import (
    BranchAdded,
    BranchChanged,
    Event,
    Finding,
    GenerationSettings,
    InterventionsChanged,
    RunState,
    RunStateChanged,
)
from moetui.routing.interventions import Intervention
from moetui.routing.kept import without_deleted
from moetui.routing.model import ModelInfo
from moetui.routing.step import Bool, join_texts
from moetui.routing.timeline import TimelineView, TokenColumns, read_ids
from moetui.trace.values import RecordedEvent

_BLOCK = 16_384


class Recorded(Protocol):
    """A recording: a ``Trace``, or ``Held``."""

    @property
    def info(self) -> ModelInfo:
        """The model."""

    @property
    def timeline(self) -> TimelineView:
        """The tokens."""

    @property
    def events(self) -> Sequence[RecordedEvent]:
        """What happened, in order."""

    @property
    def settings(self) -> GenerationSettings:
        """Of the first run."""

    @property
    def prompt(self) -> str:
        """Of the first run."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What was found."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a session holds in memory, as a recording."""

    info: ModelInfo
    timeline: TimelineView
    events: Sequence[RecordedEvent] = ()
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    prompt: str = ""
    findings: Sequence[Finding] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Kept:
    """A recording without the tokens of deleted branches; asked late, as what is wrong with a file is found late."""

    whole: Recorded
    timeline: TimelineView

    @property
    def info(self) -> ModelInfo:
        return self.whole.info

    @property
    def events(self) -> Sequence[RecordedEvent]:
        return self.whole.events

    @property
    def settings(self) -> GenerationSettings:
        return self.whole.settings

    @property
    def prompt(self) -> str:
        return self.whole.prompt

    @property
    def findings(self) -> Sequence[Finding]:
        return self.whole.findings

    @property
    def complete(self) -> bool:
        return self.whole.complete


def kept(recorded: Recorded) -> Recorded:
    """A recording without the tokens of branches that were deleted in it, as far as no other branch shares them."""
    tree = BranchTree.of(item.event for item in recorded.events)
    return _Kept(recorded, without_deleted(recorded.timeline, tree)) if tree.gone else recorded


def last_interventions(recorded: Recorded) -> tuple[Intervention, ...]:
    """The interventions in force at the end."""
    for item in reversed(recorded.events):
        if isinstance(item.event, InterventionsChanged):
            return item.event.interventions
    return ()


def last_prompt(recorded: Recorded) -> str:
    """The prompt of the run that it ends on."""
    tree = BranchTree.of(item.event for item in recorded.events)
    branch = None if tree.current is None else tree.find(tree.current)
    return recorded.prompt if branch is None else branch.prompt


def last_text(recorded: Recorded) -> str:
    """The text of the branch that it ends on, as a person reads it: prompt, what it shares, the last token and all."""
    view = recorded.timeline
    tree = BranchTree.of(item.event for item in recorded.events)
    line = None if tree.current is None else tree.line(tree.current)

    def parts() -> Iterator[tuple[TokenColumns, Bool]]:
        for start in range(view.first, view.end, _BLOCK):
            tokens = view.tokens(start, start + _BLOCK)
            real = ~tokens.pad if line is None else line_rows(tokens, line, view.stacks)
            yield tokens, (tokens.token_id >= 0) & real

    texts = [view.text(token_id) for token_id in read_ids(parts())]
    return join_texts([*texts, unread_text(item.event for item in recorded.events)])


def unread_text(events: Iterable[Event]) -> str:
    """The text of the token that the last run wrote last, which no step has passed; empty where it is not known.

    Nor where a run goes on: its next step passes it.
    """
    text = ""
    for event in events:
        text = unread_after(text, event)
    return text


def unread_after(text: str, event: Event) -> str:
    """What ``unread_text`` is behind one more event."""
    if isinstance(event, RunStateChanged):
        return event.last_text if event.state is RunState.FINISHED else ""
    begins = isinstance(event, BranchAdded) or (isinstance(event, BranchChanged) and event.change == "switched")
    return "" if begins else text


def recorded_stats(recorded: Recorded) -> dict[str, Any]:
    """The document of ``moetui stats --json``, over all tokens: leave those of deleted branches out by ``kept``."""
    from moetui.routing.diagnostics import DIAGNOSTICS
    from moetui.routing.stats import compute_stats

    stats = compute_stats(
        recorded.timeline,
        recorded.info,
        prompt=last_prompt(recorded),
        text=last_text(recorded),
        interventions=last_interventions(recorded),
    )
    # Asked after all was read: only then is it known what of a file is damaged.
    found = [finding for finding in recorded.findings if finding.kind not in DIAGNOSTICS]
    damage = next((finding for finding in found if finding.kind == "trace_damaged"), None)
    if damage is not None:
        for finding in stats["findings"]:
            if finding["kind"] == "site_silent" and finding["severity"] == "warning":
                finding["suggestion"] = f"it may have been in what is damaged: {damage.suggestion}"
    stats["findings"] += [_plain(finding) for finding in found]
    stats["complete"] = recorded.complete
    return stats


def _plain(finding: Finding) -> dict[str, Any]:
    names = ("kind", "severity", "message", "suggestion", "site")
    return {name: getattr(finding, name) for name in names}
