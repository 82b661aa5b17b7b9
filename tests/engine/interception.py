"""An interception of routing written apart from the capture: classes are patched, nothing is hooked."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moetui.routing import NO_EXPERT, Step


class Interception:
    """What every router returned and every experts module was called with, by module, in the latest forward pass.

    Attributes:
        calls: arguments with which a module's own ``forward`` ran, whatever lies around it, in the parameters' order.
        given: the same as positional and named arguments.
        outputs: what that ``forward`` returned.
        returned: what the call of the module returned to the model, hooks included.
    """

    def __init__(self) -> None:
        self.calls: dict[int, tuple[Any, ...]] = {}
        self.given: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.outputs: dict[int, Any] = {}
        self.returned: dict[int, Any] = {}

    def clear(self) -> None:
        """Forget the pass."""
        for kept in (self.calls, self.given, self.outputs, self.returned):
            kept.clear()

    def reached(self, handle: Any) -> bool:
        """Whether the pass went through the site."""
        return id(handle.router) in self.returned

    def dense(self, handle: Any) -> Tensor:
        """``[T, classes]`` gate weights as the model applied them, 0 where an expert had no part in a token.

        Of experts with a product key ``[T, experts]``; what the embeddings were multiplied by is taken off them.
        """
        site, kind = handle.site, handle.site.kind
        if kind == "indexed":
            _, indices, weights = self.calls[id(handle.experts)][:3]
            return spread(indices, weights, site.num_classes)
        if kind == "dense":
            # What the experts got, as shares of the block's input: all of them get every token.
            hidden = self.given[id(handle.router)][0][0].reshape(-1, self.calls[id(handle.experts)][0].shape[-1])
            scaled = self.calls[id(handle.experts)][0].reshape(site.num_experts, *hidden.shape)
            return ((scaled * hidden).sum(-1) / hidden.square().sum(-1)).t()
        if kind == "parallel":
            return sorted_slots(self.returned[id(handle.router)])
        if kind == "product_key":
            down, up = handle.block.down_embed, handle.block.up_embed
            (indices,) = self.calls[id(up)]
            assert torch.equal(indices, self.calls[id(down)][0])
            plain, used = up.weight[indices], self.returned[id(up)]
            factors = (plain * used).sum(-1) / plain.square().sum(-1)
            return spread(indices, factors * self.slots(handle)[1], site.num_experts)
        _, mask, weights = self.calls[id(handle.experts)]
        if mask.dim() == 3:
            return (mask * weights.unsqueeze(-1)).sum(1)
        # Zeros and ones taken for expert ids: every column of the mask sends the token to expert 0 or 1.
        dense = torch.zeros_like(weights)
        for column in range(mask.shape[1]):
            for expert in (0, 1):
                dense[:, expert] += weights[:, column] * (mask[:, column] == expert)
        return dense

    def slots(self, handle: Any) -> tuple[Tensor, Tensor]:
        """``[T, K]`` indices and weights that the router itself chose, before anything changed them."""
        return routing(handle, self.outputs[id(handle.router)])

    def own(self, handle: Any) -> Tensor:
        """The router's own choice in the form of ``dense``."""
        wide = handle.site.num_experts if handle.site.kind == "product_key" else handle.site.num_classes
        return spread(*self.slots(handle), wide)

    def logits(self, handle: Any) -> Tensor:
        """What the site's router gave as logits."""
        output = self.outputs[id(handle.router)]
        at = {"indexed": 0, "dense": 1, "parallel": 4, "mask": 2}[handle.site.kind]
        if handle.site.kind == "indexed" and isinstance(output, tuple) and not output[0].is_floating_point():
            at = 2
        value = output if isinstance(output, Tensor) else output[at]
        return value.reshape(-1, value.shape[-1])


def routing(handle: Any, output: Any) -> tuple[Tensor, Tensor]:
    """Indices and weights ``[T, K]`` in what a router returned, slots as it ordered them."""
    site, kind = handle.site, handle.site.kind
    if kind == "dense":
        weights, indices = output[0].topk(site.top_k, -1)
        return indices, weights
    if kind == "parallel":
        order, _, gates, sizes, logits = output
        experts = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        indices, weights = torch.empty_like(order), torch.empty_like(gates)
        indices[order], weights[order] = experts, gates
        return indices.view(len(logits), -1), weights.view(len(logits), -1)
    if kind == "product_key":
        keys = output.shape[-1] // 2
        rows, columns = output.reshape(2, -1, keys)
        scores, indices = (rows[:, :, None] + columns[:, None, :]).flatten(1).topk(site.top_k, -1)
        return indices, scores.softmax(-1)
    if kind == "mask":
        mask, gates, _ = (value.reshape(-1, value.shape[-1]) for value in output)
        return mask.argmax(-1, keepdim=True), gates * mask.sum(-1, keepdim=True)
    if isinstance(output, Tensor):  # logits alone: the block around makes the choice
        output = output, *handle.block.route_tokens_to_experts(output)
    whole = next(value for value in output[:3] if not value.is_floating_point())
    weights = next(value for value in output[:3] if value.is_floating_point() and value.shape == whole.shape)
    return whole.reshape(-1, whole.shape[-1]), weights.reshape(-1, whole.shape[-1])


def sorted_slots(output: tuple[Any, ...]) -> Tensor:
    """``[T, E]`` gate weights of slots that lie sorted by expert."""
    _, tokens, gates, sizes, logits = output
    dense = torch.zeros(logits.shape, dtype=gates.dtype)
    begin = 0
    for expert, size in enumerate(sizes):
        dense[tokens[begin : begin + size], expert] = gates[begin : begin + size]
        begin += size
    return dense


def spread(indices: Tensor, weights: Tensor, classes: int) -> Tensor:
    """``[T, classes]`` from indices and weights ``[T, K]``."""
    dense = torch.zeros(len(indices), classes, dtype=weights.dtype)
    return dense.scatter_add(1, indices.long(), weights)


def captured(step: Step, number: int, classes: int) -> np.ndarray[Any, Any]:
    """A captured step's routing at one site as ``[T, classes]`` weights."""
    out = np.zeros((step.num_tokens, classes + 1), np.float32)
    indices = np.where(step.indices[:, number] == NO_EXPERT, classes, step.indices[:, number])
    assert step.weights is not None
    weights = np.nan_to_num(step.weights[:, number].astype(np.float32))
    for slot in range(indices.shape[1]):
        np.add.at(out, (np.arange(step.num_tokens), indices[:, slot]), weights[:, slot])
    return out[:, :classes]


@contextlib.contextmanager
def intercepted(modules: list[nn.Module]) -> Iterator[Interception]:
    """Patch the classes of these modules: their calls' arguments and outputs are kept."""
    found = Interception()
    classes = {type(module) for module in modules}
    originals = {cls: cls.__dict__["forward"] for cls in classes if "forward" in cls.__dict__}
    called: set[int] = set()

    def patch(cls: type[nn.Module]) -> None:
        original = originals[cls]
        names = list(inspect.signature(original).parameters)[1:]

        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            # Only what the model runs: whoever runs a router once more does so past its call.
            mine = id(self) in called
            called.discard(id(self))
            output = original(self, *args, **kwargs)
            if mine:
                found.calls[id(self)] = (*args, *(kwargs[name] for name in names[len(args) :] if name in kwargs))
                found.given[id(self)] = args, kwargs
                found.outputs[id(self)] = output
            return output

        def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            called.add(id(self))
            output = found.returned[id(self)] = nn.Module.__call__(self, *args, **kwargs)
            return output

        cls.forward = forward
        cls.__call__ = call

    for cls in originals:
        patch(cls)
    try:
        yield found
    finally:
        for cls, original in originals.items():
            cls.forward = original
            del cls.__call__


def hook_state(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Everything that hooks leave on modules: their dictionaries, and forwards set on instances."""
    state: dict[str, tuple[Any, ...]] = {}
    for path, module in model.named_modules():
        held = {name: list(value) for name, value in vars(module).items() if "hooks" in name and value}
        state[path] = (held, "forward" in vars(module), module.training)
    implementation = getattr(model, "get_experts_implementation", None)
    state["implementation"] = (implementation() if implementation else None,)
    return state
