"""Commands that list tokens and look for some."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from rich.text import Text

from moetui.console.commands.ordering import LARGEST, MEASURES, ordered
from moetui.console.context import Context
from moetui.console.draw import number, table, text, token_text
from moetui.console.kinds import POSITIONS, InBranch, Last, QueryText, Rows, choice
from moetui.console.plain import plain
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import NO_EXPERT, SiteFlag, TimelineView
from moetui.routing.metrics import first_choices

GROUP = "tokens"
_STRIP_SITES = 32
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

Numbers = Annotated[tuple[int, int | None] | None, POSITIONS]
By = Annotated[str | None, choice(*MEASURES)]


@command(GROUP)
def tokens(
    console: Context,
    numbers: Numbers = None,
    *,
    by: By = None,
    branch: InBranch = None,
    last: Last = None,
    rows: Rows = 40,
) -> Result:
    """List tokens: text, first choice at each layer, entropy, confidence, margin, log-probability, milliseconds.

    With --by the most striking first: the least margin or the largest entropy at any site, the least confidence or
    log-probability, the longest time.

    Args:
        numbers: a range of token numbers, as the table shows them; the newest if left out.
        by: what to order them by.
        rows: the most rows to show; the newest of the range, or the first in the order.

    Examples:
        tokens
        tokens 20-40
        tokens --branch 1
        tokens --by margin --rows 5
    """
    window = console.window(last) if numbers is None else console.window(None, *numbers)
    keep = np.flatnonzero(console.rows(window, branch)) + window.first
    if by is not None:
        return _striking(window, keep, by, rows)
    return _listing(console, window, keep, rows)


@command(GROUP)
def find(
    console: Context,
    query: QueryText,
    *,
    by: By = None,
    branch: InBranch = None,
    last: Last = None,
    rows: Rows = 40,
) -> Result:
    """List the tokens that match a query, the newest last.

    All terms hold at one of the token's sites, negated ones at all: 'not expert:0' went there nowhere, 'layer:3 not
    expert:0' not in layer 3.

    Args:
        query: in the language of the filter line.
        by: what to order them by instead, as in 'tokens'.
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
    if by is not None:
        return _striking(window, numbers, by, rows)
    return _listing(console, window, numbers, rows, of=window.end - window.first)


def _striking(view: TimelineView, numbers: Any, by: str, most: int) -> Result:
    found = ordered(view, numbers, by)
    if not found.tokens.size:
        return Result((text(f"{by} is known of none of {len(numbers):,} tokens"),), [])
    data, rows = [], []
    for token, value, site in zip(found.tokens[:most].tolist(), found.values.tolist(), found.sites.tolist()):
        name = view.sites[site].name if site >= 0 else None
        row = {**_token(view, token), "by": by, "value": value, "site": name}
        data.append(row)
        rows.append(
            (
                str(token),
                token_text(row["text"], "bold"),
                _strip(row["first_choices"]),
                number(value, 1 if by == "ms" else 4),
                text(name or ""),
                str(row["position"]),
            )
        )
    end = "largest" if by in LARGEST else "least"
    heads = ("#", "token", "layers", by, "site", "position")
    note = text(f"{len(rows)} of {len(numbers):,} tokens, the {end} {by} first", "dim")
    return Result((table(heads, rows, left=("token", "layers", "site")), note), plain(data))


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
