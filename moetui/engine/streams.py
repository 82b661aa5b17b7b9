"""The modules that tokens enter a model by, and which of their arguments tell the tokens."""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from moetui.engine.adapters.base import SiteHandle, forward_parameters, module_at
from moetui.engine.caches import CACHE_NAMES, past_length, returned_cache
from moetui.engine.modules import output_head
from moetui.engine.raw import RawStep, TokenInputs

_MODALITIES = ("moe_mm_token_type_ids", "mm_token_type_ids")


@dataclass(frozen=True, slots=True)
class StackNames:
    """Names of the arguments that tell a stack's tokens."""

    stack: str
    ids: str
    embeds: str
    mask: str
    positions: str

    @staticmethod
    def of(stack: str, prefix: str) -> StackNames:
        """With what stands before each of them."""
        names = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")
        return StackNames(stack, *(prefix + name for name in names))


@dataclass(frozen=True, slots=True)
class Stream:
    """A module whose forward begins a step, or lies within one.

    Attributes:
        path: of the module.
        parameters: names of its forward's parameters, in order.
        stacks: whose tokens its arguments tell, by which names.
    """

    path: str
    module: nn.Module
    parameters: tuple[str, ...]
    stacks: tuple[StackNames, ...]

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], raw: RawStep) -> None:
        """Note what a call says of the tokens of each stack, unless an outer module said it already."""
        known = raw.inputs
        get = ({**dict(zip(self.parameters, args)), **kwargs} if args else kwargs).get
        for names in self.stacks:
            stack = names.stack
            if stack in known and known[stack].shape is not None:
                continue
            ids, mask, positions = get(names.ids), get(names.mask), get(names.positions)
            known[stack] = inputs = TokenInputs(stack)
            if mask is not None:
                if isinstance(mask, Tensor) and mask.dim() == 2:
                    inputs.mask = mask
                else:
                    inputs.attention = _attention_mask(mask)
            if positions is not None and isinstance(positions, Tensor) and positions.dim() == 2:
                inputs.positions = positions
            source = ids if isinstance(ids, Tensor) else get(names.embeds)
            if isinstance(source, Tensor) and len(shape := source.shape) >= 2:
                inputs.shape = (shape[0], shape[1])
                inputs.ids = ids if source is ids and len(shape) == 2 else None
                if shape[0] > 1 and not raw.reordered:
                    raw.reordered = _reorders_rows()
            for name in _MODALITIES:
                modality = get(name)
                if modality is not None and isinstance(modality, Tensor) and modality.dim() == 2:
                    inputs.modality = modality
                    break
            if stack != "encoder":
                for name in CACHE_NAMES:
                    cache = get(name)
                    if cache is not None:
                        inputs.past, inputs.cache = past_length(cache), weakref.ref(cache)
                        uncounted = type(inputs.past) is int and inputs.past == 0  # to look at a tensor may be to wait
                        if uncounted and inputs.mask is not None and inputs.shape is not None:
                            # Caches of recurrent states alone do not count tokens: the mask does.
                            inputs.past = max(0, inputs.mask.shape[1] - inputs.shape[1])
                        break


def note_output(raw: RawStep, output: Any, vocabulary: int) -> None:
    """Keep what the outermost forward says of the next token, and which cache the next pass will go on from."""
    if vocabulary:
        logits = getattr(output, "logits", None)
        raw.logits = logits if isinstance(logits, Tensor) else _logits(output, vocabulary)
    inputs = raw.inputs.get("decoder")
    if inputs is not None:
        # A first pass may be called without a cache, or exchange the one that it was given.
        inputs.left = inputs.cache
        cache = returned_cache(output)
        if cache is not None:
            inputs.left = weakref.ref(cache)


def _logits(output: Any, vocabulary: int) -> Tensor | None:
    """``[B, columns, V]`` of a tuple."""
    if not isinstance(output, tuple):
        return None
    tensors = (_tensor(item) for item in output)
    return next(
        (item for item in tensors if item is not None and item.dim() == 3 and item.shape[2] == vocabulary), None
    )


def next_tokens(model: nn.Module) -> int:
    """How many tokens the model's ``logits`` are of, where they are of the token that follows; 0 where not."""
    can_generate = getattr(model, "can_generate", None)
    if can_generate is None or not can_generate():
        return 0
    weight = getattr(output_head(model), "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor) else 0


def find_streams(model: nn.Module, handles: tuple[SiteHandle, ...]) -> tuple[Stream, ...]:
    """The model itself and every transformers model inside it on the way to a site, outermost first."""
    paths: dict[str, dict[str, None]] = {"": {}}
    for handle in handles:
        parts = handle.site.path.split(".")
        for length in range(len(parts)):
            path = ".".join(parts[:length])
            if path == "" or isinstance(module_at(model, path), PreTrainedModel):
                paths.setdefault(path, {})[handle.site.stack] = None
    return tuple(
        Stream(path, module, parameters, _stacks(parameters, list(stacks)))
        for path, stacks in sorted(paths.items(), key=lambda item: len(item[0]))
        for module in (module_at(model, path),)
        for parameters in (forward_parameters(type(module)),)
    )


def _stacks(parameters: tuple[str, ...], stacks: list[str]) -> tuple[StackNames, ...]:
    """Token arguments of a whole encoder–decoder are named for their side; a side tower's own are no tokens."""
    both = "decoder_input_ids" in parameters
    out = []
    for stack in stacks:
        if stack == "decoder":
            out.append(StackNames.of(stack, "decoder_" if both else ""))
        elif stack == "encoder" or len(stacks) == 1:
            out.append(StackNames.of(stack, ""))
    return tuple(out)


def _attention_mask(mask: Any) -> Tensor | None:
    """A 4-D mask; of those that a model was given by type of attention, the one that sees farthest.

    A 2-D one where they are all of that kind, as those of states that recur are, or of tokens that are looked up.
    """
    if isinstance(mask, dict):
        kinds = sorted(mask, key=lambda kind: kind != "full_attention")
        found = [each for kind in kinds if isinstance(each := mask[kind], Tensor)]
        return next((each for dim in (4, 2) for each in found if each.dim() == dim), None)
    return mask if isinstance(mask, Tensor) and mask.dim() == 4 else None


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


def _reorders_rows(depth: int = 8) -> bool:
    """Whether a beam search of transformers called, which permutes the batch's rows between passes."""
    frame = sys._getframe(2)
    for _ in range(depth):
        if frame.f_code.co_name == "_beam_search":
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
