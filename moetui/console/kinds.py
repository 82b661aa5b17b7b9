"""What an argument may be: how it is read from a typed word or a Python value, checked, completed and explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from moetui.console.readers import (
    breakpoint_numbers,
    counted,
    files,
    layers,
    read_branch,
    read_branches,
    read_breakpoint,
    read_breakpoints,
    read_expert,
    read_experts,
    read_flag,
    read_layers,
    read_numbers,
    read_path,
    read_phase,
    read_positions,
    read_query,
    read_site,
    read_sites,
    read_text,
    read_token,
    read_tokens_or_text,
    read_values,
    show,
    token_words,
    whole,
    within,
)
from moetui.routing import Phase, Site, UsageError
from moetui.routing.events import Branch

if TYPE_CHECKING:
    from moetui.console.context import Context


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of argument.

    Attributes:
        what: what is valid, in words.
        read: from a word, a list of words or a Python value to the value; raises ``UsageError``.
        about: what such an argument is for, where a command says nothing else.
        words: completions.
        many: takes all words that follow.
        raw: takes the rest of the line as it was typed.
        flag: is given without a value.
    """

    what: str
    read: Callable[[Any, Context], Any]
    about: str = ""
    words: Callable[[Context, str], Iterable[str]] = lambda _context, _typed: ()
    many: bool = False
    raw: bool = False
    flag: bool = False


def integer(low: int | None = None, high: int | None = None, what: str = "a whole number") -> Kind:
    """A whole number within bounds."""
    bounds = within(low, high)

    def read(value: Any, _context: Context) -> int:
        number = whole(value)
        if (low is not None and number < low) or (high is not None and number > high):
            raise UsageError(f"{number} is outside its range", f"{what}{bounds}")
        return number

    return Kind(what + bounds, read)


def real(low: float | None = None, high: float | None = None, *, above: bool = False) -> Kind:
    """A finite number within bounds; ``above``: ``low`` itself is no value."""
    bounds = f" above {low:g}" if above else within(low, high)
    if above and high is not None:
        bounds += f" and up to {high:g}"
    what = f"a number{bounds}"

    def read(value: Any, _context: Context) -> float:
        try:
            number = float(value) if not isinstance(value, bool | list) else float("nan")
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        wrong = not abs(number) < float("inf") or (low is not None and (number < low or (above and number == low)))
        if wrong or (high is not None and number > high):
            raise UsageError(f"{show(value)} will not do", what)
        return number

    return Kind(what, read)


def choice(*words: str) -> Kind:
    """One of some words."""

    def read(value: Any, _context: Context) -> str:
        word = str(value).lower()
        if word not in words:
            raise UsageError(f"{show(value)} is none of them", f"one of {', '.join(words)}")
        return word

    return Kind(f"one of {', '.join(words)}", read, words=lambda _context, _typed: words)


EXPERTS = Kind(
    "expert ids: 0 3 7, or 0,3,7, or 2-4",
    read_experts,
    "the experts",
    counted(lambda context: context.info.num_experts),
    many=True,
)
EXPERT = Kind("an expert id", read_expert, "the expert", EXPERTS.words)
LAYERS = Kind(
    "layers: 3, or 0,2, or 2-4",
    read_layers,
    "layers to act on; all if left out",
    lambda context, _: map(str, layers(context)),
)
SITES = Kind(
    "site names: L3, or L3,L4",
    read_sites,
    "sites to act on, by name; all if left out",
    lambda context, _: [site.name for site in context.info.sites],
)
SITE = Kind("a site: L3, or its number", read_site, "the site, by name or number", SITES.words)
POSITIONS = Kind(
    "sequence positions: 5, or 10-20, or 10- (in Python: (10, 21), or (10, None))",
    read_positions,
    "sequence positions to act on; all if left out",
)
PHASE = Kind(
    "prefill or decode",
    read_phase,
    "act on the prompt's step or on the generated tokens' only",
    lambda _context, _typed: [phase.label for phase in Phase],
)
BRANCH = Kind(
    "a branch, by name or number",
    read_branch,
    "the branch",
    lambda context, _: [
        branch.name if " " not in branch.name else str(branch.id) for branch in context.session.branches
    ],
)
BRANCHES = Kind(
    "a branch, by name or number, or all",
    read_branches,
    "only this branch's own tokens; if left out, those of the branch switched to, or else all",
    BRANCH.words,
)
TOKEN = Kind("a token's number, as the table shows it; -1 is the newest", read_token, "the token")
PLACE = Kind(
    "a token's number, or the text to look for",
    read_tokens_or_text,
    "the token's number, or its text: every occurrence",
    token_words,
)
TEXT = Kind("text", read_text)
PROMPT = Kind("a text; in quotes if it has words that begin with -", read_text, "the prompt", raw=True)
QUERY = Kind('a query: layer:3 entropy>1.2 token:"foo"', read_query, "in the language of the filter line", raw=True)
VALUES = Kind("a query, or numbers by themselves: prob  entropy layer:3", read_values, QUERY.about, raw=True)
PATH = Kind("a path", read_path, "the file", files)
FLAG = Kind("True or False", read_flag, flag=True)
NUMBERS = Kind("numbers: 1 2, or 1,2, or 1-3", lambda value, _: read_numbers(value), many=True)
BREAKPOINT = Kind("the number of a breakpoint", read_breakpoint, "as 'breakpoints' lists it", breakpoint_numbers)
BREAKPOINTS = Kind("numbers of breakpoints: 1 2, or 1,2, or 1-3", read_breakpoints, words=breakpoint_numbers, many=True)
COMMAND = Kind(
    "the name of a command", read_text, "the command", lambda context, _: [*context.registry.names, "python"]
)

Experts: TypeAlias = Annotated[tuple[int, ...], EXPERTS]
Expert: TypeAlias = Annotated[int, EXPERT]
Layers: TypeAlias = Annotated[tuple[int, ...] | None, LAYERS]
Sites: TypeAlias = Annotated[tuple[str, ...] | None, SITES]
OneSite: TypeAlias = Annotated[Site, SITE]
MaybeSite: TypeAlias = Annotated[Site | None, SITE]
Positions: TypeAlias = Annotated[tuple[int, int | None] | None, POSITIONS]
OnlyPhase: TypeAlias = Annotated[Phase | None, PHASE]
OneBranch: TypeAlias = Annotated[Branch, BRANCH]
MaybeBranch: TypeAlias = Annotated[Branch | None, BRANCH]
InBranch: TypeAlias = Annotated[Branch | None, BRANCHES]
Token: TypeAlias = Annotated[int, TOKEN]
MaybeToken: TypeAlias = Annotated[int | None, TOKEN]
Place: TypeAlias = Annotated[int | str, PLACE]
MaybePlace: TypeAlias = Annotated[int | str | None, PLACE]
Prompt: TypeAlias = Annotated[str, PROMPT]
QueryText: TypeAlias = Annotated[str, QUERY]
FilePath: TypeAlias = Annotated[str, PATH]
Flag: TypeAlias = Annotated[bool, FLAG]
Last: TypeAlias = Annotated[int | None, replace(integer(1), about="only the newest tokens, so many")]
Rows: TypeAlias = Annotated[int, replace(integer(1, 10_000), about="rows to show")]
