"""What a token does to the routing and to the output."""

from __future__ import annotations

import math
from typing import Annotated, Any

from rich.console import RenderableType
from rich.text import Text

from moetui.console.choices import choices
from moetui.console.context import Context
from moetui.console.draw import likelier, number, percent, quoted, table, text, token_text
from moetui.console.kinds import TEXT, Flag, InBranch, Place, Rows
from moetui.console.needs import ANALYZE
from moetui.console.occurrences import Occurrence, find_text
from moetui.console.plain import plain
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import TimelineView, UsageError
from moetui.routing.events import RunState
from moetui.session import Analysing
from moetui.session.analyses import TokenImpact

GROUP = "tokens"
ANALYSIS = "token_impact"


@command(GROUP)
def analyze_token_impact(
    console: Context,
    token: Place,
    *,
    replacement: Annotated[str | None, TEXT] = None,
    branch: InBranch = None,
    rows: Rows = 4,
    routing_only: Flag = False,
) -> Result:
    """Where a token's every occurrence is routed; live, also what happens to routing and output when it is replaced.

    The replacement is leave-one-out: one more forward pass over the sequence with another token in its place, the rest
    as it was. Weights are those with which the experts' outputs were summed.

    Args:
        token: its number, or its text: every occurrence.
        replacement: text to put in its place; a neutral token of the tokenizer if left out.
        rows: the most occurrences to show and to replace; the newest.
        routing_only: do not run the model.

    Examples:
        analyze_token_impact garden
        moe.analyze_token_impact("artificial", replacement=" human")
    """
    view = console.view
    found = _occurrences(view, token, console.rows(view, branch))
    if not found:
        known = {view.text(number).strip() for number in view.tokens(view.first, view.end).token_id.tolist()}
        near = sorted(word for word in known if word and str(token).lower() in word.lower())[:4]
        raise UsageError(
            f"token: no token reads {str(token)!r}", f"there is {', '.join(near)}" if near else "'tokens' lists them"
        )
    shown: list[RenderableType] = []
    data: list[dict[str, Any]] = []
    can = _can_replace(console)
    for place in found[-rows:]:
        drawn, plain_ = _routed(view, place)
        shown += drawn
        if can and not routing_only:
            impact = _replaced(console, place, replacement)
            shown += _impact_lines(view, impact)
            plain_["impact"] = _impact_data(view, impact)
        data.append(plain_)
    if len(found) > rows:
        shown.append(text(f"{len(found)} occurrences, the newest {rows} shown", "dim"))
    if not can and not routing_only:
        shown.append(text(_why_not(console), "dim"))
    return Result(tuple(shown), plain(data))


def _occurrences(view: TimelineView, token: int | str, keep: Any) -> list[Occurrence]:
    if isinstance(token, str):
        return find_text(view, token, keep)
    columns = view.tokens(token, token + 1)
    where = (int(columns.branch[0]), int(columns.sequence[0]))
    return [Occurrence((token,), *where, (int(columns.position[0]),))]


def _routed(view: TimelineView, place: Occurrence) -> tuple[list[RenderableType], dict[str, Any]]:
    """Experts and weights at each layer, one line each; of several tokens the last one speaks, as it saw the others."""
    token = place.tokens[-1]
    columns, block = view.tokens(token, token + 1), view.routing(token, token + 1)
    name = "".join(view.text(int(view.tokens(row, row + 1).token_id[0])) for row in place.tokens)
    shown: list[RenderableType] = []
    sites: list[dict[str, Any]] = []
    for site in view.sites:
        own = None if block.weights is None else block.weights[0, site.index]
        experts, weights = choices(block.indices[0, site.index], own)
        if not experts:
            continue
        listed = "unknown" if weights is None else "[" + ", ".join(number(weight) for weight in weights) + "]"
        if not sites:
            quoted = Text.assemble('Token "', token_text(name.strip() or name, "bold"), '"')
            routes = f" routes to experts: {experts} with weights {listed}"
            shown.append(Text.assemble(quoted, routes, text(f"   {site.name}, token {token}", "dim")))
        else:
            shown.append(Text.assemble(text(f"  {site.name:<6}", "dim"), f" {experts} with weights {listed}"))
        sites.append({"site": site.name, "experts": experts, "weights": weights})
    if not sites:
        shown.append(text(f"token {token} passed no router"))
    position = int(columns.position[0])
    return shown, {"token": token, "text": name, "position": position, "branch": place.branch, "sites": sites}


def _can_replace(console: Context) -> bool:
    session = console.session
    if ANALYZE.missing(session) or not isinstance(session, Analysing) or ANALYSIS not in session.analyses:
        return False
    return session.state not in (RunState.LOADING, RunState.RUNNING)


def _why_not(console: Context) -> str:
    if console.session.state is RunState.RUNNING:
        return "what replacing it would change is told when the run is paused or over"
    reason = ANALYZE.missing(console.session) or "this session has no such analysis"
    return f"what replacing it would change is not known here: {reason}"


def _replaced(console: Context, place: Occurrence, replacement: str | None) -> TokenImpact:
    assert isinstance(console.session, Analysing)
    found = console.result(
        console.session.analyze(
            ANALYSIS,
            branch=place.branch,
            sequence=place.sequence,
            positions=list(place.positions),
            replacement=replacement,
        )
    )
    assert isinstance(found, TokenImpact)
    return found


def _impact_lines(view: TimelineView, impact: TokenImpact) -> list[RenderableType]:
    head = Text.assemble("  replaced by ", quoted(impact.replacement, "bold"), ":")
    head.append(f" next token KL {number(impact.divergence, 3)} nats")
    if not math.isnan(impact.logprob):
        head.append(f", later tokens {likelier(impact.logprob)}")
    rows = []
    for site in view.sites:
        experts, known = choices(impact.indices[-1, site.index], impact.weights[-1, site.index])
        if experts:
            weights = ", ".join(number(weight) for weight in known or ())
            changed = percent(float(impact.changed[site.index]))
            rows.append((text("  " + site.name), text(str(experts)), text(f"[{weights}]"), changed))
    heads = ("", "now to", "weights", "later tokens rerouted")
    before, after = (
        Text("  ").join(Text.assemble(quoted(token), f" {percent(share)}") for token, share in listed[:4])
        for listed in (impact.before, impact.after)
    )
    next_ = Text.assemble("  next ", before, "  →  ", after)
    return [head, table(heads, rows, left=("", "now to", "weights")), next_]


def _impact_data(view: TimelineView, impact: TokenImpact) -> dict[str, Any]:
    return {
        "replacement": impact.replacement,
        "divergence": impact.divergence,
        "logprob": impact.logprob,
        "before": [list(item) for item in impact.before],
        "after": [list(item) for item in impact.after],
        "sites": [
            {
                "site": site.name,
                "experts": choices(impact.indices[-1, site.index], impact.weights[-1, site.index])[0],
                "changed": float(impact.changed[site.index]),
            }
            for site in view.sites
        ],
    }
