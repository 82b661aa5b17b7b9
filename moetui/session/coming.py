"""A session that is still to be made: what a screen shows of it in its first picture, which waits for nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NoReturn

from moetui.routing.errors import UsageError
from moetui.routing.events import Branch, Event, Finding, GenerationSettings, RunState
from moetui.routing.interventions import Intervention
from moetui.routing.model import ModelInfo
from moetui.session.protocol import LIVE, REPLAYED, Capability, Playback, Session

if TYPE_CHECKING:
    from moetui.routing.timeline import TimelineSource


class ComingSession:
    """A ``Session`` in whose place another will be made: it has a name, loads, and does nothing yet.

    What a session brings (NumPy, run control, the trace) takes longer to load than a first picture takes to draw.

    Args:
        name: the model or the file, as the user called it.
        make: makes the session, not yet opened.
        settings: of a live session's first run.
        playback: where a replay will stand; None for a live session.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Session],
        *,
        settings: GenerationSettings | None = None,
        playback: Playback | None = None,
    ) -> None:
        self.make = make
        self._name, self._settings, self._playback = name, settings or GenerationSettings(), playback

    # What it is.

    @property
    def name(self) -> str:
        """The model or the file, as the user called it."""
        return self._name

    @property
    def capabilities(self) -> Capability:
        """Those of the session in its place."""
        return LIVE if self._playback is None else REPLAYED

    @property
    def info(self) -> ModelInfo | None:
        """None: nothing is known of the model yet."""
        return None

    @property
    def timeline(self) -> TimelineSource:
        """There is none: nothing may look for tokens yet."""
        _not_yet()

    @property
    def state(self) -> RunState:
        """Loading."""
        return RunState.LOADING

    @property
    def reason(self) -> str:
        """Nothing to say."""
        return ""

    @property
    def settings(self) -> GenerationSettings:
        """Those of the first run."""
        return self._settings

    @property
    def branches(self) -> Sequence[Branch]:
        """None yet."""
        return ()

    @property
    def findings(self) -> Sequence[Finding]:
        """None yet."""
        return ()

    @property
    def interventions(self) -> Sequence[Intervention]:
        """None yet."""
        return ()

    @property
    def playback(self) -> Playback | None:
        """Where the replay will stand."""
        return self._playback

    @property
    def costs(self) -> dict[str, float]:
        """None yet."""
        return {}

    # What it does not do yet.

    def open(self) -> None:
        """Not before it is made."""
        _not_yet()

    def events(self) -> AsyncIterator[Event]:
        """Not before it is made."""
        _not_yet()

    def generate(self, prompt: str, settings: GenerationSettings | None = None) -> None:
        """Not before it is made."""
        _not_yet()

    def pause(self) -> None:
        """Nothing runs."""

    def resume(self) -> None:
        """Nothing runs."""

    def step(self, count: int = 1) -> None:
        """Nothing runs."""

    def step_layer(self) -> None:
        """Nothing runs."""

    def stop(self) -> None:
        """Nothing runs."""

    def seek(self, token: int) -> None:
        """Not before it is made."""
        _not_yet()

    def set_speed(self, speed: float) -> None:
        """Not before it is made."""
        _not_yet()

    def set_loop(self, tokens: tuple[int, int] | None) -> None:
        """Not before it is made."""
        _not_yet()

    def set_interventions(self, interventions: Sequence[Intervention]) -> None:
        """Not before it is made."""
        _not_yet()

    def call(self, function: Callable[[Any, Any], Any]) -> Future[Any]:
        """Not before it is made."""
        _not_yet()

    def close(self, timeout: float = 1.0) -> None:
        """There is nothing to close."""


def _not_yet() -> NoReturn:
    raise UsageError("nothing is loaded yet", "wait until it is")
