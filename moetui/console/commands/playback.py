"""Commands that move a recording."""

from __future__ import annotations

from typing import Annotated, get_args

from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import table, text
from moetui.console.kinds import Kind, Rows, choice, integer, real
from moetui.console.needs import MARKS, SEEK
from moetui.console.readers import show
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.session import Playable
from moetui.session.offers import MarkKind
from moetui.session.places import WHAT, read_place

GROUP = "playback"
Place = Annotated[float, Kind(WHAT, lambda value, _context: _place(value), "where to")]
_MARKS = ("next", "previous", *get_args(MarkKind))
Mark = Annotated[
    str | float,
    Kind(
        f"one of {', '.join(_MARKS)}; or {WHAT}",
        lambda value, _context: _mark(value),
        "where to",
        lambda _context, _typed: _MARKS,
    ),
]
OfKind = Annotated[MarkKind | None, choice(*get_args(MarkKind))]


@command(GROUP, SEEK)
def seek(console: Context, token: Place) -> Result:
    """Move the recording so that this token is the last one shown; 'jump' goes to what happened.

    Args:
        token: its number in the whole recording, from 0, or the recorded time since its first step began.

    Examples:
        seek 31
        seek 0.25s
    """
    token = _go(console, token, "token")
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


@command(GROUP, MARKS)
def marks(console: Context, *, kind: OfKind = None, rows: Rows = 40) -> Result:
    """List what happened in the recording, and at which token: breakpoints, interventions, findings, branches.

    A divergence is where a branch first parts from the one that it was forked from: the first token that it sends to
    other experts while the text is the same, and the first other token.

    Args:
        kind: only what is of this kind.
        rows: the most rows to show; the earliest.

    Examples:
        marks
        marks --kind breakpoint
    """
    found = [mark for mark in _playable(console).marks if kind is None or mark.kind == kind]
    if not found:
        return Result((Text("nothing is marked"),), [])
    drawn = table(
        ("token", "what", ""),
        [(str(mark.token), text(mark.kind), text(mark.text)) for mark in found[:rows]],
        left=("what", ""),
    )
    more = [text(f"… {len(found) - rows:,} more", "dim")] if len(found) > rows else []
    data = [{"token": mark.token, "kind": mark.kind, "text": mark.text} for mark in found]
    return Result((drawn, *more), data)


@command(GROUP, MARKS)
def jump(
    console: Context,
    to: Mark = "next",
    *,
    kind: OfKind = None,
) -> Result:
    """Pause the replay where something happened next, or before; at a token or a time, as 'seek' does.

    Args:
        to: the next mark, the one before, the next of a kind, or a place.
        kind: only what is of this kind.

    Examples:
        jump previous
        jump previous --kind branch
        jump 31
    """
    if not isinstance(to, str):
        if kind is not None:
            raise UsageError(f"a place is no {kind}", "one of them is enough: jump previous --kind branch")
        token = _go(console, to, "to")
        return Result((text(f"at token {token}"),), {"token": token, "kind": None, "text": ""})
    wanted = next((each for each in get_args(MarkKind) if each == to), kind)
    if kind not in (None, wanted):
        raise UsageError(f"{to} is no {kind}", "one kind is enough: jump previous --kind branch")
    found = _playable(console).jump(-1 if to == "previous" else 1, *(() if wanted is None else (wanted,)))
    if found is None:
        which = "previous" if to == "previous" else "next"
        raise UsageError(f"there is no {which} {wanted or 'mark'}", "'marks' lists them")
    shown = text(f"token {found.token}: {found.kind}, {found.text}")
    return Result((shown,), {"token": found.token, "kind": found.kind, "text": found.text})


def _go(console: Context, place: float, name: str) -> int:
    """Move the recording to a token, or to a time; the token."""
    playback = console.session.playback
    token = place if isinstance(place, int) else _playable(console).token_at(place)
    if playback is not None and token >= playback.end:
        raise UsageError(f"{name}: the recording has no token {token}", f"tokens 0 to {playback.end - 1}")
    console.session.seek(token)
    return token


def _place(value: object) -> int | float:
    return read_place(value if isinstance(value, str) else str(value))


def _mark(value: object) -> str | int | float:
    word = str(value).lower()
    if word in _MARKS:
        return word
    try:
        return _place(value)
    except UsageError:
        raise UsageError(
            f"{show(word)} is neither a mark nor a place", f"one of {', '.join(_MARKS)}; or {WHAT}"
        ) from None


def _playable(console: Context) -> Playable:
    assert isinstance(console.session, Playable)  # the registry has checked the need
    return console.session
