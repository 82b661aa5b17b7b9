"""What a screen and a console may ask of a session, live or replayed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, Literal, Protocol, runtime_checkable

from moetui.routing.breakpoints import Breakpoint
from moetui.routing.events import Branch, Event, Finding, GenerationSettings, RunState
from moetui.routing.interventions import Intervention
from moetui.routing.model import ModelInfo
from moetui.routing.timeline import TimelineSource


class Capability(Flag):
    """What a session can do; a screen hides or explains what it cannot."""

    GENERATE = auto()  # run prompts
    STEP = auto()  # pause, resume, step a token
    STEP_LAYER = auto()  # pause between sites
    INTERVENE = auto()
    REWIND = auto()  # rewind and fork
    INSPECT = auto()  # parameters' values, not only their shapes
    PYTHON = auto()  # expressions on the model
    SEEK = auto()  # move the cursor: a recording


@dataclass(frozen=True, slots=True)
class Playback:
    """Where a replay stands.

    Attributes:
        position: number of the next token to be shown.
        end: tokens of the whole recording.
        speed: times real time.
        loop: half-open range of tokens that is repeated, or None.
    """

    position: int
    end: int
    speed: float = 1.0
    loop: tuple[int, int] | None = None


class Session(Protocol):
    """A model that runs, or a recording that plays.

    All methods return at once and may be called from any thread; what they set going is told by events. What a session
    cannot do raises ``UnsupportedError`` with the reason.
    """

    @property
    def name(self) -> str:
        """The model or the file, as the user called it (not yet made drawable)."""

    @property
    def capabilities(self) -> Capability:
        """What this session can do."""

    @property
    def info(self) -> ModelInfo | None:
        """The model; None until it is loaded."""

    @property
    def timeline(self) -> TimelineSource:
        """The tokens; empty until a step was captured."""

    @property
    def state(self) -> RunState:
        """Where the run stands."""

    @property
    def reason(self) -> str:
        """Why it stands there, in words; empty if there is nothing to say."""

    @property
    def settings(self) -> GenerationSettings:
        """The settings that the next run uses by default."""

    @property
    def branches(self) -> Sequence[Branch]:
        """Runs and forks so far."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What diagnostics found so far."""

    @property
    def interventions(self) -> Sequence[Intervention]:
        """The interventions in force, in order of application; right after ``set_interventions`` those set there."""

    @property
    def playback(self) -> Playback | None:
        """Where the replay stands; None for a live session."""

    @property
    def costs(self) -> dict[str, float]:
        """The debugger's own cost as measured: part → share of the run's wall time, e.g. ``{"hooks": 0.003}``."""

    def open(self) -> None:
        """Begin: load the model or read the file's header. Events tell the rest."""

    def events(self) -> AsyncIterator[Event]:
        """What happens, in order; consumed by one reader on the event loop. Ends after ``close``."""

    def generate(self, prompt: str, settings: GenerationSettings | None = None) -> None:
        """Start a run on ``prompt``.

        Raises:
            UsageError: empty prompt, or one that is too long for the model, or a run is going on.
        """

    def pause(self) -> None:
        """Stop before the next step (live) or at the cursor (replay). No effect when not running."""

    def resume(self) -> None:
        """Go on."""

    def step(self, count: int = 1) -> None:
        """Let ``count`` steps pass and pause again; a negative count steps a replay back."""

    def step_layer(self) -> None:
        """Let the model go on to the next site and pause there."""

    def stop(self) -> None:
        """End the run; what was generated stays."""

    def seek(self, token: int) -> None:
        """Move a replay's cursor so that ``token`` is the last one shown."""

    def set_speed(self, speed: float) -> None:
        """Set a replay's speed, 0.25 to 64 times real time."""

    def set_loop(self, tokens: tuple[int, int] | None) -> None:
        """Let a replay repeat a half-open range of tokens; None to play on."""

    def set_interventions(self, interventions: Sequence[Intervention]) -> None:
        """Replace the interventions in force, from the next step on.

        Raises:
            UsageError: an expert, layer or site that the model has not.
            UnsupportedError: an architecture that cannot do it; the message says why.
        """

    def call(self, function: Callable[[Any, Any], Any]) -> Future[Any]:
        """Run ``function(model, tokenizer)`` in the generation thread, between steps."""

    def close(self, timeout: float = 1.0) -> None:
        """End everything: the run, the recording (properly closed), the threads. Returns within ``timeout`` seconds."""


# What follows a session may offer or not. A screen and a console ask with ``isinstance`` and say what is missing.


@runtime_checkable
class Waitable(Protocol):
    """A session that a script can wait for."""

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the session waits for a command (nothing loads or runs; it may be paused) or was closed.

        Returns:
            False if ``timeout`` seconds were not enough.
        """

    def flush(self, timeout: float | None = None) -> bool:
        """Block until all tokens that went through the model are in the timeline; False after ``timeout`` seconds."""


MarkKind = Literal["finding", "interventions", "breakpoint", "branch"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a recording: the token at which something happened, and what, in a few words (not yet drawable)."""

    token: int
    kind: MarkKind
    text: str


@runtime_checkable
class Playable(Protocol):
    """A recording with places to jump to."""

    @property
    def marks(self) -> Sequence[Mark]:
        """All of them, in order of their tokens, those behind the cursor as well."""

    def jump(self, direction: int = 1, *kinds: MarkKind) -> Mark | None:
        """Pause at the next mark (1) or the one before (-1), of these kinds or of any; None if there is none."""


@runtime_checkable
class Configurable(Protocol):
    """A session whose defaults for the next run can be changed."""

    def configure(self, settings: GenerationSettings) -> None:
        """Let ``settings`` be those of the next run that names none.

        Raises:
            UsageError: a value outside its range.
        """


@runtime_checkable
class Rewindable(Protocol):
    """A session that can take a run back to an earlier token."""

    def rewind(self, token: int) -> None:
        """Stand paused right before timeline token ``token`` goes through the model, on a branch of its own.

        What went before is kept (the caches are cut, or the prefix is run again); what came after stays in the
        timeline as the branch it was. Going on chooses anew, under the interventions then in force.

        Raises:
            UsageError: a token that is not held, or that is no token of the decoder.
            UnsupportedError: a model whose state cannot be taken back; the message says why.
        """

    def fork(self, token: int, settings: GenerationSettings | None = None, name: str = "") -> None:
        """Start a branch that shares all before timeline token ``token`` and runs on from there at once.

        Args:
            token: the first token that the branch runs through the model itself.
            settings: None for those of the run it leaves.
            name: as shown and typed; empty for one of the session's choice.

        Raises:
            UsageError: as for ``rewind``, or a name that is taken.
            UnsupportedError: as for ``rewind``.
        """


@runtime_checkable
class Breakable(Protocol):
    """A session whose runs stop where a condition holds."""

    @property
    def breakpoints(self) -> Sequence[Breakpoint]:
        """All breakpoints and log points, oldest first."""

    def add_breakpoint(
        self, expression: str, *, log_only: bool = False, temporary: bool = False, ignore: int = 0
    ) -> Breakpoint:
        """Add one, looked at after each step that ends from now on; ``BreakpointHit`` tells of its hits.

        Raises:
            QueryError: the expression does not parse.
            UnsupportedError: it asks for what a running step cannot tell; the message says what.
        """

    def set_breakpoint(self, number: int, *, enabled: bool) -> None:
        """Switch one on or off.

        Raises:
            UsageError: there is none of this number.
        """

    def remove_breakpoint(self, number: int) -> None:
        """Remove one.

        Raises:
            UsageError: there is none of this number.
        """


@runtime_checkable
class Analysing(Protocol):
    """A session that runs analyses on its model, each by a name; ``moetui.session.analyses`` has their values."""

    @property
    def analyses(self) -> Sequence[str]:
        """The names known here, e.g. ``token_impact``, ``router_decomposition``, ``expert_similarity``."""

    def analyze(self, name: str, **arguments: Any) -> Future[Any]:
        """Run an analysis in the generation thread, between steps; its passes are not captured.

        The future's exception is a ``MoetuiError`` where a person can put it right.

        Raises:
            UsageError: no analysis of this name, or an argument that it does not take.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recording that was opened beside the session: what a comparison needs of it."""

    path: str
    info: ModelInfo
    timeline: TimelineSource
    branches: tuple[Branch, ...] = ()


@runtime_checkable
class Filing(Protocol):
    """A session that reads and writes files for its user."""

    def save(self, path: str, *, overwrite: bool = False) -> int:
        """Write all tokens held, with what happened meanwhile, to a trace; return its bytes. Blocks while it writes.

        Raises:
            UsageError: the file exists (without ``overwrite``), or its folder does not.
            TraceError: it cannot be written.
        """

    def export(self, path: str, format: str, *, overwrite: bool = False) -> int:  # noqa: A002
        """Write all tokens held in one of the formats of ``moetui export``; return the bytes. Blocks while it writes.

        Raises:
            UsageError: an unknown format, or a path as for ``save``.
            TraceError: it cannot be written.
        """

    def load(self, path: str) -> Recording:
        """Open a recording beside this session.

        Raises:
            TraceError: no trace, or damaged beyond use.
        """
