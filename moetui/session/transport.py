"""What moves the cursor of a replay: the keys of a tape recorder, and what is told on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from moetui.routing import UsageError
from moetui.routing.branches import BranchTree
from moetui.routing.events import (
    BranchAdded,
    FindingRaised,
    InterventionsChanged,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.session.history import History, Standing, as_played
from moetui.session.mailbox import Mailbox
from moetui.session.offers import Mark, MarkKind
from moetui.session.places import divergences, token_at
from moetui.session.playhead import MAX_SPEED, MIN_SPEED, Playhead
from moetui.trace import Trace


class Transport:
    """Implements playing, stepping and seeking for a session on a trace, which owns what is used here."""

    _trace: Trace
    _changed: threading.Condition
    _head: Playhead
    _history: History
    _mailbox: Mailbox
    _marked: tuple[object, tuple[Mark, ...]]
    _follow: bool
    _closed: bool
    _passed: int
    _shown: int
    _state: RunState
    _reason: str

    def pause(self) -> None:
        """Stop at the cursor."""
        with self._changed:
            if self._head.playing:
                self._head.advance(time.monotonic())
                self._catch_up()
                self._rest("paused")

    def resume(self) -> None:
        """Go on; from the end, play again from the start."""
        with self._changed:
            if self._head.playing or self._closed:
                return
            if self._head.at_end and not self._follow:
                self._move(0)
            self._play()

    def step(self, count: int = 1) -> None:
        """Show ``count`` more steps, or as many fewer with a negative count, and pause."""
        with self._changed:
            position = self._head.steps_away(count)
            if count < 0:
                self._move(position)
            else:
                self._head.seek(position, time.monotonic())
                self._catch_up()
            self._rest("stepped")

    def seek(self, token: int) -> None:
        """Move the cursor so that ``token`` is the last one shown; playing goes on from there."""
        with self._changed:
            self._move(token + 1)
            if self._head.playing:
                self._changed.notify_all()
            else:
                self._rest("")

    def jump(self, direction: int = 1, *kinds: MarkKind) -> Mark | None:
        """Pause at the next mark (1) or the one before (-1), of these kinds or any; None if there is none."""
        with self._changed:
            here = self._head.position - 1
            marks = [mark for mark in self.marks if not kinds or mark.kind in kinds]
            if direction > 0:
                found = next((mark for mark in marks if mark.token > here), None)
            else:
                found = next((mark for mark in reversed(marks) if mark.token < here), None)
            if found is not None:
                self._move(found.token + 1)
                self._rest(f"at {found.kind}")
            return found

    @property
    def marks(self) -> Sequence[Mark]:
        """Findings, interventions, breakpoint hits, branches and where they part, in order of their tokens."""
        with self._changed:
            trace = self._trace
            held = (trace.num_tokens, len(trace.events))
            if self._marked[0] != held:
                tree = BranchTree.of(item.event for item in trace.events)
                found = [*self._history.marks(), *divergences(trace.timeline, tree)]
                self._marked = (held, tuple(sorted(found, key=lambda mark: mark.token)))
            return self._marked[1]

    def token_at(self, seconds: float) -> int:
        """The last token of the step that ran so many seconds after the recording's first step began.

        Raises:
            UsageError: the recording has no times.
        """
        return token_at(self._trace.timeline.steps(), seconds)

    def set_speed(self, speed: float) -> None:
        """Set the speed.

        Raises:
            UsageError: not within 0.25 to 64.
        """
        check_speed(speed)
        with self._changed:
            self._head.set_speed(speed, time.monotonic())
            self._tell_playback()

    def set_loop(self, tokens: tuple[int, int] | None) -> None:
        """Repeat a half-open range of tokens; None plays on.

        Raises:
            UsageError: an empty range, or one outside the recording.
        """
        with self._changed:
            if tokens is not None and not 0 <= tokens[0] < tokens[1] <= self._trace.num_tokens:
                raise UsageError(
                    f"there are no tokens {tokens[0]} to {tokens[1] - 1}", f"the recording has {self._trace.num_tokens}"
                )
            self._head.loop = tokens
            if tokens is not None and not tokens[0] < self._head.position <= tokens[1]:
                self._move(tokens[0])
            if tokens is not None and not self._head.playing:
                self._play()
            self._tell_playback()

    def stop(self) -> None:
        """Stop at the cursor."""
        self.pause()

    # With the lock held.

    def _play(self) -> None:
        self._head.play(time.monotonic())
        self._become(RunState.RUNNING, "")

    def _rest(self, reason: str) -> None:
        self._head.pause()
        if self._head.at_end and not self._follow:
            what = "the end of the recording" if self._trace.num_tokens else "the recording holds no tokens"
            self._become(RunState.FINISHED, what)
        else:
            self._become(RunState.PAUSED, reason)

    def _tell_playback(self) -> None:
        """The speed or the loop is another: what is shown of it is to be drawn again."""
        self._mailbox.put(StepCaptured(self._shown))
        self._changed.notify_all()

    def _become(self, state: RunState, reason: str) -> None:
        if (state, reason) != (self._state, self._reason):
            self._state, self._reason = state, reason
            self._mailbox.put(RunStateChanged(state, reason))
        self._changed.notify_all()

    def _move(self, position: int) -> None:
        """Go to a position at once; what is so there is told, what happened on the way is not played."""
        self._head.seek(position, time.monotonic())
        before, after = self._passed, self._history.passed(self._head.position)
        if before != after:
            old, new = self._history.standing(before), self._history.standing(after)
            self._passed = after
            self._tell_standing(old, new)
        self._shown = self._head.position
        self._mailbox.put(StepCaptured(self._shown))

    def _tell_standing(self, old: Standing, new: Standing) -> None:
        told = {branch.id for branch in old.tree.every}
        for item in self._history.between(0, self._passed):
            if isinstance(item.event, BranchAdded) and item.event.branch.id not in told:
                self._mailbox.put(item.event)
        for finding in new.findings:
            if finding not in old.findings:
                self._mailbox.put(FindingRaised(finding))
        if old.interventions != new.interventions:
            self._mailbox.put(InterventionsChanged(new.interventions, self._head.position))

    def _catch_up(self) -> None:
        """Tell what was passed while playing."""
        position = self._head.position
        passed = self._history.passed(position)
        if passed < self._passed:  # a loop began again
            self._move(position)
            return
        for item in self._history.between(self._passed, passed):
            told = as_played(item)
            if told is not None:
                self._mailbox.put(told)
        moved = self._shown != position
        self._passed, self._shown = passed, position
        if moved:
            self._mailbox.put(StepCaptured(position))


def check_speed(speed: float) -> None:
    """Raise ``UsageError`` for a speed that no replay has."""
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise UsageError(f"a speed of {speed:g} is not possible", f"choose {MIN_SPEED:g} to {MAX_SPEED:g}")
