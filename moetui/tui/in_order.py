"""One key after the other: a key waits until all that the one before it set going has been done.

Textual hands a key to the widget with the focus at once, and what a *binding* does comes only when the key has made its
way up to the app. In a burst, as a slow line or a paste brings it, letters behind an Enter would be typed into the line
that the Enter is about to send, and keys behind one that opens a dialog would go to what lies under it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from textual import events
from textual.message import Message

if TYPE_CHECKING:
    from textual.app import App
    from textual.screen import Screen
    from textual.widget import Widget

    _Base = App[int]
else:
    _Base = object

# A probe goes the way of a key and comes behind what was posted before it. The first arrives when the key was handled,
# the second when the widget's message was, the third when that of its parent was; one more for what they call later.
_ROUNDS = 4
_GLANCE = 0.05  # s between looks at the widget that has the probe: one that goes away takes it along
_PATIENCE = 2.0  # s; no key waits longer


class InOrder(_Base):
    """Mixed into an app: holds back keys and pastes while an earlier one is still being handled."""

    class Probe(Message, namespace="in_order"):
        """Comes back to the app when all that lay before it on its way was handled."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    _held: deque[events.Key | events.Paste]
    _probe = 0
    _rounds_left = 0
    _watchdog: asyncio.TimerHandle | None = None

    def start_order(self) -> None:
        """Begin with nothing held back."""
        self._held = deque()

    def touched(self) -> None:
        """A person typed or pointed; for whom it is of use."""

    async def on_event(self, event: events.Event) -> None:
        """Hand a key on, or hold it back."""
        if isinstance(event, events.InputEvent):
            self.touched()
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded:
            await super().on_event(event)
        elif self._rounds_left:
            self._held.append(event)
        else:
            await self._hand_on(event)

    async def _hand_on(self, event: events.Key | events.Paste) -> None:
        while isinstance(event, events.Key) and self._is_typed(event):
            await super().on_event(event)
            if not self._held:
                return
            event = self._held.popleft()
        await super().on_event(event)
        self._rounds_left = _ROUNDS
        self._send_probe()

    def _is_typed(self, event: events.Key) -> bool:
        """Whether a key is text for the widget with the focus: it sets nothing else going, and needs no waiting for."""
        return self.focused is not None and self.focused.check_consume_key(event.key, event.character)

    async def on_in_order_probe(self, probe: Probe) -> None:
        """One round is over; after the last the next key has its turn."""
        probe.stop()
        if probe.number != self._probe or not self._rounds_left:
            return
        self._rounds_left -= 1
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._rounds_left:
            self._send_probe()
        elif self._held:
            await self._hand_on(self._held.popleft())

    def _send_probe(self) -> None:
        self._probe += 1
        if not self._screen_stack:  # the app is ending
            self._rounds_left = 0
            return
        target = self.focused or self.screen
        if target.post_message(self.Probe(self._probe)):
            loop = asyncio.get_running_loop()
            self._look_after(target, self._probe, loop.time() + _PATIENCE)
        else:
            self.post_message(self.Probe(self._probe))

    def _look_after(self, target: Widget | Screen[Any], number: int, until: float) -> None:
        """Send the probe by the short way if the long way is gone."""
        if number != self._probe or not self._rounds_left:
            return
        loop = asyncio.get_running_loop()
        if loop.time() > until or not (target.is_running and target.is_attached):
            self.post_message(self.Probe(number))
        else:
            self._watchdog = loop.call_later(_GLANCE, self._look_after, target, number, until)
