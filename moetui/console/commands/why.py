"""Why a token went where it went."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from moetui.console.choices import choices
from moetui.console.context import Context
from moetui.console.draw import bar, number, percent, table, text, token_text
from moetui.console.kinds import MaybePlace, MaybeSite, Rows
from moetui.console.occurrences import find_text
from moetui.console.plain import plain
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import MoetuiError, Site, SiteFlag, TimelineView, UsageError
from moetui.routing.metrics import NEAR_TIE, probabilities, selection_scores, site_entropy, site_margin
from moetui.session import Analysing

GROUP = "tokens"
_PARTS = 6
_LISTED = 32  # experts of a distribution


@command(GROUP)
def why(console: Context, token: MaybePlace = None, *, site: MaybeSite = None, rows: Rows = 3) -> Result:
    """Why a token went to its experts: what the router made of each, who was next, and how narrow it was.

    Where the run stands within a step, and no token is named: of that step's last token, as far as it has come.
    With --site the whole distribution there; live, also which parts of the residual stream pushed each chosen
    expert above the first runner-up, the last chosen first.
    Where a bias or a group limit takes part in the choice, the margin and who was next are by the scores that choose.

    Args:
        token: its number, or its text (the newest occurrence); the one that a breakpoint stopped at, or the newest.
        rows: runners-up to show.

    Examples:
        why
        why 31
        why garden --site L2
    """
    view = console.view
    underway = console.underway if token is None else None
    if underway is not None:
        view, number_ = underway.view, underway.view.end - 1
    else:
        number_ = console.place if token is None else token if isinstance(token, int) else _newest(console, view, token)
    columns = view.tokens(number_, number_ + 1)
    if columns.pad[0]:
        raise UsageError(
            f"token: {number_} is padding, or of a branch that was deleted", "'tokens' lists those that there are"
        )
    name = view.text(int(columns.token_id[0]))
    told = number_ if underway is None else underway.first + number_
    before = None if underway is None else view.sites[underway.site].name
    head = Text.assemble(f"token {told}  ", token_text(name, "bold"), f"  position {int(columns.position[0])}")
    if before is not None:
        head.append(f"  under way, before {before}")
    data = [_choice(view, number_, item, rows) for item in view.sites if site is None or item.index == site.index]
    data = [item for item in data if item["experts"] or item["dropped"]]
    if not data:
        if before is not None:
            raise UsageError(f"site: token {told} has not come there yet", f"it stands before {before}")
        raise UsageError(f"token: {number_} passed no router there", "'layers' lists the routers")
    shown: list[RenderableType] = [head]
    if site is None:
        shown.append(_overview(data, console.ascii))
    else:
        shown += [
            *_distribution(view, number_, site, data[0], console.ascii),
            *_decomposed(console, view, number_, site, data[0]),
        ]
    if any(item["forced"] for item in data):
        own = "H, margin and probabilities" if site is None else "logits and probabilities"
        shown.insert(2, text(f"forced: {own} are the router's own, not of what ran", "dim"))
    return Result(tuple(shown), plain({"token": told, "text": name, "before": before, "sites": data}))


def _newest(console: Context, view: TimelineView, needle: str) -> int:
    found = find_text(view, needle, console.rows(view))
    if not found:
        raise UsageError(f"token: no token reads {needle!r}", 'find token:"..." looks for parts of tokens')
    return int(found[-1].tokens[-1])


def _choice(view: TimelineView, token: int, site: Site, most: int) -> dict[str, Any]:
    block = view.routing(token, token + 1)
    chosen, weights = choices(
        block.indices[0, site.index], None if block.weights is None else block.weights[0, site.index]
    )
    flags = int(block.flags[0, site.index])
    share = None
    if block.logits is not None:
        share = probabilities(block.logits[0, site.index][None], site)[0]
    order = [] if share is None or np.isnan(share).any() else np.argsort(-share, kind="stable").tolist()
    left_out: list[int] = []
    if block.logits is not None and not site.plain_choice:
        scores, out = selection_scores(block.logits[0, site.index], site)
        left_out = np.flatnonzero(out).tolist()
        order = [] if np.isnan(scores).any() else np.argsort(-scores, kind="stable").tolist()
    next_ = [expert for expert in order if expert not in chosen and expert not in left_out][:most]
    return {
        "site": site.name,
        "experts": chosen,
        "weights": weights,
        "probabilities": None if share is None else [float(share[expert]) for expert in chosen if expert < share.size],
        "runners_up": [
            {"expert": expert, "probability": float(share[expert])} for expert in next_ if share is not None
        ],
        "left_out": left_out,
        "entropy": float(site_entropy(block.logits, view.sites, 1)[0, site.index]),
        "margin": float(site_margin(block.logits, view.sites, 1)[0, site.index]),
        "forced": bool(flags & SiteFlag.FORCED),
        "dropped": bool(flags & SiteFlag.DROPPED),
    }


def _overview(data: list[dict[str, Any]], ascii_only: bool) -> RenderableType:
    rows = []
    for item in data:
        weights = item["weights"] or [float("nan")] * len(item["experts"])
        experts = "  ".join(f"E{expert} {number(weight)}" for expert, weight in zip(item["experts"], weights))
        runners = "  ".join(f"E{other['expert']} {percent(other['probability'])}" for other in item["runners_up"])
        marks = [word for word in ("forced", "dropped") if item[word]]
        if item["margin"] < NEAR_TIE and not item["forced"]:
            marks.append("near tie")
        first = max((weight for weight in weights if weight == weight), default=float("nan"))
        rows.append(
            (
                text(item["site"]),
                text(experts or "none"),
                bar(first, 6, ascii_only=ascii_only),
                text(runners),
                number(item["entropy"]),
                number(item["margin"]),
                text(", ".join(marks)),
            )
        )
    heads = ("site", "experts, weights", "", "next, probability", "H", "margin", " ")
    lists = ("experts, weights", "next, probability", " ")
    return table(heads, rows, left=("site", "", *lists), lists=lists)


def _distribution(
    view: TimelineView, token: int, site: Site, choice: dict[str, Any], ascii_only: bool
) -> list[RenderableType]:
    """The experts in the order in which the router takes them, where that is known; else by their logits."""
    logits = view.routing(token, token + 1).logits
    if logits is None:
        return [text("the router's logits were not kept: only the choice is known", "dim")]
    own = logits[0, site.index, : site.num_classes].astype(float)
    share = probabilities(logits[0, site.index][None], site)[0]
    scores = None if site.plain_choice else selection_scores(logits[0, site.index], site)[0]
    by = own if scores is None or np.isnan(scores).any() else scores
    order = np.argsort(-by, kind="stable").tolist()
    rows = []
    for expert in [*order[:_LISTED], *(each for each in order[_LISTED:] if each in choice["experts"])]:
        place = choice["experts"].index(expert) if expert in choice["experts"] else None
        weight = "" if place is None or choice["weights"] is None else number(choice["weights"][place])
        what = "skip" if expert >= site.num_experts else "group left out" if expert in choice["left_out"] else ""
        bar_ = bar(float(share[expert]), 16, ascii_only=ascii_only)
        chooses = () if scores is None else (number(scores[expert]),)
        which = what if place is None else "chosen"
        rows.append((f"E{expert}", number(own[expert]), percent(share[expert], 1), bar_, *chooses, weight, which))
    chooses = () if scores is None else ("score",)
    heads = ("expert", site.logits_form, "probability", "", *chooses, "weight", " ")
    known = table(heads, rows, left=("expert", "", " "))
    if by is own and scores is not None and not np.isnan(own).any():
        return [text("by which scores this router chooses is not known", "dim"), known]
    return [known]


def _decomposed(
    console: Context, view: TimelineView, token: int, site: Site, choice: dict[str, Any]
) -> list[RenderableType]:
    """What pushed each chosen expert above the first runner-up, where the session can tell; the last chosen first."""
    session = console.session
    if not isinstance(session, Analysing) or "router_decomposition" not in session.analyses:
        return []
    if not choice["experts"] or not choice["runners_up"]:
        return []
    columns = view.tokens(token, token + 1)
    try:
        found = console.result(
            session.analyze(
                "router_decomposition",
                branch=int(columns.branch[0]),
                sequence=int(columns.sequence[0]),
                position=int(columns.position[0]),
                site=site.index,
            )
        )
    except MoetuiError as error:  # the choice itself is known all the same
        return [text(error.message, "dim")]
    chosen, other = choice["experts"][::-1], choice["runners_up"][0]["expert"]
    push = found.contributions[:, chosen] - found.contributions[:, [other]]
    order = np.argsort(-np.abs(push[:, 0]), kind="stable")[:_PARTS]
    rows = [(text(found.parts[row]), *(number(value, 3) for value in push[row].tolist())) for row in order.tolist()]
    return [table(("part", *(f"E{expert} over E{other}" for expert in chosen)), rows, left=("part",))]
