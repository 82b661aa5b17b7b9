"""The numbers of a run for scripts: what ``moetui stats --json`` prints and ``get_routing_stats`` returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moetui.routing.diagnostics import DIAGNOSTICS, Diagnostic, diagnose
from moetui.routing.events import Finding
from moetui.routing.interventions import Intervention, as_dict
from moetui.routing.metrics.loads import (
    by_site,
    coefficient_of_variation,
    dead_experts,
    dead_pairs,
    jain_fairness,
    load_imbalance,
    max_violation,
)
from moetui.routing.model import ModelInfo
from moetui.routing.phase import Phase
from moetui.routing.step import F64
from moetui.routing.timeline import StepColumns, TimelineView
from moetui.routing.totals import RoutingTotals


@dataclass(frozen=True, slots=True)
class SiteStats:
    """One site's numbers; None where unknown."""

    site: str
    layer: int
    loads: list[int]
    gate_mass: list[float | None] | None
    fairness_index: float | None
    entropy: float | None


@dataclass(frozen=True, slots=True)
class RoutingStats:
    """The document of ``stats --json``; the fields and their order are its keys. None where unknown."""

    model: str
    architecture: str
    prompt: str
    text: str
    tokens: int
    steps: int
    sites: int
    num_experts: int
    top_k: int
    ids_only: bool
    load_imbalance: float | None
    fairness_index: float | None
    coefficient_of_variation: float | None
    max_violation: float | None
    average_entropy: float | None
    avg_experts_per_token: float | None
    dead_experts: list[list[int]]
    tokens_per_second: float | None
    per_site: list[SiteStats]
    findings: list[Finding]
    interventions: list[dict[str, Any]]
    complete: bool


def compute_stats(
    view: TimelineView,
    info: ModelInfo,
    *,
    prompt: str = "",
    text: str = "",
    interventions: Sequence[Intervention] = (),
    findings: Sequence[Finding] = (),
    complete: bool = True,
    diagnostics: Mapping[str, Diagnostic] | None = None,
) -> dict[str, Any]:
    """The document of ``stats --json``, plain JSON values only; reads the view in chunks.

    Each measure is taken at each site over the tokens that the site routed, then averaged over the sites that routed
    any; an encoder's site counts the encoder's tokens. Padding is left out of everything. ``tokens`` counts the
    positions of all stacks. ``average_entropy`` is null when no site's entropy is known. ``dead_experts`` lists a
    pair once for experts with load 0 at *any* site of that layer that routed tokens (two sites can share a layer, and
    an encoder's layers are numbered like a decoder's; ``per_site`` tells them apart); with few tokens this says
    little, and a finding says so. ``gate_mass`` is null where no weight is known. ``tokens_per_second`` is of the
    decode steps, of all steps when there are none.

    Args:
        view: the tokens; those that left a bounded timeline are not counted.
        info: the model, with ``info.sites`` the view's sites.
        prompt: goes in as it is, like ``text``: of all tokens, as a person would read them.
        text: see ``prompt``.
        interventions: those that were in force.
        findings: what else was found. Findings of the built-in kinds are left out: they are made anew over all tokens.
        complete: whether the recording has its end.
        diagnostics: more of them by name.
    """
    totals = RoutingTotals(info.sites)
    totals.update(view)
    return stats_of(
        totals,
        view.steps(),
        info,
        prompt=prompt,
        text=text,
        interventions=interventions,
        findings=findings,
        complete=complete,
        diagnostics=diagnostics,
    )


def stats_of(
    totals: RoutingTotals,
    steps: StepColumns,
    info: ModelInfo,
    *,
    prompt: str = "",
    text: str = "",
    interventions: Sequence[Intervention] = (),
    findings: Sequence[Finding] = (),
    complete: bool = True,
    diagnostics: Mapping[str, Diagnostic] | None = None,
) -> dict[str, Any]:
    """``compute_stats`` from totals that were counted before; arguments and result as there."""
    load = by_site(totals.loads, info.sites)
    with np.errstate(all="ignore"):
        experts = np.where(totals.routed > 0, totals.experts / np.maximum(totals.routed, 1), np.nan)
    dead = dead_experts(totals.loads, totals.routed, totals.sites)
    stats = RoutingStats(
        model=info.name,
        architecture=info.architecture,
        prompt=prompt,
        text=text,
        tokens=int(totals.tokens.sum()),
        steps=int(steps.index.shape[0]),
        sites=len(info.sites),
        num_experts=info.num_experts,
        top_k=info.top_k,
        ids_only=bool(totals.routed.any()) and not totals.has_weights and not totals.has_logits,
        load_imbalance=_mean(load_imbalance(load)),
        fairness_index=_mean(jain_fairness(load)),
        coefficient_of_variation=_mean(coefficient_of_variation(load)),
        max_violation=_mean(max_violation(load)),
        average_entropy=_mean(totals.mean_entropy),
        avg_experts_per_token=_mean(experts),
        dead_experts=[list(pair) for pair in dead_pairs(dead, totals.sites)],
        tokens_per_second=_rate(totals, steps),
        per_site=_per_site(totals, load),
        findings=[
            *diagnose(totals, extra=diagnostics),
            *(finding for finding in findings if finding.kind not in DIAGNOSTICS),
        ],
        interventions=[as_dict(intervention) for intervention in interventions],
        complete=complete,
    )
    return asdict(stats)


def _per_site(totals: RoutingTotals, load: F64) -> list[SiteStats]:
    fairness, entropy, mass = jain_fairness(load), totals.mean_entropy, totals.gate_mass
    out = []
    for row, site in enumerate(totals.sites):
        own = [_number(value) for value in mass[row, : site.num_experts].tolist()]
        unknown = totals.experts[row] > 0 and np.isnan(mass[row, totals.loads[row] > 0]).all()
        out.append(
            SiteStats(
                site=site.name,
                layer=site.layer,
                loads=totals.loads[row, : site.num_experts].tolist(),
                gate_mass=None if unknown else own,
                fairness_index=_number(float(fairness[row])),
                entropy=_number(float(entropy[row])),
            )
        )
    return out


def dead_text(stats: Mapping[str, Any]) -> str:
    """How many dead experts a document of ``stats --json`` counts, and whether it saw enough tokens to say so.

    ``–`` where no expert got a token that is known of.
    """
    if not any(any(site["loads"]) for site in stats["per_site"]):
        return "–"
    count = len(stats["dead_experts"])
    return f"{count}?  too few tokens to tell" if count and dead_unsure(stats) else str(count)


def dead_unsure(stats: Mapping[str, Any]) -> bool:
    """Whether a document of ``stats --json`` saw too few tokens somewhere to call its unused experts dead."""
    return any(each["kind"] == "dead_expert" and each["severity"] == "info" for each in stats["findings"])


def _rate(totals: RoutingTotals, steps: StepColumns) -> float | None:
    """Tokens a second of the decode steps, or of all; steps without a duration are left out, padding too."""
    decoding = steps.phase == Phase.DECODE
    chosen = decoding if decoding.any() else ~decoding
    counted = int(totals.tokens[Phase.DECODE] if decoding.any() else totals.tokens.sum())
    timed = chosen & (steps.duration > 0)
    rows = int(steps.num_tokens[chosen].sum())
    milliseconds = float(steps.duration[timed].sum(dtype=np.float64))
    if not rows or not milliseconds > 0:
        return None
    padless = counted / rows
    return _number(float(steps.num_tokens[timed].sum()) * padless / milliseconds * 1000)


def _mean(values: F64) -> float | None:
    known = values[~np.isnan(values)]
    return _number(float(known.mean(dtype=np.float64))) if known.size else None


def _number(value: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    return value if math.isfinite(value) else None
