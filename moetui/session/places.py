"""Places in a recording: a token or a time as a person writes it, and where branches part."""

from __future__ import annotations

import re

import numpy as np

from moetui.routing import TimelineView, UsageError
from moetui.routing.branches import BranchTree
from moetui.routing.timeline import StepColumns
from moetui.session.offers import Mark

WHAT = "a token's number, or a time: 31, 12.5s, 250ms, 2m, 1:05"
_CLOCK = r"(?P<minutes>\d{1,6}):(?P<rest>[0-5]?\d(?:\.\d*)?)"
_TIME = re.compile(rf"(?:{_CLOCK}|(?P<number>\d{{1,9}}(?:\.\d*)?)(?P<unit>ms|s|m))\Z")
_NAMED = 3  # sites
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def read_place(text: str) -> int | float:
    """A token's number as an int, or a time as seconds, a float.

    Raises:
        UsageError: it is neither.
    """
    text = text.strip().lower()
    if text.isascii() and text.isdigit() and len(text) < 18:
        return int(text)
    found = _TIME.match(text)
    if found is None:
        raise UsageError(f"'{text}' is no place in a recording", WHAT)
    if found["minutes"]:
        return 60.0 * int(found["minutes"]) + float(found["rest"])
    return float(found["number"]) * _UNITS[found["unit"]]


def token_at(steps: StepColumns, seconds: float) -> int:
    """The last token of the step that ran, or had run last, so many seconds after the first one began.

    Raises:
        UsageError: no step's time is known.
    """
    known = np.flatnonzero(np.isfinite(steps.started))
    if not known.size:
        raise UsageError("this recording has no times", "go to a token by its number")
    started = steps.started[known]
    rows = known[started - started.min() <= seconds + 1e-9]
    row = int(rows[-1]) if rows.size else int(known[0])
    return int(steps.first_token[row]) + int(steps.num_tokens[row]) - 1


def divergences(view: TimelineView, tree: BranchTree) -> list[Mark]:
    """Where each branch first parts from the one that it was forked from, in order of branches.

    That is the first token with other experts, as long as the text is the same, and the first other token.
    """
    # When first asked for: a first picture needs no comparisons.
    from moetui.routing.compare import align, first_routing

    out = []
    for branch in tree.branches:
        parent = None if branch.parent is None else tree.find(branch.parent)
        if parent is None:
            continue
        pairs = align(view, view, tree.line(branch.id), tree.line(parent.id))
        routed = first_routing(view, view, pairs) if view.sites else None
        if routed is not None:
            sites = ", ".join(routed.sites[:_NAMED]) + (" …" if len(routed.sites) > _NAMED else "")
            out.append(Mark(routed.a, "divergence", f"routing: {branch.name} unlike {parent.name} at {sites}"))
        other = np.flatnonzero(~pairs.same)
        if other.size:
            first = other[pairs.a[other].argmin()]
            mine, theirs = (_text(view, int(numbers[first])) for numbers in (pairs.a, pairs.b))
            out.append(Mark(int(pairs.a[first]), "divergence", f"{branch.name} {mine!r}, {parent.name} {theirs!r}"))
    return out


def _text(view: TimelineView, token: int) -> str:
    return view.text(int(view.tokens(token, token + 1).token_id[0]))
