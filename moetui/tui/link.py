"""The line to the terminal: differences instead of pictures, and no more pictures than the line swallows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

from moetui.tui.driver import TerminalDriver
from moetui.tui.status import LineFacts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from textual.app import App
    from textual.screen import Screen

    from moetui.tui.delta import SentScreen

    _Base = App[int]
else:
    _Base = object

Update: TypeAlias = LayoutUpdate | ChopsUpdate

QUERY = "\x1b[6n"  # "where is the cursor": answered only when all before it was swallowed
IN_FLIGHT = 2  # live frames that may be unanswered
PATIENCE = 2.0  # s after which a terminal is taken for one that does not answer
_FORGIVEN = 2  # times; after that it is not asked any more


class Pacing:
    """Asks the terminal after each live frame, and says when the next may be drawn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: list[float] = []
        self._missed = 0
        self.round_trip: float | None = None

    @property
    def asking(self) -> bool:
        """Whether it is worth asking this terminal."""
        return self._missed < _FORGIVEN

    def asked(self) -> None:
        """A query was sent behind a live frame."""
        self._asked.append(self._clock())

    def answered(self) -> None:
        """The terminal answered the oldest query."""
        if self._asked:
            seconds = self._clock() - self._asked.pop(0)
            self.round_trip = seconds if self.round_trip is None else 0.7 * self.round_trip + 0.3 * seconds
            self._missed = 0

    def ready(self) -> bool:
        """Whether another live frame may be drawn."""
        if len(self._asked) < IN_FLIGHT:
            return True
        if self._clock() - self._asked[0] < PATIENCE:
            return False
        self._asked.clear()
        self._missed += 1
        if not self.asking:
            self.round_trip = None
        return True


class _Noted(CompositorUpdate):
    """Stands in for an update: sent whole, as Textual does, and noted when it is."""

    def __init__(self, update: Update, sent: list[Update]) -> None:
        self._update, self._sent = update, sent

    def render_segments(self, console: Console) -> str:
        """Called by Textual when it sends; only then does the terminal get it."""
        self._sent.append(self._update)
        return self._update.render_segments(console)


class Linked(_Base):
    """Mixed into the app: sends differences, asks behind live frames, and knows how the line does."""

    _sent: SentScreen | None = None
    _whole: list[Update] | None = None
    _live = False
    pacing: Pacing

    def start_link(self, *, delta: bool = True) -> None:
        """Send pictures; ``delta``: note them too, so that ``send_differences`` knows what the terminal shows."""
        self.pacing = Pacing()
        self._whole = [] if delta else None

    def send_differences(self) -> None:
        """Send what changes alone from now on, where the installed Textual is the one that this was proven with.

        Not before the first picture, which has nothing to differ from: what finds differences takes a while to load.
        """
        from moetui.tui.delta import SentScreen, supported

        whole, self._whole = self._whole, None
        if whole is not None and supported():
            self._sent = SentScreen(self.console._color_system)
            for update in whole:
                self._sent.encode(update)

    def forget_screen(self) -> None:
        """Send everything anew: the terminal may show anything."""
        if self._sent is not None:
            self._sent.forget()
        elif self._whole is not None:
            self._whole.clear()
        self.refresh(layout=True)

    def live_frame(self) -> None:
        """What is sent next shows new data, and is asked after."""
        self._live = True

    def on_cursor_position(self) -> None:
        """The terminal has swallowed all that was sent before the query."""
        self.pacing.answered()

    def line_facts(self) -> LineFacts:
        """How the line does."""
        driver = self._driver
        kilobytes = driver.meter.kilobytes() if isinstance(driver, TerminalDriver) else 0.0
        return LineFacts(kilobytes, self.frame_rate(), self.pacing.round_trip)

    def sent_bytes(self) -> int:
        """Sent to the terminal so far."""
        driver = self._driver
        return driver.meter.total if isinstance(driver, TerminalDriver) else 0

    def frame_rate(self) -> float:
        """Live frames a second; the app knows."""
        return 0.0

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        # Textual's own way of sending an update, with the update exchanged for one of the same picture.
        if isinstance(renderable, LayoutUpdate | ChopsUpdate):
            super()._display(screen, self._stand_in(renderable))  # type: ignore[arg-type]
        else:
            super()._display(screen, renderable)
        self._ask()

    def _stand_in(self, update: Update) -> CompositorUpdate:
        if self._sent is not None:
            from moetui.tui.delta import Encoded

            return Encoded(update, self._sent)
        return update if self._whole is None else _Noted(update, self._whole)

    def _ask(self) -> None:
        if self._live and not self._batch_count:
            self._live = False
            if self.pacing.asking and isinstance(self._driver, TerminalDriver):
                self._driver.write(QUERY)
                self.pacing.asked()
