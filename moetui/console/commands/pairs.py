"""Commands on what goes together: experts chosen together, one after the other, for the same tokens."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from moetui.console.context import Context
from moetui.console.draw import heat, number, percent, table, text
from moetui.console.kinds import InBranch, Last, OneSite, Rows, choice
from moetui.console.needs import ANALYZE
from moetui.console.plain import plain
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.console.window import EVERY, gather
from moetui.routing import RoutingBlock, Site, UsageError
from moetui.routing.metrics import coactivation as together_shares
from moetui.routing.metrics import previous_tokens, ranked, repetition_chance
from moetui.routing.metrics import repetition as repeated_shares
from moetui.session import Analysing

GROUP = "pairs"
_MAP_EXPERTS = 64  # experts up to which the whole matrix is drawn


@command(GROUP)
def coactivation(
    console: Context, site: OneSite, *, rows: Rows = 8, branch: InBranch = None, last: Last = None
) -> Result:
    """How often an expert is chosen where another is: N(i, j) / N(i), rows i, columns j.

    Args:
        rows: strongest pairs to list.

    Examples:
        coactivation L3
    """
    window = console.window(last)
    keep = console.rows(window, branch)
    chosen = gather(window, keep, lambda block: block.indices[:, site.index])
    matrix = together_shares(chosen, site.num_experts)
    np.fill_diagonal(matrix, np.nan)
    return _matrix(console, matrix, "j chosen where i is", rows, percent, site.name)


@command(GROUP)
def repetition(console: Context, *, branch: InBranch = None, last: Last = None) -> Result:
    """How often a token goes to the expert of the token before it, beside what chance would give.

    Args:
        last: only the newest tokens, so many.

    Examples:
        repetition
    """
    window = console.window(last)
    keep = console.rows(window, branch)
    columns = window.tokens(window.first, window.end)
    order = gather(window, np.ones_like(keep), lambda block: ranked(block.indices, block.weights))
    before = previous_tokens(columns)
    before[~keep] = -1
    first, either = repeated_shares(order, before), repeated_shares(order, before, depth=2)
    rows, data = [], []
    for site in window.sites:
        depth = min(2, max(1, site.top_k))
        chance, chance_2 = (repetition_chance(site.num_experts, each) for each in (1, depth))
        mine, mine_2 = float(first[site.index]), float(either[site.index])
        rows.append(
            (
                text(site.name),
                percent(mine, 1),
                percent(chance, 1),
                percent(mine_2, 1),
                percent(chance_2, 1),
            )
        )
        data.append(
            {"site": site.name, "first": mine, "chance": chance, "first_or_second": mine_2, "chance_2": chance_2}
        )
    heads = ("site", "first again", "chance", "first or second", "chance")
    return Result((table(heads, rows, left=("site",)),), plain(data))


@command(GROUP)
def similarity(
    console: Context,
    site: OneSite,
    *,
    by: Annotated[str, choice("logits", "weights", "outputs")] = "logits",
    rows: Rows = 8,
    branch: InBranch = None,
    last: Last = None,
) -> Result:
    """How alike a site's experts are.

    Args:
        by: logits: correlation of their router logits over the tokens. With a model also weights: cosine of their
            parameters; and outputs: mean cosine of what they make of the same tokens, those of one branch.
        rows: strongest pairs to list.

    Examples:
        similarity L3
        similarity L3 --by weights
        similarity L3 --by outputs --rows 4
    """
    if by != "logits":
        ANALYZE.require(console.session)
        assert isinstance(console.session, Analysing)
        asked: dict[str, Any] = {"site": site.index}
        if by == "outputs":
            own = console.standing if branch is None or branch is EVERY else branch
            asked |= {"by": by, "branch": own.id}
        found = console.result(console.session.analyze("expert_similarity", **asked))
        matrix, legend = np.array(found, np.float64), f"cosine of the experts' {by}"
    else:
        window = console.window(last)
        keep = console.rows(window, branch)
        logits = gather(window, keep, lambda block: _logits(block, site))
        if logits is None:
            raise UsageError("no router logits were kept", "run with --logits, or --by weights")
        matrix = _correlation(logits)
        legend = "correlation of the router logits"
    np.fill_diagonal(matrix, np.nan)
    return _matrix(console, matrix, legend, rows, number, site.name, symmetric=True)


def _logits(block: RoutingBlock, site: Site) -> NDArray[Any] | None:
    return None if block.logits is None else block.logits[:, site.index, : site.num_experts]


def _correlation(logits: NDArray[Any]) -> NDArray[np.float64]:
    """``[n, E]`` to ``[E, E]``, over the tokens whose logits are all finite; NaN where a column never changes."""
    values = np.asarray(logits, np.float64)
    values = values[np.isfinite(values).all(1)]
    if values.shape[0] < 2:
        raise UsageError("too few tokens passed there", "two at least")
    values = values - values.mean(0)
    norm = np.sqrt((values * values).sum(0))
    with np.errstate(all="ignore"):
        values = values / np.where(norm > 0, norm, np.nan)
        return np.asarray(values.T @ values, np.float64)


def _matrix(
    console: Context,
    matrix: NDArray[np.float64],
    legend: str,
    most: int,
    shown: Any,
    name: str,
    *,
    symmetric: bool = False,
) -> Result:
    values = np.where(np.isnan(matrix), -np.inf, matrix)
    if symmetric:
        values[np.tril_indices_from(values)] = -np.inf
    order = np.argsort(-values, axis=None, kind="stable")[:most]
    pairs = [(int(at) // matrix.shape[1], int(at) % matrix.shape[1]) for at in order if values.flat[at] > -np.inf]
    pairs = [(i, j) for i, j in pairs if matrix[i, j] > 0]
    drawn = []
    if matrix.shape[0] <= _MAP_EXPERTS:
        names = [f"E{i}" for i in range(matrix.shape[0])]
        top = max(1e-9, float(np.nanmax(matrix))) if not np.isnan(matrix).all() else 1.0
        drawn.append(heat(np.maximum(matrix, 0.0), names, top, ascii_only=console.ascii, legend=legend))
    rows = [(f"E{i}", f"E{j}", shown(matrix[i, j])) for i, j in pairs]
    drawn.append(table(("expert", "with", legend if not drawn else ""), rows, left=("expert", "with")))
    data = {
        "site": name,
        "matrix": plain(matrix),
        "pairs": [{"expert": i, "with": j, "value": float(matrix[i, j])} for i, j in pairs],
    }
    return Result(tuple(drawn), data)
