"""What a token attended to: one pass more, with the attention implementation that forms its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from moetui.engine.adapters import SiteHandle
from moetui.engine.analyses.passes import Passed, at_rest, routed
from moetui.engine.analyses.subject import Subject
from moetui.engine.extras import layer_list
from moetui.routing import NO_EXPERT, UnsupportedError, UsageError
from moetui.routing.analyses import AttentionPaid

_INNER = "_attn_implementation_internal"
_ATTENTION = re.compile(r"attn|attention|mixer")
_COPIES = 4  # scores, mask added, softmax in float32, and its copy in the model's type
_ROUNDING = 0.01  # by which the weights of a row may miss a sum of one in short number formats


def attention(subject: Subject, branch: int, position: int, sequence: int = 0) -> AttentionPaid:
    """Run a sequence up to one of its tokens, and keep that token's row of attention weights; see ``AttentionPaid``.

    Raises:
        UsageError: a position that is not held.
        UnsupportedError: an encoder reads the prompt, or no layer forms attention weights.
        ModelError: the model failed.
    """
    found = subject.tokens(branch, sequence)
    if not 0 <= position < len(found):
        raise UsageError(f"position must lie between 0 and {len(found) - 1}", "'tokens' lists them")
    ids = [token for token, _ in found[: position + 1]]
    _check_room(subject.model, len(ids))
    rows: dict[int, list[Tensor]] = {}
    hooks = [
        module.register_forward_hook(_keeper(rows, layer, len(ids)))
        for layer, module in _attention_modules(subject.model, subject.handles)
    ]
    try:
        with at_rest(subject.model), eager(subject.model):
            passed = routed(subject.model, subject.handles, ids)
    finally:
        for hook in hooks:
            hook.remove()
    if not rows:
        raise UnsupportedError("no layer of this model forms weights of causal attention")
    heads = {layer: torch.cat(rows[layer]) for layer in sorted(rows)}
    return AttentionPaid(
        tokens=np.array([number for _, number in found[: position + 1]], np.int64),
        layers=tuple(heads),
        shares=torch.stack([each.mean(0).cpu() for each in heads.values()]).numpy().astype(np.float32),
        heads=tuple(len(each) for each in heads.values()),
        rerouted=_rerouted(subject, passed, found[position][1]),
    )


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Within it attention is computed step by step, so that its weights exist; afterwards as it was."""
    configs: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and _INNER in vars(config):
            configs[id(config)] = config
    before = [(config, vars(config)[_INNER]) for config in configs.values()]
    try:
        for config, _ in before:
            vars(config)[_INNER] = "eager"
        yield
    finally:
        for config, own in before:
            vars(config)[_INNER] = own


def _check_room(model: Any, length: int) -> None:
    """Refuse what would fill the memory: one layer's weights at a time are there, several times over.

    Raises:
        UnsupportedError: they take more than half of what is free.
    """
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = getattr(config, "num_attention_heads", None)
    needed = _COPIES * 4 * (heads if isinstance(heads, int) else 32) * length**2
    free = _free(model.device)
    if needed > free / 2:
        raise UnsupportedError(
            f"attention over {length:,} tokens takes about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            "a token nearer to the beginning takes less",
        )


def _free(device: torch.device) -> int:
    """Bytes of memory that are free where the model computes."""
    ask = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    if ask is not None:
        return int(ask(device)[0])
    return int(psutil.virtual_memory().available)


def _attention_modules(model: nn.Module, handles: Sequence[SiteHandle]) -> list[tuple[int, nn.Module]]:
    """What may be attention in the layers among which the first stack's sites lie, each with its layer's number."""
    stack = handles[0].site.stack
    inside = {layer_list(handle.site.path) for handle in handles if handle.site.stack == stack}
    found = []
    for path, module in model.named_modules():
        for head in inside:
            number, _, below = path.removeprefix(head + ".").partition(".")
            if path.startswith(head + ".") and number.isdecimal() and _ATTENTION.search(below):
                found.append((int(number), module))
    return found


def _keeper(rows: dict[int, list[Tensor]], layer: int, length: int) -> Any:
    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and _causal(weights, length):
            # What stands behind the tokens is a sink, or tokens in compressed form.
            rows.setdefault(layer, []).append(weights[0, :, -1, :length].detach().float())

    return after


def _causal(weights: Tensor, length: int) -> bool:
    """Whether these are shares ``[1, H, n, keys]`` that tokens gave to themselves and those before them."""
    if weights.dim() != 4 or not weights.is_floating_point() or weights.shape[2] != length:
        return False
    shares = weights[0].detach().float()
    if weights.shape[3] < length or float(shares.min()) < 0 or float(shares.sum(-1).max()) > 1 + _ROUNDING:
        return False
    return float(shares[:, :, :length].triu(1).max()) < _ROUNDING


def _rerouted(subject: Subject, passed: Passed, number: int) -> float:
    """Share of the sites at which the last token's experts are not those recorded for timeline token ``number``."""
    held = subject.view.routing(number, number + 1).indices[0]
    compared, other = 0, 0
    for site, tensors in passed.sites.items():
        before = set(held[site].tolist()) - {NO_EXPERT}
        now = set(tensors.indices[-1].tolist())
        if before:
            compared += 1
            other += before != now
    return other / compared if compared else math.nan
