"""Random weights under which routing is worth watching.

The libraries' own initialisation (standard deviation 0.02) leaves router logits so close to each other that the
choice of experts is a toss-up and every layer nearly the identity. Here every matrix keeps the size of its input,
and routers are sharpened until their distributions differ from uniform and from one expert alone.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from moetui.engine.zoo import sizes

_ROUTER_CLASS = re.compile(r"Router|Gating$|Gate$")
_ROUTER_PATH = re.compile(r"(^|\.)(gate|router|router_gate|wg)(\.|$)")
_SELECTION_BIAS = re.compile(r"(correction_bias|expert_bias|balancing_bias(es)?|router\.bias|gate\.bias)$")
_ROUTER_SPREAD = 2.0
_BIAS_SPREAD = 0.1
_SPECIAL_TOKEN_SCALE = 0.05


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Give every matrix of a freshly built model unit gain, and its routers decided opinions.

    Norms, convolutions, recurrent state parameters and other vectors stay as the library initialised them;
    biases that steer the choice of experts get small random values, so that they matter.
    """
    with torch.no_grad():
        for path, module in model.named_modules():
            _randomise_module(path, module, generator)
        output = getattr(model, "get_output_embeddings", lambda: None)()
        if output is not None:
            output.weight[: sizes.SPECIAL_TOKENS] *= _SPECIAL_TOKEN_SCALE


def _randomise_module(path: str, module: nn.Module, generator: torch.Generator) -> None:
    router = is_router(path, module)
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        if _SELECTION_BIAS.search(f"{path}.{name}"):
            tensor.normal_(0.0, _BIAS_SPREAD, generator=generator)
        elif isinstance(module, nn.Linear) or (name.endswith("weight") and tensor.ndim == 2 and router):
            spread = _ROUTER_SPREAD if router else 1.0
            if tensor.ndim == 2:
                tensor.normal_(0.0, spread * tensor.shape[-1] ** -0.5, generator=generator)
        elif isinstance(module, nn.Embedding):
            tensor.normal_(0.0, 0.5, generator=generator)
        elif tensor.ndim == 3 and "proj" in name:
            tensor.normal_(0.0, tensor.shape[-1] ** -0.5, generator=generator)


def is_router(path: str, module: nn.Module) -> bool:
    """Whether a module decides over experts, by its class or its place in the tree."""
    return bool(_ROUTER_CLASS.search(type(module).__name__) or _ROUTER_PATH.search(path))
