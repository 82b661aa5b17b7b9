"""One run in the generating thread: passed through step by step, from where it begins to where it is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moetui.engine.control import Gate, RunControl, RunStoppedError
from moetui.routing.events import (
    BranchAdded,
    BreakpointHit,
    Event,
    GenerationSettings,
    Notice,
    RunState,
    RunStateChanged,
)
from moetui.session.lineage import Lineage, Origin
from moetui.session.meter import Meter
from moetui.session.offers import Underway

if TYPE_CHECKING:
    from moetui.debugger import MoEDebugger
    from moetui.engine import SiteContext
    from moetui.engine.generation import Prompt
    from moetui.engine.track import Pass, Start, Track
    from moetui.session.watch import Watch


Change = Callable[[RunControl], RunControl]


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be passed through: from its prompt, from a pass of another, or on from where it was left.

    Attributes:
        origin: the pass that it begins with, on a branch of its own.
        name: of that branch; empty for one of the session's choice.
        branch: the branch that is taken up where it was left.
    """

    prompt: Prompt
    settings: GenerationSettings
    origin: Origin | None = None
    name: str = ""
    branch: int | None = None


class Passage:
    """Passes a debugger's model through one job; the generating thread alone uses it.

    Args:
        debugger: of the model.
        gate: where the thread waits.
        emit: takes notices, at once.
        arrived: called before each step that is recorded.
        lineage: of the session's branches.
        watch: told when a run begins and when it has ended.
        meter: measures what watching costs.

    Attributes:
        error: what the last run failed with.
        hit: of the breakpoint that the run stands at, or would if it were not to pass all.
        underway: the step that the run stands within, or is about to.
    """

    def __init__(
        self,
        debugger: MoEDebugger,
        gate: Gate,
        emit: Callable[[Event], None],
        arrived: Callable[[], None],
        lineage: Lineage,
        watch: Watch,
        meter: Meter,
    ) -> None:
        self.error: Exception | None = None
        self.hit: BreakpointHit | None = None
        self.underway: Underway | None = None
        self._debugger, self._gate, self._emit, self._arrived = debugger, gate, emit, arrived
        self._lineage, self._watch, self._meter = lineage, watch, meter
        self._encodes = bool(debugger.model.config.is_encoder_decoder)
        self._branch = 0
        self._track: Track | None = None
        self._start: Start | None = None
        self._reseed: int | None = None
        self._repeats: deque[Pass] = deque()
        self._kept_functions: list[Any] | None = None
        self._length = 0
        self._stopped = False

    def run(self, job: Job) -> Change:
        """Pass through one job; what has become of the run if nothing else follows."""
        from moetui.engine.generation import generate

        debugger = self._debugger
        over = None if job.branch is None else self._lineage.ended(job.branch)
        if job.branch is not None and over is not None:
            return self._stand_on(job.branch, over)
        try:
            self._prepare(job)
            self._meter.start(debugger)
            self._watch.run_began()
            greedy = self._start is not None and not (job.origin or job).settings.sampled
            new = generate(
                debugger.model,
                job.prompt,
                job.settings,
                stopped=self._stops,
                chosen=self._chosen,
                start=self._start,
                differed=self._differed if greedy else None,
            )
            end = _how_it_ended(len(new), job.settings)
            self._lineage.wrote(self._branch, self._unread(new))
            if self._is_over(new, job.settings):
                self._lineage.end(self._branch, end)
            if self._unwinds():
                end = "stopped"
            self._stand_at_end()
            return self._ended(lambda control: control.ended(end))
        except RunStoppedError:
            return self._ended(lambda control: control.ended("stopped"))
        except BaseException as error:  # noqa: BLE001 - the model's own code may raise anything, SystemExit too
            return self._failed(error)
        finally:
            self._put_functions_back()

    def _differed(self) -> None:
        self._emit(
            Notice("the tokens before would be others if chosen now: this model does not repeat itself", "warning")
        )

    def _unwinds(self) -> bool:
        return self._gate.control.unwinds

    def _stops(self) -> bool:
        """Whether the run is left behind the token that was chosen last; asked once a token."""
        self._stopped = self._unwinds()
        if self._stopped and self._track is not None:
            self._track.left()
        return self._stopped

    def _is_over(self, new: Sequence[int], settings: GenerationSettings) -> bool:
        """Whether nothing follows these tokens, however the run came to leave them."""
        written = len(new) - (1 if self._encodes else 0)
        if not self._stopped or written >= settings.max_new_tokens:
            return True
        return self._ends_text(new)

    def _ends_text(self, new: Sequence[int]) -> bool:
        end = getattr(getattr(self._debugger.model, "generation_config", None), "eos_token_id", None)
        return bool(new) and new[-1] in (end if isinstance(end, list) else [end])

    def _unread(self, new: Sequence[int]) -> str:
        """The text of the last token, which went through no step; empty for one that only says that the text ends."""
        if len(new) <= (1 if self._encodes else 0) or self._ends_text(new):
            return ""
        from moetui.engine.texts import TokenTexts

        return TokenTexts(self._debugger.tokenizer).text(new[-1])

    def _stand_on(self, branch: int, reason: str) -> Change:
        """Switch to a branch on which nothing follows."""
        self._debugger.tell(self._lineage.switch(branch))
        recording = self._debugger.recording
        if recording is not None:
            recording.write_event(RunStateChanged(RunState.FINISHED, reason, last_text=self._lineage.last_text(branch)))
        return lambda control: control.ended(reason)

    def _prepare(self, job: Job) -> None:
        debugger, settings = self._debugger, job.settings
        debugger.flush()
        self.hit = None
        debugger.breakpoints.take_hit()  # of a step that the last run did not stand behind
        self._repeats.clear()
        self._stopped = False
        self._length, self._reseed = 0, settings.seed if settings.sampled else None
        event, self._start = self._begin(job) if job.branch is None else self._take_up(job.branch)
        if self._start is not None:
            self._repeats.extend(self._start.repeats)
            if not self._start.exact:
                notice = "the tokens before run again in another way: numbers may differ in their last digits"
                self._emit(Notice(notice, "warning"))
        debugger.capture.branch = self._branch
        debugger.tell(event)
        if debugger.recording is not None:
            debugger.recording.write_event(RunStateChanged(RunState.RUNNING))

    def _begin(self, job: Job) -> tuple[Event, Start | None]:
        """The job's run gets a branch of its own."""
        from moetui.engine.track import Track

        origin, settings = job.origin, job.settings
        start: Start | None = None
        if origin is None:
            track = Track(sampled=settings.sampled, cuts=not self._encodes)
        else:
            start = origin.track.start(origin.number)
            track = origin.track.forked(origin.number, sampled=settings.sampled)
            if start.random is not None and settings.seed == origin.settings.seed:
                self._reseed = None
        first = self._debugger.live_timeline.snapshot().end
        branch = self._lineage.add(job.prompt, settings, track, first, origin, job.name)
        self._track, self._branch = track, branch.id
        return BranchAdded(branch, settings), start

    def _take_up(self, branch: int) -> tuple[Event, Start | None]:
        """A branch goes on where it was left."""
        track = self._lineage.ran(branch).track
        self._lineage.wrote(branch, "")
        number = track.finished
        start = track.start(number) if number else None
        if start is not None and start.random is not None:
            self._reseed = None
        track.taken_up()
        self._track, self._branch = track, branch
        return self._lineage.switch(branch), start

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
        reason = self._hit_reason()
        self._arrived()
        try:
            self._stand(max(0, self._length - tokens), reason)
        except RunStoppedError:
            self._track.left()
            raise
        finally:
            self.hit = None
        # Not only set where it is asked for: what was queued behind other steps is due here.
        self._debugger.capture.gate = self.at_site if self._gate.control.to_site else None
        if tokens:
            self._note(tokens, arguments)
        return True

    def _note(self, tokens: int, arguments: Mapping[str, Any]) -> None:
        """The step begins: leave what it takes to come back to it, in the random state in which it stood then."""
        from moetui.engine.caches import given_cache

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
        self._track.note(capture.steps, tokens, given_cache(arguments), tuple(capture.functions))

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

    def at_site(self, context: SiteContext) -> None:
        """See ``Capture.gate``."""
        if context.step is None or context.step.index < 0:
            return
        if not self._gate.control.to_site:
            return
        before = self._gate.waited
        self.underway = self._look(context)
        try:
            place = context.place if self.underway is None else _place(context.site.name, self.underway)
            self._gate.before_site(place, self._debugger.keep)
        finally:
            self.underway = None
        waited = self._gate.waited - before
        if waited:
            context.step.stood(int(waited * 1e9))

    def _look(self, context: SiteContext) -> Underway | None:
        """The step that stands before a site, as far as it has come."""
        try:
            view = self._debugger.capture.so_far(context)
        except Exception as error:  # noqa: BLE001 - what cannot be shown must not end the capture
            self._emit(Notice(f"the step's routing so far cannot be shown: {error}", "warning"))
            return None
        self._debugger.flush()
        end = self._debugger.live_timeline.snapshot().end
        return None if view is None else Underway(view, context.site.index, end)

    def changed_within(self) -> None:
        """Interventions changed while a step stood between two sites."""
        if self._track is not None:
            self._track.changed_within()

    def _stand_at_end(self) -> None:
        """The last step may hit a breakpoint too: stand behind it."""
        reason = self._hit_reason()
        if reason and not self._gate.control.unwinds:
            try:
                self._stand(self._length, reason)
            finally:
                self.hit = None

    def _hit_reason(self) -> str:
        """Why a breakpoint holds behind the newest step, in words; empty if none does."""
        points = self._debugger.breakpoints
        self.hit = points.take_hit()
        return "" if self.hit is None else points.reason(self.hit)

    def _stand(self, position: int, reason: str) -> None:
        recording = self._debugger.recording
        if self._gate.before_step(position, reason, self._tell_pause) and recording is not None:
            recording.write_event(RunStateChanged(RunState.RUNNING))

    def _tell_pause(self, reason: str) -> None:
        recording = self._debugger.recording
        if recording is not None:
            # Written behind the steps before the pause, which is why not where the state changes.
            self._debugger.flush()
            recording.write_event(RunStateChanged(RunState.PAUSED, reason))

    def _ended(self, change: Change) -> Change:
        debugger = self._debugger
        debugger.capture.gate = None
        debugger.flush()
        self._meter.stop()
        control = self._gate.control
        if debugger.recording is not None and not control.turning:
            control = change(control)
            last = self._lineage.last_text(self._branch) if control.state is RunState.FINISHED else ""
            debugger.recording.write_event(RunStateChanged(control.state, control.reason, control.hint, last))
        self._watch.run_ended()
        return change

    def _failed(self, error: BaseException) -> Change:
        from moetui.engine.run_errors import explain_run

        if self._track is not None:
            self._track.broke()
        self._lineage.forget_caches()
        steps = 0 if self._track is None else len(self._track.passes)
        failure = self.error = explain_run(error, steps)
        return self._ended(lambda control: control.failed(failure.message, failure.hint))


def _how_it_ended(new: int, settings: GenerationSettings) -> str:
    if new >= settings.max_new_tokens:
        return f"{new} tokens"
    return "end of text" if new else "prompt only"


def _place(site: str, underway: Underway) -> str:
    """Which tokens stand before a site, in words, by the numbers that they will have: ``L1 · token 24``."""
    first, last = underway.first, underway.first + underway.view.end - 1
    return f"{site} · token {first}" if first == last else f"{site} · tokens {first} to {last}"
