"""Commands that list tokens and look for some."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import number, table, text, token_text
from moetui.console.kinds import POSITIONS, InBranch, Last, QueryText, Rows
from moetui.console.plain import plain
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import NO_EXPERT, SiteFlag, TimelineView
from moetui.routing.metrics import first_choices

GROUP = "tokens"
_STRIP_SITES = 32
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

Numbers = Annotated[tuple[int, int | None] | None, POSITIONS]


@command(GROUP)
def tokens(
    console: Context, numbers: Numbers = None, *, branch: InBranch = None, last: Last = None, rows: Rows = 40
) -> Result:
    """List tokens: text, first choice at each layer, entropy, confidence, margin, log-probability, milliseconds.

    Args:
        numbers: a range of token numbers, as the table shows them; the newest if left out.
        rows: the most rows to show; the newest of the range.

    Examples:
        tokens
        tokens 20-40
        tokens --branch 1
    """
    window = console.window(last) if numbers is None else console.window(None, *numbers)
    keep = np.flatnonzero(console.rows(window, branch)) + window.first
    return _listing(console, window, keep, rows)


@command(GROUP)
def find(console: Context, query: QueryText, *, branch: InBranch = None, last: Last = None, rows: Rows = 40) -> Result:
    """List the tokens that match a query, the newest last.

    Args:
        query: in the language of the filter line.
        rows: the most rows to show.

    Examples:
        find layer:3 expert:5 entropy>1.2
        find token:"foo" phase:decode
    """
    asked = console.read_query(query)
    window = console.window(last)
    matches = asked.match(console.view, window.first, window.end)[: window.end - window.first]
    if branch is not None or console.line is not None:
        matches = matches & console.rows(window, branch)
    numbers = np.flatnonzero(matches) + window.first
    if not numbers.size:
        return Result((text(f"none of {window.end - window.first:,} tokens"),), [])
    return _listing(console, window, numbers, rows, of=window.end - window.first)


def _listing(console: Context, view: TimelineView, numbers: Any, most: int, of: int | None = None) -> Result:
    shown = numbers[-most:].tolist()
    data, rows = [], []
    for token in shown:
        row = _token(view, token)
        data.append(row)
        marks = "▣" if row["forced"] and not console.ascii else "*" if row["forced"] else ""
        rows.append(
            (
                str(token),
                token_text(row["text"], "bold"),
                _strip(row["first_choices"]),
                marks,
                number(row["entropy"]),
                number(row["confidence"]),
                number(row["margin"]),
                number(row["logprob"]),
                number(row["ms"], 1),
            )
        )
    heads = ("#", "token", "layers", "", "H", "conf", "margin", "logp", "ms")
    drawn = table(heads, rows, left=("token", "layers"))
    total = len(numbers)
    what = f"{total:,} of {of:,} tokens" if of is not None else f"{total:,} tokens"
    note = text(what + (f", the newest {len(shown)} shown" if total > len(shown) else ""), "dim")
    return Result((drawn, note), plain(data))


def _token(view: TimelineView, token: int) -> dict[str, Any]:
    columns, block = view.tokens(token, token + 1), view.routing(token, token + 1)
    token_id = int(columns.token_id[0])
    first = first_choices(block.indices, block.weights)[0]
    return {
        "token": token,
        "text": view.text(token_id),
        "token_id": token_id,
        "branch": int(columns.branch[0]),
        "position": int(columns.position[0]),
        "phase": "decode" if columns.phase[0] else "prefill",
        "first_choices": [None if expert == NO_EXPERT else expert for expert in first.tolist()],
        "entropy": float(columns.entropy[0]),
        "confidence": float(columns.confidence[0]),
        "margin": float(columns.margin[0]),
        "logprob": float(columns.logprob[0]),
        "ms": float(columns.ms[0]),
        "forced": bool(columns.flags[0] & SiteFlag.FORCED),
    }


def _strip(first: list[int | None]) -> Text:
    """The first choice at each site, a character each; experts past 61 by ``+``."""
    out = Text()
    for expert in first[:_STRIP_SITES]:
        if expert is None:
            out.append("-", "dim")
        else:
            out.append(_DIGITS[expert] if expert < len(_DIGITS) else "+")
    if len(first) > _STRIP_SITES:
        out.append("…", "dim")
    return out
