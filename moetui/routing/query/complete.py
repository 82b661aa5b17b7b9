"""What could be typed next in a query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moetui.routing.model import ModelInfo
from moetui.routing.query.fields import FIELDS, KEYWORDS, FieldSpec, find_field
from moetui.routing.query.tree import quoted

_VALUE = re.compile(r"([A-Za-z_]\w*)\s*(?::|==|=|!=)\s*((?:[\w.-]*,)*)([\w.]*)\Z")
_BRANCH = re.compile(r"\bvs\s+([\w.-]*)\Z")
_BARE = re.compile(r"[A-Za-z_][\w.@-]*")
_WORD = re.compile(r"[A-Za-z_][\w.]*\Z")
_QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Completion:
    """A proposal: ``text`` is put in place of ``start .. stop`` of the line; ``help`` is one line."""

    text: str
    start: int
    stop: int
    help: str = ""


def complete(
    text: str, cursor: int, info: ModelInfo | None = None, branches: Mapping[str, int] | None = None
) -> list[Completion]:
    """Proposals at ``cursor``, the likeliest first.

    Args:
        text: the line so far, right or wrong.
        cursor: where the cursor stands in it.
        info: the model, for layers, sites and experts.
        branches: names of branches.
    """
    cursor = max(0, min(cursor, len(text)))
    before = _QUOTED.sub(lambda found: "'" + "x" * (len(found[0]) - 2) + "'", text[:cursor])
    if before.count('"') % 2 or before.count("'") % 2:
        return []  # inside a string
    if found := _BRANCH.search(before):
        return _starting(found[1], _branches(branches or {}), cursor)
    if (found := _VALUE.search(before)) and (spec := find_field(found[1])):
        return _starting(found[3], _values_of(spec.name, info, branches or {}), cursor)
    word = _WORD.search(before)
    typed = word[0] if word else ""
    fields = ((name + _ending(name), spec.help) for name, spec in FIELDS.items())
    keywords = ((name, "") for name in KEYWORDS[:3])
    return _starting(typed, (*fields, *keywords), cursor)


def field_before(text: str, cursor: int) -> FieldSpec | None:
    """The field whose name, or whose value, ends at ``cursor``; None where something else does, or nothing."""
    before = text[: max(0, cursor)]
    found = _VALUE.search(before) or _WORD.search(before)
    return None if found is None else find_field(found[1] if found.re is _VALUE else found[0])


def _ending(name: str) -> str:
    kind = FIELDS[name].kind
    if name == "flip":
        return " vs "
    return {"mark": "", "number": ""}.get(kind, ":")


def _values_of(name: str, info: ModelInfo | None, branches: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    if name == "phase":
        return [("prefill", "the prompt"), ("decode", "generated tokens")]
    if name in ("branch", "flip"):
        return list(_branches(branches))
    if info is None:
        return []
    if name == "layer":
        return [(str(layer), "") for layer in sorted({site.layer for site in info.sites})]
    if name == "site":
        return [(site.name, f"layer {site.layer}, {site.num_experts} experts") for site in info.sites]
    if name in ("expert", "first"):
        return [(str(expert), "") for expert in range(info.num_experts)]
    if name == "stack":
        return [(stack, "") for stack in dict.fromkeys(site.stack for site in info.sites)]
    return []


def _branches(branches: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    for name, number in branches.items():
        yield name if _BARE.fullmatch(name) else quoted(name), f"branch {number}"


def _starting(typed: str, choices: Iterable[tuple[str, str]], cursor: int) -> list[Completion]:
    start = cursor - len(typed)
    return [
        Completion(choice, start, cursor, help_)
        for choice, help_ in choices
        if choice.lower().removeprefix('"').startswith(typed.lower()) and choice != typed
    ]
