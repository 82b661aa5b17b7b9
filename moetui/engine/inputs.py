"""The arguments of a call that tell which tokens a stack got."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from moetui.routing import Phase

Told: TypeAlias = tuple[str, Any, Any, Any, Any, Any, "int | Tensor", "weakref.ref[Any] | None"]
"""What a call tells of a stack's tokens: the stack, and the call's arguments as they are for ids, embeddings, mask,
positions and modalities; tokens in the cache, and the cache."""

_MASKED: Final = -9e3  # additive masks give -10,000 or less; biases by distance come to a few thousand at most


@dataclass(slots=True, eq=False)
class TokenInputs:
    """The arguments that tell which tokens a stack got, as references.

    Attributes:
        stack: of the sites that these tokens pass.
        ids: ``[B, T]``, None where the stack got embeddings.
        shape: ``(B, T)``, None where nothing tells.
        mask: ``[B, L]`` 2-D attention mask over past and new tokens, None if there is none.
        attention: ``[B, heads, T, L]`` 4-D mask that was given in its place (B and heads may be 1), bool or additive; L
            may be all that a static cache has room for. Or ``[B, L]``, of the new tokens alone, or of past ones too.
            None once ``place`` was asked.
        places: ``[B, T]`` what ``place`` found.
        positions: ``[B, T]`` as given, used where there is no 2-D mask.
        modality: ``[B, T]`` 0 for text, where the model was told which tokens are not.
        past: cached tokens before this pass: a number, or a 0-d tensor where only the device knows it.
        cache: the cache object before the pass, for its identity alone.
        left: the same after it.
    """

    stack: str
    ids: Tensor | None = None
    shape: tuple[int, int] | None = None
    mask: Tensor | None = None
    attention: Tensor | None = None
    places: Tensor | None = None
    positions: Tensor | None = None
    modality: Tensor | None = None
    past: int | Tensor = 0
    cache: weakref.ref[Any] | None = None
    left: weakref.ref[Any] | None = None

    @property
    def phase(self) -> Phase:
        """Prefill when there is more than one new token a sequence or nothing cached before; decode otherwise."""
        new = 1 if self.shape is None else self.shape[1]
        nothing_before = isinstance(self.past, int) and self.past == 0
        return Phase.PREFILL if new > 1 or nothing_before else Phase.DECODE

    def place(self) -> Tensor | None:
        """``[B, T]`` position of each token by ``attention``, -1 for padding; None if there is none.

        Padding is what no token attends to. Nothing here waits for a device.
        """
        attention, self.attention = self.attention, None
        if attention is not None and self.shape is not None:
            self.places = _places(attention, self.shape, self.past_on(attention.device), self.positions)
        return self.places

    def past_on(self, device: torch.device) -> int | Tensor:
        """``past`` where it can be reckoned with tensors of that device: the cache may lie on another."""
        return self.past.to(device) if isinstance(self.past, Tensor) else self.past

    @property
    def on_host(self) -> bool:
        """Whether no tensor of it lies on another device."""
        held = (self.ids, self.mask, self.attention, self.places, self.positions, self.modality, self.past)
        return all(not isinstance(value, Tensor) or value.is_cpu for value in held)


def token_inputs(told: Told) -> TokenInputs:
    """What is to be known of the tokens. Nothing here waits for a device."""
    stack, ids, embeds, mask, positions, modality, past, cache = told
    inputs = TokenInputs(stack, past=past, cache=cache, left=cache)
    if isinstance(mask, Tensor) and mask.dim() == 2:
        inputs.mask = mask
    elif mask is not None:
        inputs.attention = _attention_mask(mask)
    if isinstance(positions, Tensor) and positions.dim() == 2:
        inputs.positions = positions
    source = ids if isinstance(ids, Tensor) else embeds
    if isinstance(source, Tensor) and len(shape := source.shape) >= 2:
        inputs.shape = (shape[0], shape[1])
        inputs.ids = ids if source is ids and len(shape) == 2 else None
    if isinstance(modality, Tensor) and modality.dim() == 2:
        inputs.modality = modality
    uncounted = cache is not None and type(past) is int and past == 0  # to look at a tensor may be to wait
    if uncounted and inputs.mask is not None and inputs.shape is not None:
        # Caches of recurrent states alone do not count tokens: the mask does.
        inputs.past = max(0, inputs.mask.shape[1] - inputs.shape[1])
    return inputs


def _places(attention: Tensor, shape: tuple[int, int], past: int | Tensor, positions: Tensor | None) -> Tensor | None:
    """See ``TokenInputs.place``; None if the mask is of other tokens."""
    flat = attention.dim() == 2
    rows, queries, keys = attention.shape[0], shape[1] if flat else attention.shape[2], attention.shape[-1]
    if rows not in (1, shape[0]) or queries != shape[1] or keys < queries:
        return None
    if flat:
        seen = (attention != 0).expand(shape[0], -1)  # [B, L]
    else:
        allowed = attention > _MASKED if attention.is_floating_point() else attention != 0
        seen = allowed.any(1).any(1).expand(shape[0], -1)
    # The keys of a window that has moved on are the last ones.
    latest = keys - queries
    start = past.clamp(max=latest) if isinstance(past, Tensor) else min(past, latest)
    own = (torch.arange(queries, device=seen.device) + start).expand(shape)
    if positions is not None and positions.shape == shape:
        place = positions.to(seen.device, torch.int64)
    else:
        place = seen.long().cumsum(1).gather(1, own) - 1
        if flat and keys == queries:
            place = place + past
    return place.masked_fill(~seen.gather(1, own), -1)


def _attention_mask(mask: Any) -> Tensor | None:
    """A 4-D mask; of those that a model was given by type of attention, the one that sees farthest.

    A 2-D one where they are all of that kind, as those of states that recur are, or of tokens that are looked up.
    """
    if isinstance(mask, dict):
        kinds = sorted(mask, key=lambda kind: kind != "full_attention")
        found = [each for kind in kinds if isinstance(each := mask[kind], Tensor)]
        return next((each for dim in (4, 2) for each in found if each.dim() == dim), None)
    return mask if isinstance(mask, Tensor) and mask.dim() == 4 else None
