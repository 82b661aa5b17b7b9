"""Caches as they were at an earlier token: which can be cut, which have to be copied while they pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from moetui.engine.accelerators import accelerator
from moetui.engine.caches import returned_cache

RewindMethod = Literal["prompt", "crop", "snapshot", "repeat", "prefill"]
"""How a run is taken back: the prompt runs anew; the cache is cut; a copy of it made shortly before is used; all passes
since the prompt are repeated one by one; the prefix runs in one pass, which alone is not bit-exact."""

# By name: transformers before 5.23 have no layers without a cache among the others.
_PLAIN = tuple(
    getattr(cache_utils, name)
    for name in ("DynamicLayer", "DynamicIndexedLayer", "DummyLayer")
    if hasattr(cache_utils, name)
)


@dataclass(frozen=True, slots=True)
class RandomState:
    """States of the global torch generators: the CPU's and those of every accelerator."""

    cpu: Tensor
    devices: tuple[Tensor, ...] = ()

    @classmethod
    def now(cls, before: RandomState | None = None) -> RandomState:
        """The present states; the CPU's is shared with ``before`` where it is the same."""
        accelerator = _accelerator()
        devices = (
            () if accelerator is None else tuple(accelerator.get_rng_state(*which) for which in _each(accelerator))
        )
        cpu = torch.get_rng_state()
        if before is not None and torch.equal(cpu, before.cpu):
            cpu = before.cpu
        return cls(cpu, devices)

    def set(self) -> None:
        """Make them the present ones."""
        torch.set_rng_state(self.cpu)
        accelerator = _accelerator() if self.devices else None
        if accelerator is not None:
            for state, which in zip(self.devices, _each(accelerator)):
                accelerator.set_rng_state(state, *which)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Afterwards the global torch generators are as they were before."""
    before = RandomState.now()
    try:
        yield
    finally:
        before.set()


def _accelerator() -> Any:
    """The accelerator's module of torch; None where none can have been drawn from."""
    found = accelerator()
    if found is None:
        return None
    if found.type == "cuda" and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None  # asking would begin to use it
    return torch.get_device_module(found)


def _each(accelerator: Any) -> list[tuple[int, ...]]:
    """How to name each of its devices; where there is one alone, not every torch takes a name."""
    count = accelerator.device_count()
    return [()] if count == 1 else [(number,) for number in range(count)]


def can_crop(cache: Any, remove: int) -> bool:
    """Whether cutting the last ``remove`` tokens off is known to be exact.

    Only for layers of exactly a plain type: subclasses keep state of their own that ``crop`` leaves alone, even where
    they say they can be cropped. A sliding window can be cut until it has let go of its first token.
    """
    return _is_dynamic(cache) and all(_can_crop_layer(layer, remove) for layer in cache.layers)


def will_crop(cache: Any, ahead: int) -> bool:
    """Whether it can still be cut when ``ahead`` more tokens are in."""
    return _is_dynamic(cache) and all(
        type(layer) in _PLAIN or (_is_window(layer) and layer.get_seq_length() + ahead < layer.sliding_window)
        for layer in cache.layers
    )


def cropped(cache: Any, remove: int) -> Any:
    """A cache without the last ``remove`` tokens, where ``can_crop``; the one given stays as it is.

    The tensors are shared: layers of the plain types never write into them, they replace them.
    """
    fresh = _shell(cache)
    fresh.layers = [_cropped_layer(layer, remove) for layer in cache.layers]
    return fresh


@dataclass(frozen=True, slots=True, eq=False)
class CacheCopy:
    """A cache as it was, less those layers that can be cut from a later one at any time.

    Attributes:
        cache: with None in the place of those layers.
        length: tokens in it.
        nbytes: of the tensors held by it alone.
    """

    cache: Any
    length: int
    nbytes: int

    @classmethod
    def of(cls, cache: Any, length: int) -> CacheCopy:
        """Copy what a later pass may change."""
        if not _is_dynamic(cache):
            whole = copy.deepcopy(cache)
            return cls(whole, length, nbytes(whole))
        shell = _shell(cache)
        # A window's tensors are replaced, never written into; of other layers nothing is known.
        shell.layers = [
            None if type(layer) in _PLAIN else copy.copy(layer) if _is_window(layer) else copy.deepcopy(layer)
            for layer in cache.layers
        ]
        return cls(shell, length, nbytes(shell.layers))

    def filled(self, live: Any, held: int) -> Any:
        """The whole cache anew, with what is missing cut from ``live``, which holds ``held`` tokens of the same run."""
        if not _is_dynamic(self.cache):
            return copy.deepcopy(self.cache)
        fresh = _shell(self.cache)
        fresh.layers = [
            _cropped_layer(theirs, held - self.length)
            if own is None
            else copy.copy(own)
            if _is_window(own)
            else copy.deepcopy(own)
            for own, theirs in zip(self.cache.layers, live.layers)
        ]
        return fresh


def nbytes(cache: Any) -> int:
    """Bytes of all tensors that a cache holds."""
    return sum({tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(cache, set())}.values())


def rewind_method(model: Any, inputs: dict[str, Tensor]) -> str:
    """How runs of a model are taken back: ``crop``, ``snapshot``, or why they start again.

    Runs one forward pass on ``inputs`` to see the cache that the model makes. A run's own way may differ from it in
    time: a sliding window is cut until it is full, and copied from then on.
    """
    if model.config.is_encoder_decoder:
        return "an encoder reads the prompt: the run is repeated from its start"
    with torch.no_grad():
        cache = returned_cache(model(**inputs, use_cache=True))
    if cache is None:
        return "the model hands out no cache: the run is repeated from its start"
    return "crop" if can_crop(cache, 1) else "snapshot"


def _is_dynamic(cache: Any) -> bool:
    return type(cache) is DynamicCache and bool(cache.layers) and not getattr(cache, "offloading", False)


def _is_window(layer: Any) -> bool:
    return type(layer) is DynamicSlidingWindowLayer and not layer.record_past


def _can_crop_layer(layer: Any, remove: int) -> bool:
    if type(layer) in _PLAIN:
        return True
    return _is_window(layer) and remove <= layer.get_seq_length() < layer.sliding_window


def _cropped_layer(layer: Any, remove: int) -> Any:
    fresh = copy.copy(layer)
    if remove:
        fresh.crop(-remove)
    return fresh


def _shell(cache: Any) -> Any:
    return copy.copy(cache)


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
