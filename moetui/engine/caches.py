"""What a model's calls and outputs name the cache, which transformers 5.24 renamed, and how many tokens are in it."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, Final

from torch import Tensor, nn
from transformers import GenerationMixin

from moetui.engine.adapters.base import forward_parameters

CACHE_NAMES: Final = ("cache", "past_key_values", "cache_params")
"""Newest first."""


def given_cache(arguments: Mapping[str, Any]) -> Any:
    """The cache among a call's arguments by name; None if there is none."""
    for name in CACHE_NAMES:
        cache = arguments.get(name)
        if cache is not None:
            return cache
    return None


def returned_cache(output: Any) -> Any:
    """The cache that a forward's output holds; None if there is none."""
    held = getattr(output, "__dict__", {})  # not as an attribute: outputs of newer versions warn of older names
    for name in CACHE_NAMES:
        cache = held.get(name)
        if cache is not None:
            return cache
    return None


def cache_argument(model: nn.Module) -> str:
    """By which name the model's calls, and ``generate``, take a cache."""
    usual = signature(GenerationMixin.prepare_inputs_for_generation).parameters
    parameters = (*forward_parameters(type(model)), *usual)
    return next(name for name in CACHE_NAMES if name in parameters)


def past_length(cache: Any) -> int | Tensor:
    """Tokens in a cache; a clone where the cache counts in a tensor that this pass will change in place."""
    try:
        length = cache.get_seq_length()
    except (AttributeError, ValueError, IndexError):
        return 0
    if type(length) is int:
        return length
    if isinstance(length, Tensor):
        return int(length) if length.device.type == "cpu" else length.clone()
    return int(length)
