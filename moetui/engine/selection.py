"""Finds out from what a router chose by which scores it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moetui.engine.scoring import MIN_TOKENS
from moetui.routing.model import GroupScore, Scoring, Selection, Site
from moetui.routing.scores import margins
from moetui.routing.selection import expert_scores, group_scores, selection_scores
from moetui.routing.step import F32, Bool

ENOUGH_TOKENS = 512
"""What so many do not tell stays unknown, but for the space of a bias that moves none of them: that of the weights."""

_MISFITS = 50  # one token in so many may be chosen otherwise
_SPACES: tuple[Scoring, ...] = ("sigmoid", "softmax", "sqrt_softplus", "identity")


def find_selection(
    site: Site, scoring: Scoring, logits: Tensor, indices: Tensor, bias: Tensor | None, eligible: int
) -> Site | None:
    """What decides a site's choice, told by some tokens' choices.

    Rules are tried, of the kind of ``Selection``: the bias added to the scores that weigh, or to the logits; groups
    scored by their best, or by their two best. Tokens where rounding decides do not count.

    Args:
        site: whose rule to find; ``selection_bias`` and ``groups`` say which kinds of rules to try.
        scoring: its scoring rule, as ``find_rule`` has it.
        logits: ``[T, C]`` the router's first output.
        indices: ``[T, K]`` the classes that the router chose; negative for an empty slot.
        bias: ``[C]``; None where there is none or it is not known.
        eligible: groups that stay eligible.

    Returns:
        The site with what was found: ``selection`` is None where the largest logits are chosen, of an unknown rule
        where nothing that was tried fits, or rules that fit are not told apart. None if the tokens are too few to tell.
    """
    logits = logits[:, : site.num_classes]
    known = ((indices >= 0) & (indices < logits.shape[1])).all(-1) & logits.isfinite().all(-1)
    values, chosen = logits[known].float().numpy(), indices[known].long().numpy()
    rounding = torch.finfo(logits.dtype).eps
    candidates = list(_candidates(site, scoring, bias, eligible))
    fitting, told = [], False
    for candidate in candidates:
        tokens, misfits = _compare(candidate, values, chosen, rounding)
        told |= tokens >= MIN_TOKENS
        if tokens >= MIN_TOKENS and misfits * _MISFITS <= tokens:
            fitting.append(candidate)
    enough = len(logits) >= ENOUGH_TOKENS or not candidates or indices.shape[1] >= logits.shape[1]
    if site.selection_bias or site.groups > 1:
        alike = len({each.selection.group_score for each in fitting if each.selection}) == 1
        if len(fitting) == 1 or (enough and alike and scoring != "unknown"):
            return fitting[0]
    elif fitting or (enough and not told):  # with all experts chosen no rule is told, and none is wrong
        return replace(site, selection=None)
    return replace(site, selection=Selection()) if enough or (told and not fitting) else None


def _candidates(site: Site, scoring: Scoring, bias: Tensor | None, eligible: int) -> Iterator[Site]:
    """The site with each rule that it may follow, the usual ones first."""
    if site.selection_bias and bias is None:
        return
    usual = (scoring,) if scoring != "unknown" else ()
    spaces: tuple[Scoring, ...] = tuple(dict.fromkeys((*usual, "identity"))) if usual else _SPACES
    if usual and (site.selection_bias or site.groups > 1) and (bias is None or bool((bias == bias[0]).all())):
        spaces = usual  # the logits' order is the scores', so that the units are those of the weights
    numbers = None if bias is None or not site.selection_bias else tuple(bias.tolist())
    by: tuple[GroupScore, ...] = ("max",)
    if site.groups > 1:
        by = ("max", "top2") if numbers is None else ("top2", "max")
    for space, score in product(spaces, by):
        limit = eligible if site.groups > 1 else 1
        yield replace(site, selection=Selection(space, numbers, site.groups, limit, score))


def _compare(site: Site, values: F32, chosen: NDArray[np.int64], rounding: float) -> tuple[int, int]:
    """How many tokens tell something of a rule, and how many of these it has choose other experts.

    Args:
        site: with the rule.
        values: ``[T, C]`` logits.
        chosen: ``[T, K]``.
        rounding: of the numbers that the router compared, relative to their size.
    """
    selection, slots = site.selection, chosen.shape[1]
    assert selection is not None
    scores, left_out = selection_scores(values, site)
    finest = float(np.finfo(np.float32).eps)
    own, summed = expert_scores(values, selection.scoring), 4 * finest * np.abs(scores).max(-1, initial=0.0)
    slack = rounding * np.abs(own).max(-1, initial=0.0) + summed
    eligible = np.where(left_out, -np.inf, scores)
    told = margins(eligible, slots) > slack
    if selection.groups > 1:
        told &= margins(group_scores(scores, selection), selection.eligible) > 2 * slack
    same = _set(np.argsort(-eligible, axis=-1, kind="stable")[:, :slots], values) == _set(chosen, values)
    return int(told.sum()), int((told & ~same.all(-1)).sum())


def _set(experts: NDArray[np.int64], values: F32) -> Bool:
    members: Bool = np.zeros(values.shape, np.bool_)
    np.put_along_axis(members, experts, True, -1)
    return members
