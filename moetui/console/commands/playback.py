"""Commands that move a recording."""

from __future__ import annotations

from typing import Annotated

from moetui.console.context import Context
from moetui.console.draw import text
from moetui.console.kinds import integer, real
from moetui.console.needs import SEEK
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError

GROUP = "playback"
Number = Annotated[int, integer(0)]


@command(GROUP, SEEK)
def seek(console: Context, token: Number) -> Result:
    """Move the recording so that this token is the last one shown.

    Args:
        token: its number in the whole recording, from 0.

    Examples:
        seek 31
    """
    playback = console.session.playback
    if playback is not None and token >= playback.end:
        raise UsageError(f"token: the recording has no token {token}", f"tokens 0 to {playback.end - 1}")
    console.session.seek(token)
    return Result((text(f"at token {token}"),), {"token": token})


@command(GROUP, SEEK)
def speed(console: Context, times: Annotated[float, real(0.25, 64)]) -> Result:
    """Set the speed of the replay.

    Args:
        times: times real time.

    Examples:
        speed 4
    """
    console.session.set_speed(times)
    return Result((text(f"{times:g}× real time"),), {"speed": times})


@command(GROUP, SEEK)
def loop(
    console: Context,
    start: Annotated[int | None, integer(0)] = None,
    stop: Annotated[int | None, integer(1)] = None,
) -> Result:
    """Let the replay repeat a range of tokens; without one, play on.

    Args:
        start: the first token of the range.
        stop: the token behind its last.

    Examples:
        loop 10 20
        loop
    """
    if start is None or stop is None:
        if start is not None:
            raise UsageError("stop is missing: the token behind the last", "loop 10 20")
        console.session.set_loop(None)
        return Result((text("no loop"),), {"loop": None})
    if stop <= start:
        raise UsageError(f"stop: {stop} does not come after {start}", "loop 10 20")
    console.session.set_loop((start, stop))
    return Result((text(f"tokens {start} to {stop - 1}, again and again"),), {"loop": [start, stop]})
