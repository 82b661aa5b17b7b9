"""Commands that stop a run where something holds, and that show values at each stop."""

from __future__ import annotations

from typing import Annotated

from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import table, text
from moetui.console.kinds import BREAKPOINT, BREAKPOINTS, NUMBERS, QUERY, VALUES, Flag, QueryText, choice, integer
from moetui.console.needs import BREAK
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.session import Breakable, Breakpoint

GROUP = "breakpoints"
Numbers = Annotated[tuple[int, ...] | None, NUMBERS]
Points = Annotated[tuple[int, ...] | None, BREAKPOINTS]

_DOES = {"stop": (False, False), "once": (False, True), "log": (True, False)}
"""Log only and temporary, by the word for both."""


@command(GROUP, BREAK)
def break_when(
    console: Context,
    condition: QueryText,
    *,
    ignore: Annotated[int, integer(0)] = 0,
    once: Flag = False,
) -> Result:
    """Pause the run where a condition holds, behind the step whose token it holds of.

    'why' tells of that token, and 'fork' begins a branch before it; from there 'step_layer' goes from router to router.

    Args:
        condition: in the language of the filter line.
        ignore: let it hold so many times first.
        once: only the first time.

    Examples:
        break_when entropy < 0.3 and layer == 5
        moe.break_when("3 in topk and phase:decode", ignore=2)
    """
    return _add(console, condition, ignore=ignore, once=once, log_only=False)


@command(GROUP, BREAK)
def log_when(console: Context, condition: QueryText, *, ignore: Annotated[int, integer(0)] = 0) -> Result:
    """Write a line where a condition holds, and go on.

    On the screen it is in the console's log: from one stop of the run to the next a log point writes 50 lines at most,
    and says at the stop how many more hits there were. Without a screen its lines go to standard error.

    Args:
        condition: in the language of the filter line.
        ignore: let it hold so many times first.

    Examples:
        log_when margin < 0.01
    """
    return _add(console, condition, ignore=ignore, once=False, log_only=True)


@command(GROUP, BREAK)
def breakpoints(console: Context, *, remove: Points = None, enable: Points = None, disable: Points = None) -> Result:
    """List the breakpoints and log points, or remove some or switch them on or off; 'change_breakpoint' does the rest.

    Args:
        remove: numbers of those to remove.
        enable: numbers of those to look at again.
        disable: numbers of those to pass over.

    Examples:
        breakpoints
        breakpoints --remove 1,2
    """
    session = _session(console)
    for number in remove or ():
        session.remove_breakpoint(number)
    for number in enable or ():
        session.change_breakpoint(number, enabled=True)
    for number in disable or ():
        session.change_breakpoint(number, enabled=False)
    points = list(session.breakpoints)
    if not points:
        return Result((Text("no breakpoints: break_when entropy < 0.3"),), [])
    rows = [(str(point.id), text(point.expression), _how(point), str(point.hits)) for point in points]
    shown = table(("#", "condition", "does", "hits"), rows, left=("condition", "does"))
    return Result((shown,), [_data(point) for point in points])


@command(GROUP, BREAK)
def change_breakpoint(
    console: Context,
    number: Annotated[int, BREAKPOINT],
    condition: Annotated[str | None, QUERY] = None,
    *,
    ignore: Annotated[int | None, integer(0)] = None,
    does: Annotated[str | None, choice(*_DOES)] = None,
) -> Result:
    """Change a breakpoint or log point; what is not named stays, its number and its hits so far as well.

    Args:
        number: as 'breakpoints' lists it.
        condition: another one, in the language of the filter line.
        ignore: let it hold so many times from now on before it acts.
        does: stop the run each time, stop it once, or log a line and go on.

    Examples:
        change_breakpoint 1 entropy < 0.2 and layer == 5
        change_breakpoint 1 --does log --ignore 3
        moe.change_breakpoint(1, "margin < 0.01", does="once")
    """
    if condition is None and ignore is None and does is None:
        raise UsageError("nothing is to change", "give a condition, --ignore or --does")
    log_only, temporary = _DOES.get(does or "", (None, None))
    query = None if condition is None else str(console.read_query(condition))
    point = _session(console).change_breakpoint(
        number, expression=query, log_only=log_only, temporary=temporary, ignore=ignore
    )
    return Result((text(f"{point.id}: {_how(point)} when {point.expression}"),), _data(point))


@command(GROUP)
def watch(console: Context, query: Annotated[str | None, VALUES] = None, *, remove: Numbers = None) -> Result:
    """Show some values of the newest token, and what it makes of conditions on them; or add to those shown.

    Args:
        query: a condition in the language of the filter line; its values are shown whether it holds or not. A number
            may stand alone.
        remove: numbers of those to forget.

    Examples:
        watch entropy < 0.5 and layer:3
        watch prob
        watch
        watch --remove 1
    """
    for number in sorted(remove or (), reverse=True):
        if not 1 <= number <= len(console.watches):
            raise UsageError(f"--remove: there is no watch {number}", f"watches: {len(console.watches)}")
        del console.watches[number - 1]
    if query is not None:
        console.watches.append(console.read_query(query, values=True))
    if not console.watches:
        return Result((Text("nothing is watched: watch prob, watch entropy < 0.5 and layer:3"),), [])
    view, newest = console.view, console.newest
    rows, data = [], []
    for number, watched in enumerate(console.watches, 1):
        found = None if newest is None else watched.explain(view, newest)
        holds = None if found is None or not watched.conditional else found.holds
        values = "no tokens yet" if found is None else found.words
        said = {None: "–", True: "yes", False: "no"}[holds] if watched.conditional else ""
        rows.append((str(number), text(str(watched)), said, text(values)))
        data.append({"query": str(watched), "holds": holds, "values": values})
    return Result((table(("#", "condition", "holds", "values"), rows, left=("condition", "values")),), data)


def _session(console: Context) -> Breakable:
    assert isinstance(console.session, Breakable)  # the registry has checked the need
    return console.session


def _add(console: Context, condition: str, *, ignore: int, once: bool, log_only: bool) -> Result:
    query = console.read_query(condition)
    point = _session(console).add_breakpoint(str(query), log_only=log_only, temporary=once, ignore=ignore)
    return Result((text(f"{point.id}: {_how(point)} when {point.expression}"),), _data(point))


def _how(point: Breakpoint) -> str:
    parts = ["logs" if point.log_only else "stops"]
    if point.temporary:
        parts.append("once")
    if point.ignore:
        parts.append(f"after {point.ignore} more")
    if not point.enabled:
        parts.append("(off)")
    return " ".join(parts)


def _data(point: Breakpoint) -> dict[str, object]:
    return {name: getattr(point, name) for name in Breakpoint.__dataclass_fields__}
