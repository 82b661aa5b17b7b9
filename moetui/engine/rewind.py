"""Goes back to an earlier token of a run: the cache and the random state as they were before that token's step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import DummyLayer, DynamicIndexedLayer, DynamicLayer, DynamicSlidingWindowLayer

RewindMethod = Literal["crop", "snapshot", "prefill"]
"""Cut the cache; take a copy made at that token or shortly before; run the prefix again, which is not bit-exact."""

_PLAIN = (DynamicLayer, DynamicIndexedLayer, DummyLayer)
_DEFAULT_BUDGET = 512 * 2**20


@dataclass(frozen=True, slots=True)
class RandomState:
    """States of the global torch generators: the CPU's and every CUDA device's."""

    cpu: Tensor
    cuda: tuple[Tensor, ...] = ()

    @classmethod
    def now(cls) -> RandomState:
        """The present states."""
        devices = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
        return cls(torch.get_rng_state(), devices)

    def set(self) -> None:
        """Make them the present ones."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(list(self.cuda))


@dataclass(frozen=True, slots=True)
class Restored:
    """Where a run can go on from.

    Attributes:
        cache: holds ``length`` tokens; None to run the prefix again from nothing.
        length: tokens in the cache; those up to the wanted one have to be stepped through again, one at a time.
        random: generator states before the step of token ``length``; None for a greedy run.
        method: how the cache was won.
        exact: whether going on repeats the run bit for bit.
    """

    cache: Any
    length: int
    random: RandomState | None
    method: RewindMethod
    exact: bool


def can_crop(cache: Any, remove: int) -> bool:
    """Whether cutting the last ``remove`` tokens off is known to be exact.

    Only for layers of exactly a plain type: subclasses keep state of their own that ``crop`` leaves alone, even where
    they say they can be cropped. A sliding window can be cut until it has let go of its first token.
    """
    layers = getattr(cache, "layers", None)
    if not layers or type(cache).__name__ != "DynamicCache":
        return False
    return all(_can_crop_layer(layer, remove) for layer in layers)


def _can_crop_layer(layer: Any, remove: int) -> bool:
    if type(layer) in _PLAIN:
        return True
    if type(layer) is not DynamicSlidingWindowLayer or getattr(layer, "record_past", False):
        return False
    return bool(layer.get_seq_length() < layer.sliding_window and remove <= layer.get_seq_length())


def nbytes(cache: Any) -> int:
    """Bytes of all tensors that a cache holds."""
    return sum({tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(cache, set())}.values())


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, seen)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value), seen)


class Checkpoints:
    """What one run needs to go back to any of its steps.

    ``note`` is called before each decode step. Where the cache can be cut, it keeps the random state alone; else a copy
    of the cache too, thinned out to every second one whenever they outgrow the budget, so that the steps between are
    few.

    Args:
        sampled: keep random states.
        budget: bytes that copies of the cache may take.
    """

    def __init__(self, *, sampled: bool, budget: int = _DEFAULT_BUDGET) -> None:
        self._sampled, self._budget = sampled, budget
        self._random: dict[int, RandomState] = {}
        self._copies: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}
        self._stride = 1
        self._cache: Any = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Token counts at which a copy of the cache is held."""
        return tuple(sorted(self._copies))

    def note(self, cache: Any, length: int) -> None:
        """Before a step whose cache holds ``length`` tokens."""
        self._cache = cache
        if self._sampled:
            self._random[length] = RandomState.now()
        if cache is None or can_crop(cache, 0) or length % self._stride:
            return
        self._copies[length] = copy.deepcopy(cache)
        self._sizes[length] = nbytes(self._copies[length])
        while sum(self._sizes.values()) > self._budget and len(self._copies) > 1:
            self._stride *= 2
            for kept in [key for key in self._copies if key % self._stride]:
                del self._copies[kept], self._sizes[kept]
            if self._stride > 2**20:
                break

    def forget_after(self, length: int) -> None:
        """Drop what was noted past ``length`` tokens."""
        for table in (self._random, self._copies, self._sizes):
            for key in [key for key in table if key > length]:
                del table[key]

    def restore(self, length: int) -> Restored:
        """The state before the step whose cache held ``length`` tokens, as near as it can be had.

        The run's own cache is left as it is: what comes back is a copy.
        """
        random = self._random.get(length)
        cache = self._cache
        held = _held(cache)
        if cache is not None and held >= length and can_crop(cache, held - length):
            fresh = copy.deepcopy(cache)
            if held > length:
                fresh.crop(length - held)
            return Restored(fresh, length, random, "crop", True)
        before = [key for key in self._copies if key <= length]
        if before:
            nearest = max(before)
            state = self._random.get(nearest)
            return Restored(copy.deepcopy(self._copies[nearest]), nearest, state, "snapshot", True)
        return Restored(None, 0, random, "prefill", False)


def _held(cache: Any) -> int:
    return int(cache.get_seq_length()) if cache is not None else -1


def rewind_method(model: Any, inputs: dict[str, Tensor]) -> str:
    """How runs of a model are taken back: ``crop``, ``snapshot``, or why they cannot be.

    Runs one forward pass on ``inputs`` to see the cache that the model makes.
    """
    if model.config.is_encoder_decoder:
        return "an encoder reads the prompt: the run starts again"
    with torch.no_grad():
        cache = getattr(model(**inputs, use_cache=True), "past_key_values", None)
    if cache is None:
        return "the model hands out no cache"
    return "crop" if can_crop(cache, 1) else "snapshot"
