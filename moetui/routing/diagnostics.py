"""What is wrong with a routing, in words: pure functions from totals to findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from moetui.routing.events import Finding, Severity
from moetui.routing.metrics.loads import (
    by_site,
    coefficient_of_variation,
    dead_experts,
    load_imbalance,
    tokens_needed,
)
from moetui.routing.model import Site
from moetui.routing.step import F64
from moetui.routing.totals import RoutingTotals

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a diagnostic speaks.

    Attributes:
        collapse_entropy: mean router entropy in nats; at sites of few experts a quarter of ln E where that is less.
        collapse_concentration: how far of the way from an even load (0) to all load on k experts (1); for gate mass,
            to all mass on one expert.
        imbalance_cv: coefficient of variation of the loads; at sites where most of the experts are chosen anyway
            ``imbalance_part`` of the largest that can be, √(E/k − 1), where that is less.
        dropped_share: share of a site's tokens that got no expert.
        entropy_tokens: tokens below which a mean entropy says nothing.
    """

    collapse_entropy: float = 0.5
    collapse_concentration: float = 0.8
    imbalance_cv: float = 1.0
    imbalance_part: float = 0.6
    dropped_share: float = 0.05
    entropy_tokens: int = 8


DEFAULTS = Thresholds()

Diagnostic: TypeAlias = Callable[[RoutingTotals, Thresholds], Iterable[Finding]]
"""A pure function; it yields a finding for each site it has something to say of, none for a healthy one."""


def diagnose(
    totals: RoutingTotals, thresholds: Thresholds = DEFAULTS, extra: Mapping[str, Diagnostic] | None = None
) -> list[Finding]:
    """All findings on ``totals``, the gravest first, then in the order of ``DIAGNOSTICS`` and of the sites.

    Args:
        totals: what was counted, from one token to a whole recording.
        thresholds: from where on to speak.
        extra: more diagnostics by name, after the built-in ones; of one that breaks a finding says so.
    """
    found: list[Finding] = []
    for diagnostic in DIAGNOSTICS.values():
        found.extend(diagnostic(totals, thresholds))
    for name, diagnostic in (extra or {}).items():
        try:
            added = list(diagnostic(totals, thresholds))
            _gravest_first(added)
            found.extend(added)
        except Exception as error:  # noqa: BLE001 - foreign code, which is not to keep the others from being told
            message = f"diagnostic {name} does not work: {type(error).__name__}: {error}"
            found.append(Finding("diagnostic_failed", "warning", message, "it yields findings, or nothing"))
    return _gravest_first(found)


def _gravest_first(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))


def new_findings(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    """Those of ``after`` that say something new: another kind, another site, or a graver word than before."""
    known = {(finding.kind, finding.site): _SEVERITIES.index(finding.severity) for finding in reversed(before)}
    return [
        finding
        for finding in after
        if _SEVERITIES.index(finding.severity) < known.get((finding.kind, finding.site), len(_SEVERITIES))
    ]


def is_unsure(finding: Finding) -> bool:
    """Whether it only says that nothing can be said yet."""
    return finding.kind == "dead_expert" and finding.severity == "info"


def find_dead_experts(totals: RoutingTotals, _: Thresholds) -> Iterator[Finding]:
    """One finding for a site's unused experts; one for all sites of which too few tokens were seen."""
    unsure = []
    for dead in dead_experts(totals.loads, totals.routed, totals.sites):
        if not dead.enough:
            unsure.append(dead)
            continue
        site = totals.sites[dead.site]
        number = len(dead.experts)
        yield Finding(
            "dead_expert",
            "warning",
            f"{site.name}: {_experts(dead.experts)} got none of {dead.tokens:,} tokens{_moved(totals, dead.site)}",
            _LIFT
            if totals.forced[dead.site]
            else f"{number} of {site.num_experts} experts idle: try text of other kinds before pruning; in training,"
            " raise the load-balancing loss or the bias update rate",
            site.name,
        )
    if unsure:
        most = max(unsure, key=lambda dead: dead.needed)
        yield Finding(
            "dead_expert",
            "info",
            f"unused experts at {len(unsure)} of {len(totals.sites)} sites, but too few tokens to tell"
            f" ({most.tokens:,} of {most.needed:,})",
            f"Run at least {most.needed:,} tokens before calling an expert dead",
        )


def find_collapse(totals: RoutingTotals, thresholds: Thresholds) -> Iterator[Finding]:
    """Routers that are nearly certain whatever comes, or that send nearly everything to the same few experts."""
    entropy, mass = totals.mean_entropy, totals.gate_mass
    for row, site in enumerate(totals.sites):
        if site.num_experts < 2 or not totals.routed[row]:
            continue
        reasons = []
        most = math.log(site.num_classes)
        if (
            entropy[row] < min(thresholds.collapse_entropy, most / 4)
            and totals.routed[row] >= thresholds.entropy_tokens
        ):
            reasons.append(f"mean entropy {entropy[row]:.2f} of {most:.2f} nats")
        if totals.routed[row] >= tokens_needed(site):
            load = totals.loads[row, : site.num_experts].astype(np.float64)
            reasons += _concentrated(load, site.top_k, "load", thresholds)
            reasons += _concentrated(mass[row, : site.num_experts], 1, "gate mass", thresholds)
        if reasons:
            yield Finding(
                "router_collapse",
                "warning",
                f"{site.name}: {'; '.join(reasons)}, over {totals.routed[row]:,} tokens{_moved(totals, row)}",
                _LIFT if totals.forced[row] else _collapse_advice(reasons),
                site.name,
            )


def find_imbalance(totals: RoutingTotals, thresholds: Thresholds) -> Iterator[Finding]:
    """Sites whose loads vary more than ``imbalance_cv``."""
    load = by_site(totals.loads, totals.sites)
    cv, peak = coefficient_of_variation(load), load_imbalance(load)
    for row, site in enumerate(totals.sites):
        if totals.routed[row] < tokens_needed(site) or site.num_experts <= site.top_k:
            continue
        most = math.sqrt(site.num_experts / max(1, site.top_k) - 1)
        if cv[row] > min(thresholds.imbalance_cv, thresholds.imbalance_part * most):
            busiest = int(totals.loads[row].argmax())
            yield Finding(
                "load_imbalance",
                "warning",
                f"{site.name}: expert {busiest} has {peak[row]:.1f}× the mean load (CV {cv[row]:.2f})"
                f"{_moved(totals, row)}",
                _LIFT
                if totals.forced[row]
                else "Compare with text of another domain: a domain's favourite is no fault; for serving, replicate"
                f" expert {busiest}",
                site.name,
            )


def find_non_finite(totals: RoutingTotals, _: Thresholds) -> Iterator[Finding]:
    """Sites whose logits or weights held NaN or infinity."""
    rows = np.flatnonzero(totals.non_finite)
    for row in rows.tolist():
        first = row == rows[0]
        yield Finding(
            "non_finite",
            "error",
            f"{totals.sites[row].name}: NaN or infinity in the router at {totals.non_finite[row]:,} tokens",
            "Break on `nan or inf` and look at the inputs here first: run in float32 or bfloat16, check the weights"
            if first
            else f"Look at {totals.sites[rows[0]].name} first: later layers inherit it",
            totals.sites[row].name,
        )


OTHER_INPUT: Final = "give the model such input to see its routing"
"""What is suggested of a site that ``serves_other_input``."""


def serves_other_input(site: Site) -> bool:
    """Whether a site is for images or sound, so that text alone does not reach it."""
    return "vision" in site.name or "audio" in site.name


def find_silent_sites(totals: RoutingTotals, _: Thresholds) -> Iterator[Finding]:
    """Sites that routed no token although their stack had some."""
    for row, site in enumerate(totals.sites):
        tokens = totals.stack_tokens.get(site.stack, 0)
        if not tokens or totals.routed[row]:
            continue
        if serves_other_input(site):
            message = f"no token reached {site.name}: it serves images or sound"
            yield Finding("site_silent", "info", message, OTHER_INPUT, site.name)
        else:
            yield Finding(
                "site_silent",
                "warning",
                f"{site.name}: no routing seen in {tokens:,} tokens",
                "Its layer did not run, was not captured, or routes in a way not recognised: see `moetui models`",
                site.name,
            )


def find_dropped(totals: RoutingTotals, thresholds: Thresholds) -> Iterator[Finding]:
    """Sites that left more than ``dropped_share`` of their tokens without an expert."""
    for row, site in enumerate(totals.sites):
        if totals.dropped[row] > thresholds.dropped_share * totals.routed[row]:
            yield Finding(
                "dropped_tokens",
                "warning",
                f"{site.name}: {totals.dropped[row]:,} of {totals.routed[row]:,} tokens got no expert",
                "Raise the expert capacity, or lift the bans at this site",
                site.name,
            )


DIAGNOSTICS: Mapping[str, Diagnostic] = {
    "non_finite": find_non_finite,
    "site_silent": find_silent_sites,
    "router_collapse": find_collapse,
    "dead_expert": find_dead_experts,
    "load_imbalance": find_imbalance,
    "dropped_tokens": find_dropped,
}
"""The built-in diagnostics, by the kind of their findings."""


_LIFT = "Run without the interventions before judging the router: they had a hand in this"


def _moved(totals: RoutingTotals, row: int) -> str:
    """Says of a site's loads how many tokens' choice there an intervention changed; empty if none."""
    count = totals.forced[row]
    return f"; interventions moved {count:,} of {totals.routed[row]:,} tokens" if count else ""


def _concentrated(amount: F64, top: int, word: str, thresholds: Thresholds) -> list[str]:
    """Says so when the ``top`` largest of ``amount`` hold nearly all of it."""
    total = amount.sum()
    even = top / amount.size
    if not total > 0 or even >= 1:  # NaN included: unknown gate mass accuses nobody
        return []
    order = np.argsort(-amount, kind="stable")[:top]
    share = float(amount[order].sum() / total)
    if (share - even) / (1 - even) <= thresholds.collapse_concentration:
        return []
    return [f"{100 * share:.0f}% of the {word} on {_experts(tuple(sorted(order.tolist())))}"]


def _collapse_advice(reasons: Sequence[str]) -> str:
    if all(reason.startswith("mean entropy") for reason in reasons):
        return (
            "The loads are spread, so the router is sure rather than stuck: compare its logits' scale with earlier"
            " checkpoints, consider a router z-loss"
        )
    return "Compare with an earlier checkpoint (`moetui diff`); in training, raise the balancing loss or lower the rate"


def _experts(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"expert {numbers[0]}"
    listed = ", ".join(map(str, numbers[:_LISTED]))
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return f"experts {listed}{more}"
