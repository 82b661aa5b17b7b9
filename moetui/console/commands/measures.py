"""Commands that measure the routing: balance, dead experts, entropy, the whole of the statistics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import bar, number, pairs, percent, spark, table, text
from moetui.console.kinds import InBranch, Last
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.console.window import gather
from moetui.routing import Phase, UsageError, join_texts
from moetui.routing.diagnostics import DIAGNOSTICS, diagnose
from moetui.routing.events import Finding
from moetui.routing.metrics import (
    by_site,
    coefficient_of_variation,
    jain_fairness,
    load_imbalance,
    max_share,
    max_violation,
    site_entropy,
)
from moetui.routing.metrics import dead_experts as find_dead
from moetui.routing.stats import dead_text, stats_of
from moetui.session import Writing

GROUP = "measures"
_SHOWN = ("load_imbalance", "fairness_index", "coefficient_of_variation", "max_violation", "average_entropy")


@command(GROUP)
def stats(console: Context, *, branch: InBranch = None, last: Last = None) -> Result:
    """All the numbers of 'moetui stats', of the tokens held.

    Examples:
        stats
        stats --last 64 --json
        moe.stats()["fairness_index"]
    """
    window = console.window(last)
    totals = console.totals(window, branch)
    columns = window.tokens(window.first, window.end)
    looked_at = console.rows(window, branch)
    keep = looked_at & (columns.token_id >= 0)
    steps = window.steps()
    within = np.clip(steps.first_token - window.first, 0, max(0, looked_at.size - 1))
    steps = type(steps)(**{name: getattr(steps, name)[looked_at[within]] for name in steps.__slots__})
    seen = set(columns.branch[looked_at].tolist())
    own, session = columns.branch[keep], console.session
    last_text = session.last_text(int(own[-1])) if own.size and isinstance(session, Writing) else ""
    prompts = [item.prompt for item in console.tree.every if item.id in seen]
    data = stats_of(
        totals,
        steps,
        console.info,
        prompt=prompts[0] if prompts else "",
        text=join_texts([*(window.text(token) for token in columns.token_id[keep].tolist()), last_text]),
        interventions=console.session.interventions,
        findings=console.session.findings,
    )
    rows = [("tokens", f"{data['tokens']:,} in {data['steps']:,} steps")]
    rows += [(name.replace("_", " "), number(data[name], 3)) for name in _SHOWN]
    rows.append(("experts a token", number(data["avg_experts_per_token"])))
    rows.append(("dead experts", dead_text(data)))
    decoded = "decode " if (steps.phase == Phase.DECODE).any() else ""
    rows.append((f"{decoded}tokens a second", number(data["tokens_per_second"], 1)))
    found = [Finding(**item) for item in data["findings"]]
    return Result((pairs(rows), *_finding_lines(found)), data)


@command(GROUP)
def balance(console: Context, *, branch: InBranch = None, last: Last = None) -> Result:
    """How evenly each router spreads its tokens.

    Fairness is Jain's index (1 is even), CV the loads' standard deviation over their mean, MaxVio the busiest expert's
    excess over the mean.

    Examples:
        balance
        balance --last 64
    """
    window = console.window(last)
    totals = console.totals(window, branch, entropy=False)
    load = by_site(totals.loads, totals.sites)
    fair, cv, peak, excess, share = (
        measure(load) for measure in (jain_fairness, coefficient_of_variation, load_imbalance, max_violation, max_share)
    )
    rows, data = [], []
    for row, site in enumerate(totals.sites):
        own = totals.loads[row, : site.num_experts]
        busiest = int(own.argmax()) if own.any() else None
        rows.append(
            (
                text(site.name),
                f"{int(totals.routed[row]):,}",
                number(fair[row]),
                number(cv[row]),
                number(peak[row]),
                number(excess[row]),
                "" if busiest is None else f"E{busiest} {percent(share[row])}",
                bar(float(fair[row]), ascii_only=console.ascii),
            )
        )
        data.append(
            {
                "site": site.name,
                "layer": site.layer,
                "tokens": int(totals.routed[row]),
                "fairness_index": _known(fair[row]),
                "coefficient_of_variation": _known(cv[row]),
                "load_imbalance": _known(peak[row]),
                "max_violation": _known(excess[row]),
                "busiest": busiest,
                "loads": own.tolist(),
            }
        )
    heads = ("site", "tokens", "fairness", "CV", "max/mean", "MaxVio", "busiest", "even")
    return Result((table(heads, rows, left=("site", "even")),), data)


@command(GROUP)
def dead_experts(console: Context, *, branch: InBranch = None, last: Last = None) -> Result:
    """Experts that no token was sent to, and whether enough tokens were seen to call them dead.

    Examples:
        dead_experts
    """
    window = console.window(last)
    totals = console.totals(window, branch, entropy=False)
    found = find_dead(totals.loads, totals.routed, totals.sites)
    if not found:
        seen = f"every expert got a token ({int(totals.tokens.sum()):,} tokens)"
        return Result((text(seen),), [])
    rows, data = [], []
    for dead in found:
        site = totals.sites[dead.site]
        enough = "dead" if dead.enough else f"too few tokens to tell: {dead.tokens:,} of {dead.needed:,}"
        listed = ", ".join(map(str, dead.experts[:24])) + (" …" if len(dead.experts) > 24 else "")
        rows.append((text(site.name), f"{len(dead.experts)} of {site.num_experts}", text(listed), text(enough)))
        data.append(
            {
                "site": site.name,
                "layer": site.layer,
                "experts": list(dead.experts),
                "tokens": dead.tokens,
                "tokens_needed": dead.needed,
                "enough": dead.enough,
            }
        )
    return Result((table(("site", "unused", "experts", ""), rows, left=("site", "experts", "")),), data)


@command(GROUP)
def entropy(console: Context, *, branch: InBranch = None, last: Last = None) -> Result:
    """Entropy of each router's full distribution, in nats: mean, spread, and its course over the tokens.

    Examples:
        entropy --last 64
    """
    window = console.window(last)
    keep = console.rows(window, branch)
    values = _entropies(window, keep)
    if np.isnan(values).all():
        raise UsageError("entropies are unknown: no router logits were kept", "run with --logits")
    rows, data = [], []
    for site in window.sites:
        own = values[:, site.index]
        known = own[~np.isnan(own)]
        most = math.log(site.num_classes)
        mean = float(known.mean(dtype=np.float64)) if known.size else float("nan")
        low, high = (float(known.min()), float(known.max())) if known.size else (float("nan"),) * 2
        rows.append(
            (
                text(site.name),
                number(mean),
                number(low),
                number(high),
                number(most),
                spark(_course(own), ascii_only=console.ascii),
            )
        )
        data.append({"site": site.name, "mean": _known(mean), "min": _known(low), "max": _known(high), "most": most})
    shown = table(("site", "mean", "min", "max", "most", "course"), rows, left=("site", "course"))
    return Result((shown,), data)


@command(GROUP)
def findings(console: Context, *, branch: InBranch = None, last: Last = None) -> Result:
    """What the diagnostics make of the tokens held: dead experts, collapse, imbalance, NaN, and what to do.

    Examples:
        findings
    """
    window = console.window(last)
    totals = console.totals(window, branch)
    found = diagnose(totals)
    found += [finding for finding in console.session.findings if finding.kind not in DIAGNOSTICS]
    data = [{name: getattr(item, name) for name in Finding.__slots__} for item in found]
    if not found:
        return Result((text(f"nothing found in {int(totals.tokens.sum()):,} tokens"),), data)
    return Result(tuple(_finding_lines(found)), data)


def _finding_lines(found: list[Finding]) -> list[RenderableType]:
    out = Table.grid(padding=(0, 1, 0, 0))
    colours = {"error": "bold red", "warning": "yellow", "info": "dim"}
    for finding in found:
        out.add_row(text(finding.severity, colours.get(finding.severity, "")), text(finding.message))
        if finding.suggestion:
            out.add_row(Text(""), text(finding.suggestion, "dim"))
    return [out] if found else []


def _entropies(window: Any, keep: Any) -> Any:
    """``[n, S]`` of the tokens kept, read in pieces."""
    return gather(window, keep, lambda block: site_entropy(block.logits, window.sites, block.indices.shape[0]))


def _course(values: Any, points: int = 24) -> list[float]:
    """Means of ``points`` stretches of equal length."""
    parts = np.array_split(values, min(points, max(1, values.size)))
    return [float(part[~np.isnan(part)].mean()) if (~np.isnan(part)).any() else float("nan") for part in parts]


def _known(value: Any) -> float | None:
    return float(value) if math.isfinite(float(value)) else None
