"""Commands that stop a run where something holds, and that show values at each stop."""

from __future__ import annotations

from typing import Annotated

from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import table, text
from moetui.console.kinds import NUMBERS, QUERY, Flag, QueryText, integer
from moetui.console.needs import BREAK
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.routing.query import parse
from moetui.session import Breakable, Breakpoint

GROUP = "breakpoints"
Numbers = Annotated[tuple[int, ...] | None, NUMBERS]


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

    Args:
        condition: in the language of the filter line.
        ignore: let it hold so many times first.

    Examples:
        log_when margin < 0.01
    """
    return _add(console, condition, ignore=ignore, once=False, log_only=True)


@command(GROUP, BREAK)
def breakpoints(console: Context, *, remove: Numbers = None, enable: Numbers = None, disable: Numbers = None) -> Result:
    """List the breakpoints and log points, or change some.

    Args:
        remove: numbers of those to remove.
        enable: numbers of those to look at again.
        disable: numbers of those to pass over.

    Examples:
        breakpoints
        breakpoints --remove 1,2
    """
    session = _session(console)
    known = {point.id for point in session.breakpoints}
    for option, numbers in (("remove", remove), ("enable", enable), ("disable", disable)):
        for number in numbers or ():
            if number not in known:
                valid = ", ".join(map(str, sorted(known)))
                raise UsageError(f"--{option}: there is no breakpoint {number}", valid or "there are none")
    for number in remove or ():
        session.remove_breakpoint(number)
    for number in enable or ():
        session.set_breakpoint(number, enabled=True)
    for number in disable or ():
        session.set_breakpoint(number, enabled=False)
    points = list(session.breakpoints)
    if not points:
        return Result((Text("no breakpoints: break_when entropy < 0.3"),), [])
    rows = [(str(point.id), text(point.expression), _how(point), str(point.hits)) for point in points]
    shown = table(("#", "condition", "does", "hits"), rows, left=("condition", "does"))
    return Result((shown,), [_data(point) for point in points])


@command(GROUP)
def watch(console: Context, query: Annotated[str | None, QUERY] = None, *, remove: Numbers = None) -> Result:
    """Show what the newest token makes of some conditions, or add one to those shown.

    Args:
        query: a condition in the language of the filter line; its values are shown whether it holds or not.
        remove: numbers of those to forget.

    Examples:
        watch entropy < 0.5 and layer:3
        watch
        watch --remove 1
    """
    for number in sorted(remove or (), reverse=True):
        if not 1 <= number <= len(console.watches):
            raise UsageError(f"--remove: there is no watch {number}", f"{len(console.watches)} are watched")
        del console.watches[number - 1]
    if query is not None:
        console.watches.append(parse(query, console.branch_names))
    if not console.watches:
        return Result((Text("nothing is watched: watch entropy < 0.5 and layer:3"),), [])
    view, newest = console.view, console.newest
    rows, data = [], []
    for number, watched in enumerate(console.watches, 1):
        found = None if newest is None else watched.explain(view, newest)
        holds = None if found is None else found.holds
        values = "no tokens yet" if found is None else found.words
        rows.append((str(number), text(str(watched)), {None: "–", True: "yes", False: "no"}[holds], text(values)))
        data.append({"query": str(watched), "holds": holds, "values": values})
    return Result((table(("#", "condition", "holds", "values"), rows, left=("condition", "values")),), data)


def _session(console: Context) -> Breakable:
    assert isinstance(console.session, Breakable)  # the registry has checked the need
    return console.session


def _add(console: Context, condition: str, *, ignore: int, once: bool, log_only: bool) -> Result:
    query = parse(condition, console.branch_names)
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
