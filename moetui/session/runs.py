"""The runs of a live session: which comes next, asked for from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from moetui.engine.control import Gate, RunControl
from moetui.routing import UsageError
from moetui.routing.events import BranchChanged, Event, GenerationSettings, Notice
from moetui.session.lineage import Lineage, Origin
from moetui.session.meter import Meter
from moetui.session.passage import Change, Job, Passage

if TYPE_CHECKING:
    from moetui.debugger import MoEDebugger
    from moetui.session.watch import Watch


class Runs:
    """Passes a debugger's model through one job after another, each to its end or to where the next one begins.

    Args:
        debugger: of the model.
        gate: where the generating thread waits.
        emit: takes notices, at once.
        wake: called when ``busy`` changed.
        watch: told when a run has ended.
        meter: measures what watching costs.
    """

    def __init__(
        self,
        debugger: MoEDebugger,
        gate: Gate,
        emit: Callable[[Event], None],
        wake: Callable[[], None],
        watch: Watch,
        meter: Meter,
    ) -> None:
        self.lineage = Lineage()
        self.passage = Passage(debugger, gate, emit, self._arrived, self.lineage, watch, meter)
        self._debugger, self._gate, self._emit, self._wake = debugger, gate, emit, wake
        self._encodes = bool(debugger.model.config.is_encoder_decoder)
        self._lock = threading.Lock()
        self._next: Job | None = None
        self._last: Job | None = None
        self._arriving = False

    @property
    def busy(self) -> bool:
        """A job was asked for, and does not stand before its first step yet."""
        # Asked without the lock, and in this order: a job is arriving before it is no longer next.
        return self._next is not None or self._arriving

    # From any thread.

    def begin(self, prompt: str, settings: GenerationSettings, *, paused: bool = False) -> None:
        """Check a prompt and start its run; raises ``UsageError``."""
        if self._gate.control.active:
            raise UsageError("a run is going on", "x ends it, or 'stop' in the console")
        from moetui.engine.generation import encode, settle

        info = self._debugger.info
        encoded = encode(self._debugger.tokenizer, prompt, settings, vocab_size=info.vocab_size)
        settled = settle(settings, encoded, info.context_length)
        begun = self._go(
            Job(encoded, settled), lambda control: control.started(paused=paused) if control.idle else control
        )
        if not begun:
            raise UsageError("a run is going on", "x ends it, or 'stop' in the console")
        if settled.max_new_tokens < settings.max_new_tokens:
            room = f"the context of {info.context_length} tokens leaves room for {settled.max_new_tokens} new ones"
            self._emit(Notice(room, "warning"))

    def restart(self) -> None:
        """Run the last prompt again; raises ``UsageError``."""
        if self._last is None:
            raise UsageError("nothing has run yet", "give a prompt first")
        self._turn(Job(self._last.prompt, self._last.settings), "", paused=False)

    def rewind(self, token: int) -> None:
        """See ``Rewindable.rewind``."""
        origin = self._origin(token)
        self._turn(Job(origin.prompt, origin.settings, origin), self._before(token), paused=True)

    def fork(self, token: int, settings: GenerationSettings | None, name: str, *, paused: bool) -> None:
        """See ``Rewindable.fork``."""
        origin = self._origin(token)
        name = self.lineage.tree.check_name(name) if name else ""
        settled = origin.settings
        if settings is not None:
            from moetui.engine.generation import settle

            settled = settle(settings, origin.prompt, self._debugger.info.context_length)
            before = origin.track.passes[origin.number].stop - (1 if self._encodes else len(origin.prompt.ids))
            if before >= settled.max_new_tokens:
                raise UsageError(
                    f"{before} tokens are written there already, of {settled.max_new_tokens} that the branch may have",
                    f"--max-new-tokens {before + 64} counts from the prompt",
                )
        self._turn(Job(origin.prompt, settled, origin, name), self._before(token) if paused else "", paused=paused)

    def switch(self, branch: int) -> None:
        """See ``Branching.switch_branch``."""
        ran = self.lineage.ran(branch)
        if branch == self.lineage.tree.current and self._gate.control.active:
            return
        if self.lineage.ended(branch) is None and ran.track.finished:
            from moetui.engine.generation import check_continues

            check_continues(self._debugger.model)
        name = self.lineage.tree.get(branch).name
        self._turn(Job(ran.prompt, ran.settings, branch=branch), f"on {name}", paused=True)

    def rename(self, branch: int, name: str) -> None:
        """See ``Branching.rename_branch``."""
        tree = self.lineage.tree
        before = tree.get(branch).name
        name = tree.check_name(name, renamed=branch)
        if name != before:
            self._change(BranchChanged(branch, "renamed", name))

    def promote(self, branch: int) -> None:
        """See ``Branching.promote_branch``."""
        tree = self.lineage.tree
        if tree.main(tree.get(branch).run) != branch:
            self._change(BranchChanged(branch, "promoted"))

    def delete(self, branch: int) -> None:
        """See ``Branching.delete_branch``."""
        tree = self.lineage.tree
        found = tree.get(branch)
        with self._lock:  # no job that goes there may come in between
            waiting = self._next.branch if self._next is not None else None
            if branch in (tree.current, waiting):
                others = [each.name for each in tree.branches if each.id != branch]
                hint = f"switch to another first: {', '.join(others[:8])}" if others else "it is the only one"
                raise UsageError(f"{found.name} is the branch that you are on", hint)
            self._change(BranchChanged(branch, "deleted"))
        self._gate.submit(self.lineage.let_go)

    def _change(self, event: BranchChanged) -> None:
        self.lineage.grow(event)
        self._debugger.tell(event)

    def _origin(self, token: int) -> Origin:
        from moetui.engine.generation import check_continues

        origin = self.lineage.find(token, self._debugger.live_timeline.snapshot())
        if origin.track.passes[origin.number].start:
            check_continues(self._debugger.model)
        return origin

    def _before(self, token: int) -> str:
        from moetui.routing.kept import before_token

        return before_token(self._debugger.live_timeline.snapshot(), token)

    def _turn(self, job: Job, reason: str, *, paused: bool) -> None:
        if not self._go(job, lambda control: control.turn(reason, paused=paused)):
            closed = self._gate.control.quitting
            raise UsageError("the session is closed" if closed else "the run is about to stop", "wait until it has")

    def _go(self, job: Job, change: Change) -> bool:
        """Let ``job`` be next if ``change`` changes anything."""
        moved: list[bool] = []

        def apply(control: RunControl) -> RunControl:
            after = change(control)
            moved.append(after is not control)
            return after

        with self._lock:
            before, self._next = self._next, job
            control = self._gate.apply(apply)
            if not moved[0]:
                self._next = before
                return False
            self._last = job
            if not control.turning:
                self._gate.submit(self._pass_through)
            return True

    # In the generating thread.

    def _pass_through(self) -> None:
        """Do the next job, and those that follow from where it stands."""
        while True:
            with self._lock:
                job = self._next
                self._arriving = job is not None
                self._next = None
                self._gate.apply(RunControl.arrived)
            if job is None:
                return
            change = self.passage.run(job)
            with self._lock:
                turning = self._gate.apply(_unless_turning(change)).turning
            self._arrived()  # where the run stands now is told first: who waits for it looks there
            if not turning:
                return

    def _arrived(self) -> None:
        if self._arriving:
            self._arriving = False
            self._wake()


def _unless_turning(change: Change) -> Change:
    return lambda control: control if control.turning else change(control)
