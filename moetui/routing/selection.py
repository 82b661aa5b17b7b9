"""The scores by which a router chooses, where that is not the order of its logits: a bias, a limit to some groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.model import Scoring, Selection, Site
from moetui.routing.step import F32, Bool


def selection_scores(logits: NDArray[Any], site: Site) -> tuple[F32, Bool]:
    """What a site's router compares to choose its experts: it takes the ``top_k`` largest that are not left out.

    Args:
        logits: ``[..., E]`` as captured; extra columns past ``site.num_classes`` are ignored.
        site: ``site.selection`` says what to compare; at a plain site it is the logits.

    Returns:
        ``[..., num_classes]`` float32 scores, bias included, NaN in rows with a NaN and where what chooses is not
        known; and of the same shape, which classes are left out because their group is. Of equal groups the first stay.
    """
    return selections(np.asarray(logits[..., : site.num_classes], np.float32), (site,))


def selections(values: F32, alike: Sequence[Site]) -> tuple[F32, Bool]:
    """``selection_scores`` of sites with the same ``selection_key``: one, or ``[n, s, C]`` logits of s of them."""
    site, selection = alike[0], alike[0].selection
    none_left_out: Bool = np.zeros(values.shape, np.bool_)
    if site.plain_choice:
        return values, none_left_out
    if selection is None or not _makes_sense(selection, site):
        return np.full_like(values, np.nan), none_left_out
    scores = expert_scores(values, selection.scoring)
    biases = [_array(each.selection.bias) for each in alike if each.selection and each.selection.bias is not None]
    if biases:
        scores = scores + (biases[0] if len(biases) == 1 else np.stack(biases))
    scores = np.where(np.isnan(values).any(-1, keepdims=True), np.float32(np.nan), scores)
    return scores, none_left_out if selection.groups == 1 else _left_out(scores, selection)


def selection_key(site: Site) -> object:
    """What two sites have to have in common for one formula to fit their choices: all but the numbers of the bias."""
    selection = site.selection
    if selection is None:
        return site.plain_choice
    classes = None if selection.bias is None else len(selection.bias)
    return selection.scoring, classes, selection.groups, selection.eligible, selection.group_score


def expert_scores(values: F32, scoring: Scoring) -> F32:
    """Each class's own score, ``[..., C]``, by a scoring rule; NaN where the rule is not one of a class by itself."""
    with np.errstate(all="ignore"):
        if scoring == "softmax":
            scores = np.exp(values - values.max(-1, keepdims=True))
            scores = scores / scores.sum(-1, keepdims=True)
        elif scoring == "sigmoid":
            scores = 1.0 / (1.0 + np.exp(-values))
        elif scoring == "sqrt_softplus":
            scores = np.sqrt(np.logaddexp(0.0, values))
        elif scoring == "identity":
            scores = values
        else:
            scores = np.full_like(values, np.nan)
    return np.asarray(scores, np.float32)


def group_scores(scores: F32, selection: Selection) -> F32:
    """What the groups are compared by, ``[..., C]`` selection scores to ``[..., groups]``."""
    by_group = scores.reshape(*scores.shape[:-1], selection.groups, -1)
    if selection.group_score == "max":
        return np.asarray(by_group.max(-1), np.float32)
    return np.asarray(np.partition(by_group, -2, axis=-1)[..., -2:].sum(-1), np.float32)


def _left_out(scores: F32, selection: Selection) -> Bool:
    by_group = group_scores(scores, selection)
    worst = np.argsort(-by_group, axis=-1, kind="stable")[..., selection.eligible :]
    left_out: Bool = np.zeros(by_group.shape, np.bool_)
    np.put_along_axis(left_out, worst, True, -1)
    return np.repeat(left_out, scores.shape[-1] // selection.groups, axis=-1)


def _makes_sense(selection: Selection, site: Site) -> bool:
    """Whether the rule can be followed at the site: a file may say anything."""
    classes, groups = site.num_classes, selection.groups
    if selection.bias is not None and len(selection.bias) != classes:
        return False
    if groups < 1 or not 1 <= selection.eligible <= groups or classes < 1 or classes % groups:
        return False
    return groups == 1 or selection.group_score == "max" or (selection.group_score == "top2" and classes >= 2 * groups)


@lru_cache(maxsize=1024)
def _array(bias: tuple[float, ...]) -> F32:
    array: F32 = np.array(bias, np.float32)
    array.flags.writeable = False
    return array
