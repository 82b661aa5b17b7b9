"""Reads arguments: from a typed word, a list of words or a Python value to a checked value."""

from __future__ import annotations

import difflib
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moetui.console.window import EVERY
from moetui.routing import Phase, Site, UsageError
from moetui.routing.events import Branch
from moetui.routing.ranges import with_routers
from moetui.session import Breakable

if TYPE_CHECKING:
    from moetui.console.context import Context

_RANGE = re.compile(r"(\d+)(?:-|:|\.\.)(\d+)\Z")
_MOST_NUMBERS = 65_536
_MOST_DIGITS = 20
_MOST_FILES = 200
_ENDLESS = 1e12  # a bound that nobody needs to be told of


def within(low: float | None, high: float | None) -> str:
    """`` from 1 to 8``: bounds in words."""
    if low is not None and high is not None and high < _ENDLESS:
        return f" from {low:g} to {high:g}"
    return f" from {low:g}" if low is not None else ""


def show(value: Any) -> str:
    """A value as an error names it, cut short."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def whole(value: Any) -> int:
    """A whole number; ``True`` and ``1.5`` are none."""
    if isinstance(value, bool):
        raise UsageError(f"{value} is no number")
    if isinstance(value, str) and len(value) >= _MOST_DIGITS and re.fullmatch(r"[+-]?\d+", value):
        raise UsageError(f"{show(value)} is too large")
    try:
        return int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        raise UsageError(f"{show(value)} is no whole number") from None


def each_number(value: Any) -> Iterator[int]:
    """Whole numbers from ``3``, ``"0,3 5-7"``, lists of those, ranges, arrays."""
    if isinstance(value, str):
        for word in value.strip("[](){}").replace(",", " ").split():
            found = _RANGE.match(word)
            if found is None:
                yield whole(word)
            elif len(found[1]) > 9 or len(found[2]) > 9 or int(found[2]) - int(found[1]) > _MOST_NUMBERS:
                raise UsageError(f"{show(word)} is a range too long")
            elif int(found[2]) < int(found[1]):
                raise UsageError(f"{word} runs backwards")
            else:
                yield from range(int(found[1]), int(found[2]) + 1)
    elif isinstance(value, Iterable):
        for number, item in enumerate(value):
            if number > _MOST_NUMBERS:
                raise UsageError("too many numbers")
            yield from each_number(item)
    else:
        yield whole(value)


def read_numbers(value: Any) -> tuple[int, ...]:
    """Different whole numbers, at least one; see ``each_number``."""
    try:
        numbers = tuple(dict.fromkeys(each_number(value)))
    except RecursionError:
        raise UsageError("nested too deeply") from None
    if not numbers:
        raise UsageError("none given")
    return numbers


def read_experts(value: Any, context: Context) -> tuple[int, ...]:
    """Experts that the model has."""
    numbers = read_numbers(value)
    most = context.info.num_experts
    for number in numbers:
        if not 0 <= number < most:
            raise UsageError(f"{number} is no expert of this model", f"experts 0 to {most - 1}")
    return numbers


def read_expert(value: Any, context: Context) -> int:
    """One expert that the model has."""
    numbers = read_experts(value, context)
    if len(numbers) != 1:
        raise UsageError("one expert, not several")
    return numbers[0]


def layers(context: Context) -> list[int]:
    """Layers with a router, in order."""
    return sorted({site.layer for site in context.info.sites})


def read_layers(value: Any, context: Context) -> tuple[int, ...]:
    """Layers with a router; see ``with_routers``."""
    return with_routers(read_numbers(words_of(value, "L")), layers(context))


def words_of(value: Any, letter: str) -> Any:
    """``L3`` is as good as ``3``."""
    return re.sub(rf"\b{letter}(?=\d)", "", value, flags=re.IGNORECASE) if isinstance(value, str) else value


def read_site(value: Any, context: Context) -> Site:
    """A site by name, number, or itself."""
    sites = context.info.sites
    if isinstance(value, Site):
        return value
    if not isinstance(value, str) or re.fullmatch(r"-?\d+", value):
        number = whole(value)
        if not 0 <= number < len(sites):
            raise UsageError(f"there is no site {number}", f"sites 0 to {len(sites) - 1}, or by name")
        return sites[number]
    for site in sites:
        if site.name.lower() == value.lower():
            return site
    names = [site.name for site in sites]
    near = difflib.get_close_matches(value.upper(), names, n=1)
    raise UsageError(
        f"there is no site {show(value)}", f"did you mean '{near[0]}'?" if near else f"sites {listed(names)}"
    )


def read_sites(value: Any, context: Context) -> tuple[str, ...]:
    """Names of sites, given by name or number."""
    words: list[Any] = []
    for item in [value] if isinstance(value, str | int | Site) else list(value):
        words += [word for word in item.replace(",", " ").split() if word] if isinstance(item, str) else [item]
    names = tuple(dict.fromkeys(read_site(word, context).name for word in words))
    if not names:
        raise UsageError("none given")
    return names


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first of some names."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def read_positions(value: Any, _context: Context) -> tuple[int, int | None]:
    """A half-open range of positions; ``5-9`` includes 9, ``5:9`` does not."""
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{0,9})(?:(-|:|\.\.)(\d{0,9}))?", value.strip())
        if found is None or not (found[1] or found[3]):
            raise UsageError(f"{show(value)} is no range of positions")
        start = int(found[1] or 0)
        if not found[2]:
            stop: int | None = start + 1
        else:
            stop = None if not found[3] else int(found[3]) + (found[2] != ":")
    elif isinstance(value, slice | range):
        start, stop = value.start or 0, value.stop
    elif isinstance(value, Sequence) and len(value) == 2:
        start, stop = whole(value[0]), None if value[1] is None else whole(value[1])
    else:
        start = whole(value)
        stop = start + 1
    if start < 0 or (stop is not None and stop <= start):
        raise UsageError("the range is empty or begins before 0")
    return start, stop


def read_phase(value: Any, _context: Context) -> Phase:
    """A phase by its word."""
    if isinstance(value, Phase):
        return value
    for phase in Phase:
        if phase.label == str(value).lower():
            return phase
    raise UsageError(f"{show(value)} is no phase")


def read_branch(value: Any, context: Context) -> Branch:
    """A branch by name or number."""
    branches = context.session.branches
    if isinstance(value, Branch):
        return value
    wanted = str(value)
    for branch in branches:
        if wanted.lower() == branch.name.lower() or wanted == str(branch.id):
            return branch
    names = listed([branch.name for branch in branches])
    raise UsageError(f"there is no branch {show(wanted)}", f"branches: {names}" if names else "nothing has run yet")


def read_branches(value: Any, context: Context) -> Branch:
    """A branch, or ``all`` of them."""
    if isinstance(value, str) and value.lower() == EVERY.name:
        return EVERY
    return read_branch(value, context)


def read_breakpoint(value: Any, context: Context) -> int:
    """The number of a breakpoint that there is."""
    number = whole(value)
    known = list(breakpoint_numbers(context, ""))
    if str(number) not in known:
        raise UsageError(f"there is no breakpoint {number}", f"there is {listed(known)}" if known else "there are none")
    return number


def read_breakpoints(value: Any, context: Context) -> tuple[int, ...]:
    """Numbers of breakpoints that there are."""
    return tuple(read_breakpoint(number, context) for number in read_numbers(value))


def breakpoint_numbers(context: Context, _typed: str) -> Iterator[str]:
    """Numbers of the breakpoints, oldest first."""
    session = context.session
    return (str(point.id) for point in (session.breakpoints if isinstance(session, Breakable) else ()))


def read_token(value: Any, context: Context) -> int:
    """The number of a token that is held; a negative one counts from the end."""
    view = context.view
    number = whole(value)
    if number < 0:
        counted = context.counted_back(-number)
        number = number + view.end if counted is None else counted
    if not view.first <= number < view.end:
        held = f"tokens {view.first} to {view.end - 1} are held" if view.end > view.first else "no tokens are held"
        raise UsageError(f"there is no token {show(value)}", held)
    return number


def read_text(value: Any, _context: Context) -> str:
    """A string."""
    if not isinstance(value, str):
        raise UsageError(f"{show(value)} is no text")
    return value


def read_query(value: Any, context: Context) -> str:
    """A query of the filter line's language, about what this session's model has."""
    text = read_text(value, context)
    context.read_query(text)
    return text


def read_values(value: Any, context: Context) -> str:
    """The same, in which a number may stand alone."""
    text = read_text(value, context)
    context.read_query(text, values=True)
    return text


def read_tokens_or_text(value: Any, context: Context) -> int | str:
    """A token's number where it looks like one, else a text."""
    if isinstance(value, str) and not re.fullmatch(r"-?\d{1,9}", value):
        if not value:
            raise UsageError("it is empty")
        return value
    return read_token(value, context)


def read_path(value: Any, _context: Context) -> str:
    """A path, with ``~`` put in full."""
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise UsageError(f"{show(value)} is no path")
    try:
        os.fsencode(value)
        return str(Path(value).expanduser())
    except (UnicodeError, RuntimeError):  # half a character; ``~nobody``
        raise UsageError(f"{show(value)} is no path") from None


def read_flag(value: Any, _context: Context) -> bool:
    """A truth value."""
    if not isinstance(value, bool):
        raise UsageError(f"{show(value)} is neither True nor False")
    return value


def files(_context: Context, typed: str) -> Iterator[str]:
    """Paths that begin like this one; hidden ones only when asked for."""
    path = Path(typed).expanduser()
    folder = path if typed.endswith("/") else path.parent
    shown = typed[: typed.rfind("/") + 1]
    try:
        for number, entry in enumerate(sorted(folder.iterdir())):
            if number >= _MOST_FILES:
                return
            if not entry.name.startswith(".") or path.name.startswith("."):
                yield shown + entry.name + ("/" if entry.is_dir() else "")
    except (OSError, ValueError):
        return


def token_words(context: Context, _typed: str) -> Iterator[str]:
    """Texts of the newest tokens that are words."""
    view = context.view
    ids = view.tokens(max(view.first, view.end - 512), view.end).token_id
    for token in dict.fromkeys(ids[::-1].tolist()):
        text = view.text(token).strip()
        if text.isalnum():
            yield text


def counted(number: Callable[[Context], int]) -> Callable[[Context, str], Iterable[str]]:
    """Completions ``0 .. n - 1``."""
    return lambda context, _: map(str, range(min(1024, number(context))))
