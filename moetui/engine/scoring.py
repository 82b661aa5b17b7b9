"""Finds out from numbers alone how a router's logits become gate weights, and what its logits are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from moetui.routing.model import LogitsForm, Scoring, Site

MIN_TOKENS = 3
"""Fewer tokens prove nothing."""

# Largest deviation from a rule, relative to the token's largest weight, that rounding explains.
_TOLERANCE = {torch.float64: 2e-3, torch.float32: 2e-3, torch.float16: 4e-3, torch.bfloat16: 1.6e-2}
# Deviations up to these are one rounding: rules that both stay below cannot be told apart.
_ROUNDING = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
_CLEARLY_BETTER = 4.0

_RULES: dict[Scoring, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "sqrt_softplus": lambda logits: functional.softplus(logits).sqrt(),
    "identity": lambda logits: logits,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """How gate weights follow from logits: ``w = scale · s(logits)``, over the chosen's sum where normalised.

    ``normalised`` and ``scale`` are None where the weights share a token's mass in proportion to their scores, but the
    mass itself depends on more than these logits.
    """

    scoring: Scoring = "unknown"
    normalised: bool | None = None
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class _Fit:
    rule: Rule
    error: float


def tolerance(*tensors: Tensor) -> float:
    """The largest relative deviation that the coarsest of these tensors' types explains."""
    return max(_TOLERANCE.get(tensor.dtype, 2e-3) for tensor in tensors)


def find_rule(logits: Tensor, indices: Tensor, weights: Tensor, expert_scale: Tensor | None = None) -> Rule | None:
    """The scoring rule that some tokens' routing follows.

    Args:
        logits: ``[T, C]`` the router's first output.
        indices: ``[T, K]`` chosen classes; negative for an empty slot.
        weights: ``[T, K]`` their gate weights.
        expert_scale: ``[E]`` constant factors on the experts' weights, where the router has any.

    Returns:
        The rule; an unknown one if none fits; None if the tokens are too few or too alike to tell.
    """
    used = ((indices >= 0) & (indices < logits.shape[1]) & (weights != 0)).all(-1)
    used &= logits.isfinite().all(-1) & weights.isfinite().all(-1)
    if int(used.sum()) < MIN_TOKENS:
        return None
    allowed = tolerance(logits, weights)
    chosen, gates = indices[used].long(), weights[used].float()
    if expert_scale is not None:
        gates = gates / expert_scale.float()[chosen]
    scores = {scoring: score(logits[used].float()).gather(1, chosen) for scoring, score in _RULES.items()}
    floor = max(_ROUNDING.get(tensor.dtype, 1e-5) for tensor in (logits, weights))
    slacks = _slack(weights), _slack(logits, weights)
    for fits in (_whole_fits(scores, gates, allowed, *slacks), _share_fits(scores, gates)):
        ranked = sorted(fits, key=lambda fit: fit.error)
        if not ranked or ranked[0].error > allowed:
            continue
        # Scores so alike that another rule fits as well tell nothing yet.
        clear = max(_CLEARLY_BETTER * ranked[0].error, floor)
        return ranked[0].rule if all(other.error > clear for other in ranked[1:]) else None
    return Rule()


def expert_scale(router: nn.Module) -> Tensor | None:
    """``[E]`` constant factors that a router puts on its experts' weights, if it has any."""
    scale = getattr(router, "per_expert_scale", None)
    return scale.detach().cpu() if isinstance(scale, Tensor) and not scale.is_meta else None


def with_rule(site: Site, rule: Rule, form: LogitsForm, *, by_expert: bool) -> Site:
    """The site with what was found out.

    Args:
        by_expert: the weights have a factor of each expert's own besides, so that no constant one tells them.
    """
    scoring = "softmax" if form == "probabilities" and rule.scoring == "identity" else rule.scoring
    scale = None if by_expert else rule.scale
    return replace(site, scoring=scoring, logits_form=form, normalised=rule.normalised, scale=scale)


def _whole_fits(
    scores: dict[Scoring, Tensor], gates: Tensor, allowed: float, of_mass: float, of_scores: float
) -> list[_Fit]:
    """Each rule with its best constant: over the chosen's sum where every token has the same mass.

    Args:
        of_mass, of_scores: how far rounding moves a constant that is found from the gates alone, or from scores, too.
    """
    mass = gates.sum(-1)
    if gates.shape[1] > 1 and bool((mass - mass.median()).abs().max() <= allowed * mass.median().abs()):
        constant = float(mass.median())
        return [
            _Fit(Rule(scoring, True, _rounded(constant, of_mass)), _error(gates, constant * _shares(values)))
            for scoring, values in scores.items()
        ]
    constants = {scoring: float((gates / values).median()) for scoring, values in scores.items()}
    return [
        _Fit(Rule(scoring, False, _rounded(constants[scoring], of_scores)), _error(gates, constants[scoring] * values))
        for scoring, values in scores.items()
    ]


def _share_fits(scores: dict[Scoring, Tensor], gates: Tensor) -> list[_Fit]:
    """Each rule as shares of whatever mass a token has."""
    if gates.shape[1] < 2:
        return []
    mass = gates.sum(-1, keepdim=True)
    return [_Fit(Rule(scoring), _error(gates, mass * _shares(values))) for scoring, values in scores.items()]


def _shares(scores: Tensor) -> Tensor:
    return scores / scores.sum(-1, keepdim=True)


def _error(gates: Tensor, predicted: Tensor) -> float:
    relative = ((gates - predicted).abs() / gates.abs().amax(-1, keepdim=True)).max()
    return float(relative) if relative.isfinite() else float("inf")


def _slack(*tensors: Tensor) -> float:
    """How far, relatively, two roundings to the coarsest of these tensors' types move a constant."""
    return max(1e-4, *(torch.finfo(tensor.dtype).eps for tensor in tensors if tensor.is_floating_point()))


def _rounded(value: float, slack: float) -> float:
    """A constant as it was written in a configuration: 2.5, not 2.4999998."""
    candidates = (float(f"{value:.{digits}g}") for digits in (1, 2, 3, 4))
    return next((short for short in candidates if abs(short - value) <= slack * abs(value)), value)


def find_form(logits: Tensor, projected: Tensor | None) -> LogitsForm:
    """What a router's first output is.

    Args:
        logits: ``[T, C]`` the output.
        projected: ``[T, C]`` the router's weight applied to its input; None where it has no such weight.

    Returns:
        ``probabilities`` if every row is a distribution, else by comparison with ``projected``: equal, in constant
        proportion, or ``c · tanh(x / c)`` of it.
    """
    values = logits.float()
    sums = values.sum(-1)
    if bool((values >= 0).all()) and bool(((sums - 1).abs() < 1e-2).all()):
        return "probabilities"
    if projected is None or projected.shape != logits.shape:
        return "unknown"
    raw, allowed = projected.float(), 4 * tolerance(logits, projected)
    size = raw.abs().max()
    if bool((values - raw).abs().max() <= allowed * size):
        return "logits"
    ratio = float((values * raw).sum() / (raw * raw).sum())
    if bool((values - ratio * raw).abs().max() <= allowed * abs(ratio) * size):
        return "scaled"
    return "soft_capped" if _is_capped(values, raw, allowed) else "unknown"


def _is_capped(values: Tensor, raw: Tensor, allowed: float) -> bool:
    """Whether ``values`` is ``c · tanh(raw / c)`` for some c, found by bisection at the largest input."""
    at = raw.abs().argmax()
    x, y = float(raw.abs().flatten()[at]), float(values.abs().flatten()[at])
    low, high = y, 1e6 * max(y, 1e-6)
    for _ in range(80):
        middle = (low * high) ** 0.5
        if middle * float(torch.tanh(torch.tensor(x / middle))) < y:
            low = middle
        else:
            high = middle
    return bool((values - high * torch.tanh(raw / high)).abs().max() <= allowed * y)
