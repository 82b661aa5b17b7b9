"""Commands on experts and layers: who got how much, and which tokens."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import heat, number, pairs, percent, table, text, token_text
from moetui.console.kinds import EXPERT, InBranch, Last, Layers, OneSite, Rows, Sites
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.console.window import gather
from moetui.routing import RoutingBlock, Site, UsageError
from moetui.routing.metrics import coactivation, first_choices, jain_fairness

GROUP = "experts"
_LEAST_SEEN = 2  # a token met once says nothing of a preference


@command(GROUP)
def experts(
    console: Context,
    *,
    layers: Layers = None,
    sites: Sites = None,
    branch: InBranch = None,
    last: Last = None,
) -> Result:
    """A heatmap of the load: layers down, experts across, relative to a uniform load.

    Args:
        layers: layers to show; all if left out.
        sites: sites to show, by name; all if left out.

    Examples:
        experts
        experts --layers 2-4 --last 64
    """
    window = console.window(last)
    chosen = console.sites(layers, sites)
    totals = console.totals(window, branch, entropy=False)
    width = max(site.num_experts for site in chosen)
    values = np.full((len(chosen), width), np.nan)
    data, beside = [], []
    for row, site in enumerate(chosen):
        load = totals.loads[site.index, : site.num_experts]
        total = float(load.sum())
        if total:
            values[row, : site.num_experts] = load * site.num_experts / total
        fairness = float(jain_fairness(load))
        beside.append((f"{int(totals.routed[site.index]):,}", number(fairness)))
        data.append(
            {
                "site": site.name,
                "layer": site.layer,
                "tokens": int(totals.routed[site.index]),
                "loads": load.tolist(),
                "gate_mass": totals.gate_mass[site.index, : site.num_experts].tolist(),
            }
        )
    top = max(2.0, float(np.nanmax(values))) if not np.isnan(values).all() else 2.0
    legend = f"load, from none to {top:.1f}× uniform; then tokens, fairness"
    names = [site.name for site in chosen]
    shown = heat(values, names, top, ascii_only=console.ascii, legend=legend, beside=beside)
    return Result((shown,), _plain_masses(data))


@command(GROUP)
def expert(
    console: Context,
    site: OneSite,
    expert: Annotated[int, EXPERT],
    *,
    rows: Rows = 8,
    branch: InBranch = None,
    last: Last = None,
) -> Result:
    """One expert: its usage, its favourite tokens, and the experts chosen together with it.

    A favourite token is one of whose occurrences a large share was sent here; tokens met once are left out.

    Args:
        rows: favourite tokens to show.

    Examples:
        expert L3 5
        moe.expert("L3", 5)
    """
    if expert >= site.num_experts:
        raise UsageError(f"expert: {site.name} has no expert {expert}", f"experts 0 to {site.num_experts - 1} there")
    window = console.window(last)
    totals = console.totals(window, branch, entropy=False)
    keep = console.rows(window, branch)
    at = slice(site.index, site.index + 1)
    chosen = gather(window, keep, lambda block: block.indices[:, site.index])
    order = gather(window, keep, lambda block: first_choices(block.indices[:, at], _weights(block, at))[:, 0])
    here = (chosen == expert).any(1)
    routed = max(1, int(totals.routed[site.index]))
    load, mass = int(totals.loads[site.index, expert]), float(totals.gate_mass[site.index, expert])
    own_mass = totals.gate_mass[site.index, : site.num_experts]
    favourites = _favourites(window, keep, here, rows)
    together = coactivation(chosen, site.num_experts)[expert]
    together[expert] = np.nan
    partners = [
        (int(other), float(together[other]))
        for other in np.argsort(np.where(np.isnan(together), 0, -together), kind="stable")[:4]
        if together[other] > 0
    ]
    data: dict[str, Any] = {
        "site": site.name,
        "expert": expert,
        "tokens": load,
        "share": load / routed,
        "gate_mass": mass,
        "gate_mass_share": mass / float(np.nansum(own_mass)) if np.nansum(own_mass) > 0 else float("nan"),
        "first_share": float((order == expert).sum()) / routed,
        "favourite_tokens": [{"token": token, "share": share, "of": of} for token, share, of in favourites],
        "co_activated": [{"expert": other, "share": share} for other, share in partners],
    }
    return Result(_expert_lines(data, site), _plain_masses(data))


@command(GROUP)
def layers(console: Context) -> Result:
    """The routers of the model: experts, top-k, scoring rule, and how they are captured.

    Examples:
        layers
    """
    rows, data = [], []
    for site in console.info.sites:
        shared = f" + {site.shared_experts} shared" if site.shared_experts else ""
        rule = site.scoring + (", renormalised" if site.normalised else "")
        extra = [site.note] if site.note else []
        if site.groups > 1:
            extra.append(f"{site.groups} groups")
        if site.selection_bias:
            extra.append("selection bias")
        rows.append(
            (
                text(site.name),
                f"{site.num_experts}{shared}",
                str(site.top_k),
                text(rule),
                text(site.kind),
                text(", ".join(extra)),
            )
        )
        data.append({name: getattr(site, name) for name in Site.__slots__})
    heads = ("site", "experts", "top-k", "scoring", "kind", "")
    return Result((table(heads, rows, left=("site", "scoring", "kind", "")),), data)


def _weights(block: RoutingBlock, sites: slice) -> Any:
    return None if block.weights is None else block.weights[:, sites]


def _favourites(window: Any, keep: Any, here: Any, most: int) -> list[tuple[str, float, int]]:
    """Texts by the share of their occurrences that came here, and how often they occurred."""
    ids = window.tokens(window.first, window.end).token_id[keep]
    known = ids >= 0
    unique, rows = np.unique(ids[known], return_inverse=True)
    if not unique.size:
        return []
    count = np.bincount(rows.ravel(), minlength=unique.size)
    came = np.bincount(rows.ravel(), weights=here[known].astype(np.float64), minlength=unique.size)
    share = np.where(count >= _LEAST_SEEN, came / np.maximum(count, 1), 0.0)
    order = np.lexsort((-count, -share))[:most]
    return [(window.text(int(unique[row])), float(share[row]), int(count[row])) for row in order if share[row] > 0]


def _expert_lines(data: dict[str, Any], site: Site) -> tuple[RenderableType, ...]:
    usage = Text.assemble(
        f"{percent(data['share'], 1)} of the tokens ({data['tokens']:,}), ",
        f"{data['share'] * site.num_experts / max(1, site.top_k):.1f}× uniform",
    )
    mass = f"{percent(data['gate_mass_share'], 1)} of the gate mass, first choice of {percent(data['first_share'], 1)}"
    favourites = Text("  ").join(
        Text.assemble(token_text(item["token"], "bold"), f" {percent(item['share'])} of {item['of']}")
        for item in data["favourite_tokens"]
    )
    partners = "  ".join(f"E{item['expert']} {percent(item['share'])}" for item in data["co_activated"])
    head = text(f"{site.name} · expert {data['expert']}", "bold")
    return head, pairs(
        [
            ("usage", usage),
            ("weights", text(mass)),
            ("favourite tokens", favourites if data["favourite_tokens"] else Text("none met twice")),
            ("co-activated", text(partners or "none")),
        ]
    )


def _plain_masses(data: Any) -> Any:
    """NaN, which JSON has not, becomes None."""
    if isinstance(data, dict):
        return {name: _plain_masses(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_plain_masses(value) for value in data]
    return None if isinstance(data, float) and data != data else data
