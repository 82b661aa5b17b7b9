"""What one expert is worth, measured: its weight set to zero where tokens use it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from moetui.engine.adapters import SiteContext
from moetui.engine.analyses.passes import at_rest, logprobs, routed
from moetui.engine.analyses.subject import Subject
from moetui.engine.interventions.transforms import scale_experts
from moetui.routing import UnsupportedError, UsageError
from moetui.routing.analyses import ExpertAblation

_EXACT = (torch.float32, torch.float64)


def ablation(subject: Subject, branch: int, site: int, expert: int, sequence: int = 0) -> ExpertAblation:
    """Zero one expert's gate weight at one site for a whole sequence, teacher-forced; see ``ExpertAblation``.

    All uses are ablated in one pass, so that a token's change includes what reaches it from earlier tokens.

    Raises:
        UsageError: no such site, expert or sequence.
        UnsupportedError: a site whose routing cannot be changed, a model without next-token probabilities.
        ModelError: the model failed.
    """
    handle = subject.handle(site)
    own = handle.site
    if not 0 <= expert < own.num_experts:
        raise UsageError(f"{own.name} has no expert {expert}", f"its experts are 0 to {own.num_experts - 1}")
    never = handle.adapter.refusal(handle)
    if never:
        raise UnsupportedError(f"ablation is not possible at {own.name}: {never}")
    ids = subject.ids(branch, sequence)

    def silence(_: SiteContext, __: Tensor | None, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return scale_experts(indices, weights, (expert,), 0.0)

    with at_rest(subject.model):
        before = routed(subject.model, subject.handles, ids, logits=len(ids))
        after = routed(subject.model, subject.handles, ids, logits=len(ids), functions={own.index: silence})
    passed = before.sites.get(own.index)
    if passed is None:
        raise UnsupportedError(f"the tokens of the text did not pass {own.name}")
    used = ((passed.indices == expert) & (passed.weights != 0)).any(-1).cpu().numpy()
    followed = used[:-1]
    change = (logprobs(after.logits[:-1], ids[1:]) - logprobs(before.logits[:-1], ids[1:])).numpy()
    changes = np.asarray(change[followed], np.float32)
    count = len(changes)
    return ExpertAblation(
        positions=np.flatnonzero(followed).astype(np.int32),
        uses=int(used.sum()),
        changes=changes,
        mean=float(changes.mean()) if count else math.nan,
        error=float(changes.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan,
        note=_note(before.logits.dtype),
    )


def _note(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if dtype in _EXACT:
        return f"computed in {name}"
    return f"computed in {name}: small changes are its rounding; load the model in float32 to measure them"
