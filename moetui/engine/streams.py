"""The modules that tokens enter a model by, and which of their arguments tell the tokens."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moetui.engine.adapters.base import SiteHandle, forward_parameters, module_at
from moetui.engine.caches import CACHE_NAMES, past_length, returned_cache
from moetui.engine.inputs import Told, token_inputs
from moetui.engine.modules import output_head
from moetui.engine.raw import RawStep

_ONE = torch.Size((1, 1))


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
        only: of the decoder, where that is the only one: one more token of one sequence is read when the pass is
            recorded, as what every step does must be short.
    """

    path: str
    module: nn.Module
    parameters: tuple[str, ...]
    stacks: tuple[StackNames, ...]
    only: StackNames | None

    def note(self, args: tuple[Any, ...], kwargs: dict[str, Any], raw: RawStep) -> None:
        """Note what a call that begins a pass says of the tokens."""
        only = self.only
        if only is not None and not args:
            get = kwargs.get
            ids = get(only.ids)
            if type(ids) is Tensor and ids.shape == _ONE:
                raw.unread = _told(only, get)
                return
        self.read(args, kwargs, raw)

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any], raw: RawStep) -> None:
        """Note what a call says of the tokens of each stack, unless an outer module said it already."""
        known = raw.inputs
        get = ({**dict(zip(self.parameters, args)), **kwargs} if args else kwargs).get
        for names in self.stacks:
            stack = names.stack
            if stack in known and known[stack].shape is not None:
                continue
            known[stack] = inputs = token_inputs(_told(names, get))
            if inputs.shape is not None and inputs.shape[0] > 1 and not raw.reordered:
                raw.reordered = _reorders_rows()


def _told(names: StackNames, get: Callable[[str], Any]) -> Told:
    past: int | Tensor = 0
    held = None
    if names.stack != "encoder":
        for name in CACHE_NAMES:
            cache = get(name)
            if cache is not None:
                past, held = past_length(cache), weakref.ref(cache)
                break
    modality = get("moe_mm_token_type_ids")
    if modality is None:
        modality = get("mm_token_type_ids")
    return names.stack, get(names.ids), get(names.embeds), get(names.mask), get(names.positions), modality, past, held


def note_output(raw: RawStep, output: Any, vocabulary: int) -> None:
    """Keep what the outermost forward says of the next token, and which cache the next pass will go on from."""
    if vocabulary:
        logits = getattr(output, "logits", None)
        raw.logits = logits if isinstance(logits, Tensor) else _logits(output, vocabulary)
    cache = returned_cache(output)
    if cache is None:
        return
    # A first pass may be called without a cache, or exchange the one that it was given.
    left, unread = weakref.ref(cache), raw.unread
    if unread is None or unread[-1] is not left:
        inputs = raw.inputs.get("decoder")
        if inputs is not None:
            inputs.left = left


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
    streams = []
    for path, names in sorted(paths.items(), key=lambda item: len(item[0])):
        module = module_at(model, path)
        parameters = forward_parameters(type(module))
        stacks = _stacks(parameters, list(names))
        only = stacks[0] if len(stacks) == 1 and stacks[0].stack == "decoder" else None
        streams.append(Stream(path, module, parameters, stacks, only))
    return tuple(streams)


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
