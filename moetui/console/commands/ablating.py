"""What an expert is worth to the tokens that it gets."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import likelier, table, text, token_text
from moetui.console.kinds import EXPERT, MaybeBranch, OneSite, Rows
from moetui.console.needs import ANALYZE
from moetui.console.plain import plain
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.routing.branches import line_rows
from moetui.routing.events import Branch
from moetui.session import Analysing
from moetui.session.analyses import ExpertAblation

GROUP = "experts"


@command(GROUP, ANALYZE)
def ablation(
    console: Context,
    site: OneSite,
    expert: Annotated[int, EXPERT],
    *,
    branch: MaybeBranch = None,
    rows: Rows = 8,
) -> Result:
    """What an expert is worth: how likely each token's successor is when the expert's output there is left out.

    Two more forward passes over a sequence, as it was and with the expert's gate weight at zero at this site; later
    layers route by themselves. 'ablate_experts' does the same to the runs to come.

    Args:
        branch: whose sequence, with all that it shares; the one that the session stands on, if left out.
        rows: the most tokens to list, those with the largest changes.

    Examples:
        ablation L3 5
        moe.ablation("L3", 5, rows=20)
    """
    if expert >= site.num_experts:
        raise UsageError(f"expert: {site.name} has no expert {expert}", f"experts 0 to {site.num_experts - 1} there")
    own = console.standing if branch is None else branch
    assert isinstance(console.session, Analysing)
    found = console.result(console.session.analyze("ablation", branch=own.id, site=site.index, expert=expert))
    assert isinstance(found, ExpertAblation)
    data = {
        "site": site.name,
        "expert": expert,
        "branch": own.name,
        "uses": found.uses,
        "measured": len(found.positions),
        "mean": found.mean,
        "error": found.error,
        "note": found.note,
        "tokens": _tokens(console, own, found, rows),
    }
    return Result(tuple(_lines(data)), plain(data))


def _tokens(console: Context, branch: Branch, found: ExpertAblation, most: int) -> list[dict[str, Any]]:
    """The tokens with the largest changes, each with the one that followed."""
    view = console.view
    columns = view.tokens(view.first, view.end)
    keep = np.flatnonzero(line_rows(columns, console.tree.line(branch.id)) & (columns.sequence == 0))
    at = {int(columns.position[row]): int(row) for row in keep.tolist()}
    out = []
    for index in np.argsort(-np.abs(found.changes), kind="stable")[:most].tolist():
        position = int(found.positions[index])
        row, following = at.get(position), at.get(position + 1)
        out.append(
            {
                "token": None if row is None else view.first + row,
                "position": position,
                "text": "" if row is None else view.text(int(columns.token_id[row])),
                "followed_by": "" if following is None else view.text(int(columns.token_id[following])),
                "change": float(found.changes[index]),
            }
        )
    return out


def _lines(data: dict[str, Any]) -> list[RenderableType]:
    head = Text.assemble((f"E{data['expert']}", "bold"), text(f" at {data['site']}: {_uses(data)} in "))
    head.append_text(text(data["branch"]))
    if data["uses"] > data["measured"]:
        head.append(" (the last token has none after it)")
    if not data["measured"]:
        return [head, text("it got no token that another followed: nothing to measure", "dim")]
    head.append(f"; without it the next token is {likelier(data['mean'], data['error'])}")
    rows = [
        (
            "" if item["token"] is None else str(item["token"]),
            token_text(item["text"], "bold"),
            token_text(item["followed_by"]),
            f"{item['change']:+.3f}",
        )
        for item in data["tokens"]
    ]
    heads = ("#", "token", "followed by", "nats without it")
    return [head, table(heads, rows, left=("token", "followed by")), text(data["note"], "dim")]


def _uses(data: dict[str, Any]) -> str:
    """How many uses there were, and of how many of them the numbers are, where that is not all."""
    uses, measured = data["uses"], data["measured"]
    return f"{uses:,} uses" if uses == measured else f"{measured:,} of {uses:,} uses"
