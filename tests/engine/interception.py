"""An interception of routing written apart from the capture: classes are patched, nothing is hooked."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Interception:
    """What every router returned and every experts module was called with, by module, in the latest forward pass."""

    def __init__(self) -> None:
        self.calls: dict[int, tuple[Any, ...]] = {}
        self.outputs: dict[int, Any] = {}

    def dense(self, handle: Any) -> Tensor:
        """``[T, classes]`` gate weights as the model applied them, 0 where an expert had no part in a token."""
        site, kind = handle.site, handle.site.kind
        if kind == "indexed":
            _, indices, weights = self.calls[id(handle.experts)][:3]
            dense = torch.zeros(len(indices), site.num_classes, dtype=weights.dtype)
            return dense.scatter_add(1, indices.long(), weights)
        if kind == "dense":
            return self.outputs[id(handle.router)][0]
        if kind == "parallel":
            _, tokens, gates, sizes, logits = self.outputs[id(handle.router)]
            dense = torch.zeros(logits.shape, dtype=gates.dtype)
            begin = 0
            for expert, size in enumerate(sizes):
                dense[tokens[begin : begin + size], expert] = gates[begin : begin + size]
                begin += size
            return dense
        _, mask, weights = self.calls[id(handle.experts)]
        if mask.dim() == 3:
            return (mask * weights.unsqueeze(-1)).sum(1)
        # Zeros and ones taken for expert ids: every column of the mask sends the token to expert 0 or 1.
        dense = torch.zeros_like(weights)
        for column in range(mask.shape[1]):
            for expert in (0, 1):
                dense[:, expert] += weights[:, column] * (mask[:, column] == expert)
        return dense

    def logits(self, handle: Any) -> Tensor:
        """What the site's router gave as logits."""
        output = self.outputs[id(handle.router)]
        at = {"indexed": 0, "dense": 1, "parallel": 4, "mask": 2}[handle.site.kind]
        if handle.site.kind == "indexed" and isinstance(output, tuple) and not output[0].is_floating_point():
            at = 2
        value = output if isinstance(output, Tensor) else output[at]
        return value.reshape(-1, value.shape[-1])


@contextlib.contextmanager
def intercepted(modules: list[nn.Module]) -> Iterator[Interception]:
    """Patch the classes of these modules: their calls' arguments and outputs are kept."""
    found = Interception()
    classes = {type(module) for module in modules} - {nn.Embedding}
    originals = {cls: cls.__dict__["forward"] for cls in classes if "forward" in cls.__dict__}

    def patch(cls: type[nn.Module]) -> None:
        original = originals[cls]
        names = list(inspect.signature(original).parameters)[1:]

        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            output = original(self, *args, **kwargs)
            found.calls[id(self)] = (*args, *(kwargs[name] for name in names[len(args) :] if name in kwargs))
            found.outputs[id(self)] = output
            return output

        cls.forward = forward

    for cls in originals:
        patch(cls)
    try:
        yield found
    finally:
        for cls, original in originals.items():
            cls.forward = original


def hook_state(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Everything that hooks leave on modules: their dictionaries, and forwards set on instances."""
    state: dict[str, tuple[Any, ...]] = {}
    for path, module in model.named_modules():
        held = {name: list(value) for name, value in vars(module).items() if "hooks" in name and value}
        state[path] = (held, "forward" in vars(module), module.training)
    implementation = getattr(model, "get_experts_implementation", None)
    state["implementation"] = (implementation() if implementation else None,)
    return state
