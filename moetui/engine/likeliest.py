"""The largest logits of many, and the logarithm of the sum of their exponentials."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 64
_WORTH = 4096  # classes from which blocks pay


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` largest of each row in descending order, and the row's log-sum-exp.

    Args:
        logits: ``[N, V]`` float32.
        count: how many; V if there are fewer.

    Returns:
        Ids ``[N, count]``, their logits ``[N, count]``, log-sum-exp ``[N]``; on the logits' device, without waiting
        for it.
    """
    size = logits.shape[-1]
    count = min(count, size)
    if not logits.is_cpu or size < _WORTH or count > size // _BLOCK:
        top = logits.topk(count, -1)
        return top.indices, top.values, logits.logsumexp(-1)
    rows, whole = len(logits), size // _BLOCK * _BLOCK
    # A row's largest lie in the blocks whose largest are largest, or in what is left over behind the last block.
    peaks = logits[:, :whole].reshape(rows, -1, _BLOCK).amax(-1)
    blocks = peaks.topk(count, -1, sorted=False).indices
    inside = (blocks.unsqueeze(-1) * _BLOCK + torch.arange(_BLOCK)).view(rows, -1)
    places = torch.cat([inside, torch.arange(whole, size).expand(rows, -1)], -1)
    top = logits.gather(-1, places).topk(count, -1)
    return places.gather(-1, top.indices), top.values, logits.logsumexp(-1)
