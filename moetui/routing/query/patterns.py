"""Text search that cannot run away: substrings, and regular expressions without explosive repeats."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

from moetui.routing.errors import QueryError
from moetui.routing.text import drawable

MAX_PATTERN = 200
_MAX_TEXT = 64
_MAX_REPEATS = 3
_MAX_OPTIONAL = 6
_BOUNDS = re.compile(r"\{\d*,?\d*\}")


def contains(pattern: str) -> Callable[[str], bool]:
    """Whether a text holds ``pattern``, as it is or as it is drawn (``·`` for a space at an end, ``↵``).

    Upper and lower case are one unless the pattern has an upper-case letter.
    """
    fold = pattern == pattern.lower()

    def found(text: str) -> bool:
        plain = text.isascii() and text.isprintable() and " " not in text
        drawn = text if plain else drawable(text, spaces=True)
        if fold:
            text, drawn = text.lower(), drawn.lower()
        return pattern in text or pattern in drawn

    return found


def matches(pattern: str) -> Callable[[str], bool]:
    """Whether a regular expression that passed ``check_regex`` is found in the first 64 characters of a text."""
    compiled = re.compile(pattern)
    return lambda text: compiled.search(text[:_MAX_TEXT]) is not None


def check_regex(pattern: str, position: int) -> None:
    """Refuse what is no regular expression, or one that can take for ever.

    A backtracking search is exponential in nested repeats, in optional parts and in alternatives one after the other,
    and polynomial of high degree in many repeats; so groups are not repeated, and at most 3 repeats and 6 ``?`` or
    ``|`` inside groups are allowed.

    Raises:
        QueryError: with ``position``, that of the pattern in the query.
    """
    if len(pattern) > MAX_PATTERN:
        raise QueryError(f"the pattern is longer than {MAX_PATTERN} characters", position, "search for a part of it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about syntax that a later Python may read otherwise
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise QueryError(f"no regular expression: {error}", position, 'for plain text write token:"…"') from None
    repeats, optional = _count(pattern, position)
    if repeats > _MAX_REPEATS or optional > _MAX_OPTIONAL:
        raise QueryError(
            "the pattern repeats too much",
            position,
            f"at most {_MAX_REPEATS} of * + {{}} and {_MAX_OPTIONAL} of ? and of | in groups",
        )


def _count(pattern: str, position: int) -> tuple[int, int]:
    """Repeats and optional parts; the pattern is known to be valid."""
    repeats = optional = at = depth = 0
    before = ""  # what a quantifier here would apply to: a group, an atom, another quantifier
    while at < len(pattern):
        char = pattern[at]
        bounds = _BOUNDS.match(pattern, at)
        if char == "\\":
            if pattern[at + 1].isdigit() and pattern[at + 1] != "0":
                raise QueryError("the pattern refers back to a group", position, "write the text out")
            at, before = at + 2, "atom"
        elif char == "[":
            at, before = _class_end(pattern, at), "atom"
        elif pattern.startswith("(?", at) and not pattern.startswith("(?:", at):
            raise QueryError("the pattern looks around or sets flags", position, "use plain groups")
        elif char == "?" and before == "repeat":
            at, before = at + 1, "lazy"
        elif char == "?":
            optional, at, before = optional + 1, at + 1, "repeat"
        elif char in "*+" or (bounds and before):
            if before == "group":
                raise QueryError(
                    "the pattern repeats a group, which can take for ever", position, "repeat single characters only"
                )
            repeats += before != "repeat"  # a possessive mark is no repeat of its own
            at, before = (bounds.end() if bounds and char == "{" else at + 1), "repeat"
        else:
            depth += (char == "(") - (char == ")")
            optional += char == "|" and depth > 0
            before = "group" if char == ")" else "" if char in "(|^" else "atom"
            at += 3 if pattern.startswith("(?:", at) else 1
    return repeats, optional


def _class_end(pattern: str, at: int) -> int:
    at += 2 if pattern.startswith("[^", at) else 1
    first = at
    while at < len(pattern) and (pattern[at] != "]" or at == first):
        at += 2 if pattern[at] == "\\" else 1
    return at + 1
