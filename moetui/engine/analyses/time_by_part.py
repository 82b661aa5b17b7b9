"""Where the time of a token goes: decode steps repeated with a clock around every part of every layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import nn

from moetui.engine.adapters.base import module_at
from moetui.engine.analyses.passes import at_rest, in_words
from moetui.engine.analyses.subject import Subject
from moetui.engine.around import Around
from moetui.engine.extras import layer_list
from moetui.engine.generation import Prompt, check_continues, generate, writes_text
from moetui.engine.modules import input_device, module_tree, output_head
from moetui.engine.track import Start
from moetui.routing import ModuleNode, UnsupportedError, UsageError
from moetui.routing.analyses import Part, PartTime, TimeByPart
from moetui.routing.events import GenerationSettings

_WARM: Final = 2  # decode steps that come first and are not counted
_MIXERS = re.compile(r"Attention|Mamba|DeltaNet|Conv")
_PARTS: Final[dict[str, Part]] = {
    "attention": "attention",
    "router": "router",
    "experts": "experts",
    "shared_expert": "shared experts",
    "mlp": "dense",
    "layer": "rest",
    "head": "head",
}

Place: TypeAlias = tuple[int | None, Part]
"""A layer's number, None outside of all, and the part."""

_Mark: TypeAlias = Callable[[], Any]
"""Gives the present moment, without a wait for the device."""


def time_by_part(subject: Subject, branch: int, sequence: int = 0, steps: int = 16) -> TimeByPart:
    """Pass the last tokens of a sequence through the model once more, one by one; see ``TimeByPart``.

    Args:
        steps: decode steps to measure, and as many again without clocks; fewer where the sequence is short.

    Raises:
        UsageError: no such sequence, or too short a one.
        UnsupportedError: a model that writes no text token by token, or whose encoder reads the prompt.
        ModelError: the model failed.
    """
    if steps < 1:
        raise UsageError("steps must be at least 1")
    model: Any = subject.model
    if not writes_text(model):
        raise UnsupportedError(f"{type(model).__name__} writes no text token by token, so that it has no decode steps")
    check_continues(model)
    ids = subject.ids(branch, sequence)
    passes = min(_WARM + 2 * steps, len(ids) - 2)
    if passes < _WARM + 2:
        raise UsageError(f"{len(ids)} tokens are too few to measure a step", "run a longer prompt, or more tokens")
    context = len(ids) - 1 - passes
    device = input_device(model)
    start = Start(torch.tensor([ids], device=device), context, None, (), None, "repeat", True)
    clocks = _Clocks(device)
    with at_rest(model), _watched(subject, clocks), in_words(len(ids)):
        generate(model, Prompt("", tuple(ids[:context])), GenerationSettings(passes + 1), start=start)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    counted = clocks.passes[1 + _WARM :]
    timed = [each for each in counted if each.spans]
    if not timed or len(timed) == len(counted):
        raise UsageError("the sequence ends too early to measure a step", "run a longer prompt, or more tokens")
    kept = _middle([each.ms for each in timed])
    own = [_own(timed[number].spans) for number in kept]
    places = sorted({place for each in own for place in each}, key=_order)
    bare = [each.ms for each in counted if not each.spans]
    return TimeByPart(
        parts=tuple(
            PartTime(layer, part, float(np.mean([each.get((layer, part), 0.0) for each in own])))
            for layer, part in places
        ),
        step=float(np.mean([timed[number].ms for number in kept])),
        bare=float(np.mean([bare[number] for number in _middle(bare)])),
        steps=len(timed),
        context=context + _WARM,
        clock="host" if device.type == "cpu" else "device",
    )


@dataclass(slots=True, eq=False)
class _Span:
    """A call of a part: its place, the number of the span that it lies in (-1: none), and when it began and ended."""

    place: Place
    within: int
    begun: Any
    ended: Any = None

    @property
    def ms(self) -> float:
        return _between(self.begun, self.ended)


@dataclass(slots=True, eq=False)
class _Pass:
    """A forward pass and, where it was measured, the calls of parts within it; the first of them is the whole."""

    begun: Any
    spans: list[_Span]
    ended: Any = None

    @property
    def ms(self) -> float:
        return _between(self.begun, self.ended)


class _Clocks:
    """What stands around the parts, and the passes seen so far; every other one is measured.

    Args:
        device: where the model begins and ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._mark = device, _clock(device)
        self._open: list[int] = []
        self._spans: list[_Span] | None = None  # of the pass that is being measured
        self.passes: list[_Pass] = []

    def around_model(self, model: nn.Module) -> Around:
        """Its passes are the steps."""
        return Around(model, before=self._begin, after=self._end)

    def around(self, module: nn.Module, place: Place) -> Around:
        """Its calls count as this place's."""
        parameter = next((each for each in module.parameters() if not each.is_meta), None)
        mark = _clock(self._device if parameter is None else parameter.device)
        return Around(module, before=partial(self._enter, place, mark), after=partial(self._leave, mark))

    def _begin(self, *_: Any) -> None:
        measured = len(self.passes) % 2 == 1
        now = self._mark()
        self._spans = [_Span((None, "rest"), -1, now)] if measured else None
        self._open = [0]
        self.passes.append(_Pass(now, self._spans or []))

    def _end(self, *_: Any) -> None:
        own = self.passes[-1]
        own.ended = self._mark()
        if self._spans is not None:
            self._spans[0].ended = own.ended
        self._spans = None

    def _enter(self, place: Place, mark: _Mark, *_: Any) -> None:
        spans = self._spans
        if spans is not None:
            self._open.append(len(spans))
            spans.append(_Span(place, self._open[-2], mark()))

    def _leave(self, mark: _Mark, *_: Any) -> None:
        if self._spans is not None:
            self._spans[self._open.pop()].ended = mark()


@contextmanager
def _watched(subject: Subject, clocks: _Clocks) -> Iterator[None]:
    """Within it the clocks stand around the model and its parts."""
    put = []
    try:
        for module, place in _modules(subject):
            put.append(clocks.around(module, place))
        put.append(clocks.around_model(subject.model))
        yield
    finally:
        for around in put:
            around.remove()


def _modules(subject: Subject) -> Iterator[tuple[nn.Module, Place]]:
    """The modules that are parts, of the layers among which the sites lie, and the head."""
    model, handles = subject.model, subject.handles
    sites = [handle.site.path for handle in handles]
    heads = {layer_list(path) for path in sites}
    for node in module_tree(model, tuple(handles), output_head(model)):
        module = module_at(model, node.path)
        if node.role == "head":
            yield module, (None, "head")
            continue
        number = next((_layer(node.path, head) for head in heads if node.path.startswith(f"{head}.")), None)
        part = None if number is None else _part(node, sites)
        if part is not None:
            for each in _called(module):
                yield each, (number, part)


def _layer(path: str, head: str) -> int | None:
    number = path.removeprefix(f"{head}.").partition(".")[0]
    return int(number) if number.isdecimal() else None


def _part(node: ModuleNode, sites: Sequence[str]) -> Part | None:
    """Which part a module of a layer is; None if it belongs to what it lies in."""
    name = node.path.rpartition(".")[2]
    if node.site is None and node.role in ("mlp", "other") and name != "mlp" and _MIXERS.search(node.class_name):
        return None if name.startswith(("mlp_", "post_mlp_")) else "attention"
    if node.role == "mlp" and any(path.startswith(f"{node.path}.") for path in sites):
        return None
    return _PARTS.get(node.role)


def _called(module: nn.Module) -> list[nn.Module]:
    """What is called of a module: a list of modules is not."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return [each for child in module.children() for each in _called(child)]
    return [module]


def _own(spans: Sequence[_Span]) -> dict[Place, float]:
    """Milliseconds of each place, without those of the places within."""
    ms = [span.ms for span in spans]
    found: dict[Place, float] = {}
    for span, own in zip(spans, ms):
        found[span.place] = found.get(span.place, 0.0) + own
        if span.within >= 0:
            outer = spans[span.within].place
            found[outer] = found[outer] - own
    return found


def _middle(ms: Sequence[float]) -> list[int]:
    """Numbers of the passes in the middle half by their time: what else the machine did is in the others."""
    order = np.argsort(np.asarray(ms), kind="stable").tolist()
    cut = len(order) // 4
    return sorted(order[cut : len(order) - cut])


def _order(place: Place) -> tuple[bool, int, int]:
    layer, part = place
    return layer is None, layer or 0, list(_PARTS.values()).index(part)


def _clock(device: torch.device) -> _Mark:
    """The clock of what runs there: a device works behind the host's back, and notes times in its stream of work."""
    return perf_counter_ns if device.type == "cpu" else partial(_on_device, device)


def _on_device(device: torch.device) -> torch.Event:
    event = torch.Event(device, enable_timing=True)
    event.record(torch.accelerator.current_stream(device))
    return event


def _between(begun: Any, ended: Any) -> float:
    """Milliseconds between two marks."""
    return (ended - begun) / 1e6 if isinstance(begun, int) else float(begun.elapsed_time(ended))
