"""Runs of a live session: begun, taken back and forked from any thread, passed through in the generating one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moetui.engine.control import Gate, RunControl, RunStoppedError
from moetui.routing import UsageError
from moetui.routing.events import (
    Branch,
    BranchAdded,
    Event,
    GenerationSettings,
    Notice,
    RunState,
    RunStateChanged,
)
from moetui.session.lineage import Lineage, Origin
from moetui.session.meter import Meter

if TYPE_CHECKING:
    from moetui.debugger import MoEDebugger
    from moetui.engine.generation import Prompt
    from moetui.engine.track import Pass, Start, Track
    from moetui.session.watch import Watch


Change = Callable[[RunControl], RunControl]


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be passed through: from its prompt, or from a pass of another."""

    prompt: Prompt
    settings: GenerationSettings
    origin: Origin | None = None
    name: str = ""


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
        self.error: Exception | None = None
        self.lineage = Lineage()
        self._debugger, self._gate, self._emit, self._wake = debugger, gate, emit, wake
        self._watch, self._meter = watch, meter
        self._encodes = bool(debugger.model.config.is_encoder_decoder)
        self._lock = threading.Lock()
        self._next: Job | None = None
        self._last: Job | None = None
        self._arriving = False
        self._track: Track | None = None
        self._start: Start | None = None
        self._reseed: int | None = None
        self._repeats: deque[Pass] = deque()
        self._kept_functions: list[Any] | None = None
        self._length = 0

    @property
    def busy(self) -> bool:
        """A job was taken up, and does not stand before its first step yet."""
        return self._arriving or self._next is not None

    # From any thread.

    def begin(self, prompt: str, settings: GenerationSettings, *, paused: bool = False) -> None:
        """Check a prompt and start its run; raises ``UsageError``."""
        if self._gate.control.active:
            raise UsageError("a run is going on", "stop it first")
        from moetui.engine.generation import encode, settle

        info = self._debugger.info
        encoded = encode(self._debugger.tokenizer, prompt, settings, vocab_size=info.vocab_size)
        settled = settle(settings, encoded, info.context_length)
        begun = self._go(
            Job(encoded, settled), lambda control: control.started(paused=paused) if control.idle else control
        )
        if not begun:
            raise UsageError("a run is going on", "stop it first")
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
        self._turn(Job(origin.prompt, origin.settings, origin), f"before token {token}", paused=True)

    def fork(self, token: int, settings: GenerationSettings | None, name: str) -> None:
        """See ``Rewindable.fork``."""
        origin = self._origin(token)
        if any(branch.name == name for branch in self.lineage.branches):
            raise UsageError(f"there is a branch called {name} already", "choose another name")
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
        self._turn(Job(origin.prompt, settled, origin, name), "", paused=False)

    def _origin(self, token: int) -> Origin:
        from moetui.engine.generation import check_continues

        origin = self.lineage.find(token, self._debugger.live_timeline.snapshot())
        if origin.track.passes[origin.number].start:
            check_continues(self._debugger.model)
        return origin

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
                job, self._next = self._next, None
                self._arriving = job is not None
                self._gate.apply(RunControl.arrived)
            if job is None:
                return
            change = self._run(job)
            self._arrived()
            with self._lock:
                if not self._gate.apply(_unless_turning(change)).turning:
                    return

    def _run(self, job: Job) -> Change:
        """One job; what has become of the run if nothing else follows."""
        from moetui.engine.generation import generate

        debugger = self._debugger
        try:
            self._prepare(job)
            self._meter.start(debugger)
            greedy = job.origin is not None and not job.origin.settings.sampled
            new = generate(
                debugger.model,
                job.prompt,
                job.settings,
                stopped=self._unwinds,
                chosen=self._chosen,
                start=self._start,
                differed=self._differed if greedy else None,
            )
            end = "stopped" if self._unwinds() else _how_it_ended(len(new), job.settings)
            self._stand_at_end()
            return self._ended(lambda control: control.ended(end))
        except RunStoppedError:
            return self._ended(lambda control: control.ended("stopped"))
        except Exception as error:  # noqa: BLE001 - the model's own code may raise anything
            return self._failed(error)
        finally:
            self._put_functions_back()

    def _differed(self) -> None:
        self._emit(
            Notice("the tokens before would be others if chosen now: this model does not repeat itself", "warning")
        )

    def _unwinds(self) -> bool:
        return self._gate.control.unwinds

    def _prepare(self, job: Job) -> None:
        from moetui.engine.track import Track

        debugger, origin, settings = self._debugger, job.origin, job.settings
        debugger.flush()
        debugger.breakpoints.take_reason()  # of a step that the last run did not stand behind
        self._repeats.clear()
        self._length, self._start, self._reseed = 0, None, settings.seed if settings.sampled else None
        if origin is None:
            self._track = Track(sampled=settings.sampled, cuts=not self._encodes)
        else:
            self._start = origin.track.start(origin.number)
            self._repeats.extend(self._start.repeats)
            self._track = origin.track.forked(origin.number, sampled=settings.sampled)
            if self._start.random is not None and settings.seed == origin.settings.seed:
                self._reseed = None
            if not self._start.exact:
                notice = "the tokens before run again in another way: numbers may differ in their last digits"
                self._emit(Notice(notice, "warning"))
        branch = self.lineage.add(
            job.prompt, settings, self._track, debugger.live_timeline.snapshot().end, origin, job.name
        )
        debugger.capture.branch = branch.id
        self._announce(branch, settings)

    def _announce(self, branch: Branch, settings: GenerationSettings) -> None:
        self._debugger.tell(BranchAdded(branch, settings))
        if self._debugger.recording is not None:
            self._debugger.recording.write_event(RunStateChanged(RunState.RUNNING))

    def _chosen(self, ids: Any) -> None:
        self._length = int(ids.shape[1])
        if self._track is not None:
            self._track.chosen(ids)

    def before_step(self, arguments: Mapping[str, Any]) -> bool:
        """See ``Capture.before_step``."""
        if not self._gate.control.active or self._track is None:
            return True
        ids = arguments.get("decoder_input_ids" if self._encodes else "input_ids")
        tokens = 0 if ids is None else int(ids.shape[1])
        if self._repeats:
            self._repeat(counts=tokens > 0)
            return False
        self._put_functions_back()
        reason = self._debugger.breakpoints.take_reason()
        self._arrived()
        paused = self._gate.before_step(max(0, self._length - tokens), reason)
        self._tell_pause(paused)
        if not self._gate.control.to_site:
            self._debugger.capture.gate = None
        if tokens:
            self._note(tokens, arguments)
        return True

    def _note(self, tokens: int, arguments: Mapping[str, Any]) -> None:
        """The step begins: leave what it takes to come back to it, in the random state in which it stood then."""
        assert self._track is not None
        start, self._start = self._start, None
        if start is not None and start.random is not None and self._reseed is None:
            start.random.set()
        elif start is not None and self._reseed is not None:
            from moetui.engine.generation import seed_generators

            seed_generators(self._reseed)
        if self._encodes and not self._length:
            self._chosen(arguments["decoder_input_ids"])
        capture = self._debugger.capture
        cache = arguments.get("past_key_values", arguments.get("cache_params"))
        self._track.note(capture.steps, tokens, cache, tuple(capture.functions))

    def _repeat(self, *, counts: bool) -> None:
        """A pass that has run before, under the functions of then, goes by unseen."""
        if self._gate.control.unwinds:
            raise RunStoppedError
        capture = self._debugger.capture
        if self._kept_functions is None:
            self._kept_functions = list(capture.functions)
        again = self._repeats[0]
        capture.set_functions({number: each for number, each in enumerate(again.functions) if each is not None})
        if counts:
            self._repeats.popleft()

    def _put_functions_back(self) -> None:
        kept, self._kept_functions = self._kept_functions, None
        if kept is not None:
            self._debugger.capture.set_functions({number: each for number, each in enumerate(kept) if each is not None})

    def at_site(self, context: Any) -> None:
        """See ``Capture.gate``."""
        if context.step is None or context.step.index < 0:
            return
        before = self._gate.waited
        self._gate.before_site(context.site.name)
        waited = self._gate.waited - before
        if waited:
            context.step.stood(int(waited * 1e9))

    def changed_within(self) -> None:
        """Interventions changed while a step stood between two sites."""
        if self._track is not None:
            self._track.changed_within()

    def _arrived(self) -> None:
        if self._arriving:
            self._arriving = False
            self._wake()

    def _stand_at_end(self) -> None:
        """The last step may hit a breakpoint too: stand behind it."""
        reason = self._debugger.breakpoints.take_reason()
        if reason and not self._gate.control.unwinds:
            self._tell_pause(self._gate.before_step(self._length, reason))

    def _tell_pause(self, reason: str) -> None:
        recording = self._debugger.recording
        if reason and recording is not None:
            # Written behind the steps before the pause, which is why not where the state changes.
            self._debugger.flush()
            recording.write_event(RunStateChanged(RunState.PAUSED, reason))
            recording.write_event(RunStateChanged(RunState.RUNNING))

    def _ended(self, change: Change) -> Change:
        debugger = self._debugger
        debugger.capture.gate = None
        debugger.flush()
        self._meter.stop()
        control = self._gate.control
        if debugger.recording is not None and not control.turning:
            control = change(control)
            debugger.recording.write_event(RunStateChanged(control.state, control.reason, control.hint))
        self._watch.run_ended()
        return change

    def _failed(self, error: Exception) -> Change:
        from moetui.engine.run_errors import explain_run

        if self._track is not None:
            self._track.broke()
        self.lineage.forget_caches()
        steps = 0 if self._track is None else len(self._track.passes)
        failure = self.error = explain_run(error, steps)
        return self._ended(lambda control: control.failed(failure.message, failure.hint))


def _unless_turning(change: Change) -> Change:
    return lambda control: control if control.turning else change(control)


def _how_it_ended(new: int, settings: GenerationSettings) -> str:
    if new >= settings.max_new_tokens:
        return f"{new} tokens"
    return "end of text" if new else "prompt only"
