"""What a screen and a console may ask of a session, live or replayed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Protocol

from moetui.routing.events import Branch, Event, Finding, GenerationSettings, RunState
from moetui.routing.interventions import Intervention
from moetui.routing.model import ModelInfo

if TYPE_CHECKING:
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


LIVE = (
    Capability.GENERATE
    | Capability.STEP
    | Capability.STEP_LAYER
    | Capability.INTERVENE
    | Capability.REWIND
    | Capability.INSPECT
    | Capability.PYTHON
)
"""What a session on a model can do: everything but seeking."""

REPLAYED = Capability.STEP | Capability.SEEK
"""What a session on a recording can do: pausing, stepping, seeking."""


@dataclass(frozen=True, slots=True)
class Playback:
    """Where a replay stands.

    Attributes:
        position: number of the next token to be shown.
        end: tokens of the whole recording.
        speed: times real time.
        loop: half-open range of tokens that is repeated, or None.
        quiet: nothing has come for a while of a run that is followed and was not said to stand.
    """

    position: int
    end: int
    speed: float = 1.0
    loop: tuple[int, int] | None = None
    quiet: bool = False


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
        """Let ``count`` steps pass and pause again; a negative count steps a replay back.

        Steps asked for while others still pass, a token's or a site's, follow behind them unless something else stops
        the run first.
        """

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
