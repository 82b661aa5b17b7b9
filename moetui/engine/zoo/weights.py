"""Random weights under which routing is worth watching.

The library's own initialisation (standard deviation 0.02) leaves router logits so close to each other that the choice
of experts is a toss-up and every layer is nearly the identity. Here every matrix keeps the size of its input, routers
are sharpened until their choices are neither uniform nor certain, and what steers the choice besides the logits
(selection biases, scales of experts, tables from tokens to experts) is random too, so that it matters.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from moetui.engine.modules import output_head
from moetui.engine.zoo import sizes

_ROUTER_CLASS = re.compile(r"Router|Gating$")
_ROUTER_PATH = re.compile(r"(^|\.)(gate|router|router_gate)(\.|$)")
_EXPERTS_PATH = re.compile(r"(^|\.)experts(\.|$)")
_SELECTION_BIAS = re.compile(r"(correction_bias|expert_bias|balancing_biases|(router|gate)\.bias)$")
_ROUTER_SPREAD = 2.0
_ROUTER_INNER_SPREAD = 1.5
_OUTPUT_SPREAD = 3.0
_BIAS_SPREAD = 0.1
_SCALE_SPREAD = 0.2
_EMBEDDING_SPREAD = 0.5
_SPELLING_SCALE = 0.25
_SPECIAL_TOKEN_SCALE = 0.05


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Give a freshly built model unit gain, its routers decided opinions, and its next-token choice a favourite.

    Norms, convolutions, recurrent state and other vectors stay as the library initialised them. Tokens that spell
    (bytes, characters) are made improbable and special tokens more so: a run writes words and does not stop early by
    accident.
    """
    with torch.no_grad():
        for path, module in model.named_modules():
            router = bool(_ROUTER_CLASS.search(type(module).__name__) or _ROUTER_PATH.search(path))
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if tensor.is_floating_point():
                    _randomise_tensor(module, f"{path}.{name}", tensor, router, generator)
                elif router and tensor.ndim == 2:
                    _randomise_table(module, tensor, generator)
        output = _output_matrix(model)
        if output is not None:
            output *= _OUTPUT_SPREAD
            output[: sizes.FIRST_WORD] *= _SPELLING_SCALE
            output[: sizes.SPECIAL_TOKENS] *= _SPECIAL_TOKEN_SCALE


def _randomise_tensor(
    module: nn.Module, path: str, tensor: torch.Tensor, router: bool, generator: torch.Generator
) -> None:
    if _SELECTION_BIAS.search(path):
        _randomise_bias(tensor, generator)
    elif path.endswith(".per_expert_scale"):
        tensor.normal_(1.0, _SCALE_SPREAD, generator=generator)
    elif router and path.endswith(".scale") and hasattr(module, "per_expert_scale"):
        # This router divides its input by the root of the width; undone here, or its logits would hardly differ.
        tensor.fill_(tensor.shape[0] ** 0.5)
    elif isinstance(module, nn.Embedding) and tensor is module.weight:
        tensor.normal_(0.0, _EMBEDDING_SPREAD, generator=generator)
    elif tensor.ndim in (2, 3) and (isinstance(module, nn.Linear) or router or _is_expert(path, tensor)):
        spread = 1.0
        if router and tensor.ndim == 2:
            # A router's last matrix has a row an expert; those before it make up for the non-linearity after them.
            spread = _ROUTER_SPREAD if tensor.shape[0] < 2 * sizes.EXPERTS else _ROUTER_INNER_SPREAD
        tensor.normal_(0.0, spread * tensor.shape[-1] ** -0.5, generator=generator)


def _randomise_bias(bias: torch.Tensor, generator: torch.Generator) -> None:
    """Small random biases around those that the library fixes (a class that skips all experts), or around zero.

    Fixed ones stay: the library writes them again when it loads a checkpoint.
    """
    fixed = bias != 0
    centre = float(bias[fixed].mean()) if fixed.any() else 0.0
    noise = torch.empty_like(bias).normal_(centre, _BIAS_SPREAD, generator=generator)
    bias.copy_(torch.where(fixed, bias, noise))


def _is_expert(path: str, tensor: torch.Tensor) -> bool:
    return bool(_EXPERTS_PATH.search(path)) or (tensor.ndim == 3 and "proj" in path.rpartition(".")[2])


def _randomise_table(router: nn.Module, table: torch.Tensor, generator: torch.Generator) -> None:
    """Fill a table ``[tokens, top-k]`` of expert ids with different experts a row."""
    experts = next(parameter.shape[0] for parameter in router.parameters())
    order = torch.rand(table.shape[0], experts, generator=generator).argsort(dim=-1)
    table.copy_(order[:, : table.shape[1]])


def _output_matrix(model: nn.Module) -> torch.Tensor | None:
    """The matrix ``[vocabulary, width]`` that scores the next token, if the model writes text."""
    weight = getattr(output_head(model), "weight", None)
    return weight if isinstance(weight, torch.Tensor) else None
