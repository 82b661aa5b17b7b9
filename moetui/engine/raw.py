"""One forward pass as the hooks saw it: references to tensors, and what is needed to know its tokens."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moetui.routing import Phase


@dataclass(slots=True, eq=False)
class TokenInputs:
    """The arguments that tell which tokens a stack got, as references.

    Attributes:
        stack: of the sites that these tokens pass.
        ids: ``[B, T]``, None where the stack got embeddings.
        shape: ``(B, T)``, None where nothing tells.
        mask: ``[B, L]`` 2-D attention mask over past and new tokens, None if there is none.
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


@dataclass(slots=True, eq=False)
class ProbeRows:
    """The first rows of what a router got in a pass, and of its last linear's output where it calls one."""

    input: Tensor
    projected: Tensor | None = None


class RawStep:
    """What a forward pass left behind. The lists go by site number: hooks only put references into them.

    Attributes:
        index: number of the pass.
        branch: whose tokens these are.
        owner: what began the pass, compared by identity.
        keep: whether this pass is to be recorded.
        reordered: rows of the batch may have been permuted since the pass before (beam search).
        started, ended: ``perf_counter_ns``.
        cost: nanoseconds spent in this capture's hooks.
        inputs: the tokens of each stack that was called.
        told: the stacks whose tokens are known in full.
        times: ``perf_counter_ns`` when a site's experts got their routing; 0 where they did not.
        first, second: that routing, as the site's adapter decodes it.
        before: the same before a routing function changed it, at sites where one did.
        outputs: what the routers returned.
        earlier: first, second and output of a site's earlier calls, where a pass calls one several times.
        logits: ``[B, columns, V]`` of the language model's head, None where there are none.
        probes: what the first passes keep to study the routers.
        extras: what the hooks of ``Extras`` noted: kind, number, tensors.
    """

    __slots__ = (
        "before", "branch", "cost", "earlier", "ended", "extras", "first", "index", "inputs", "keep",
        "logits", "outputs", "owner", "probes", "reordered", "second", "started", "times", "told",
    )  # fmt: skip

    def __init__(self, index: int, branch: int, owner: object, sites: int) -> None:
        self.index, self.branch, self.owner = index, branch, owner
        self.keep, self.reordered = True, False
        self.started = self.ended = self.cost = 0
        self.inputs: dict[str, TokenInputs] = {}
        self.told: set[str] = set()
        self.times: list[int] = [0] * sites
        self.first: list[Any] = [None] * sites
        self.second: list[Any] = [None] * sites
        self.outputs: list[Any] = [None] * sites
        self.before: dict[int, tuple[Any, Any]] = {}
        self.earlier: dict[int, list[tuple[Any, Any, Any]]] = {}
        self.logits: Tensor | None = None
        self.probes: dict[int, ProbeRows] = {}
        self.extras: list[tuple[str, int, tuple[Tensor, ...]]] = []

    def note(self, number: int, time: int, first: Any, second: Any) -> None:
        """A site's experts got their routing."""
        if self.times[number]:
            self.repeat(number)
        self.times[number], self.first[number], self.second[number] = time, first, second

    def repeat(self, number: int) -> None:
        """A site is called again: lay its last call aside."""
        call = self.first[number], self.second[number], self.outputs[number]
        self.earlier.setdefault(number, []).append(call)
        self.times[number], self.outputs[number] = 0, None

    def release(self) -> None:
        """Let go of every tensor that the sites' hooks noted."""
        sites = len(self.times)
        self.first, self.second, self.outputs = [None] * sites, [None] * sites, [None] * sites
        self.logits = None
        self.before = dict.fromkeys(self.before, (None, None))

    def stood(self, nanoseconds: int) -> None:
        """See ``StepFrame``."""
        self.started += nanoseconds
        self.times = [time and time + nanoseconds for time in self.times]

    def phase(self, stack: str) -> Phase:
        """See ``StepFrame``."""
        inputs = self.inputs.get(stack)
        return Phase.PREFILL if inputs is None else inputs.phase

    def positions(self, stack: str, rows: int, device: torch.device) -> Tensor:
        """See ``StepFrame``."""
        inputs = self.inputs.get(stack)
        if inputs is None or inputs.shape is None or inputs.shape[0] * inputs.shape[1] != rows:
            return torch.arange(rows, device=device)
        batch, new = inputs.shape
        mask = inputs.mask
        if mask is not None and mask.shape[1] >= new:
            kept = mask.to(device)
            place = kept.long().cumsum(1) - 1
            if mask.shape[1] == new:
                place = place + inputs.past
            return place.masked_fill(kept == 0, -1)[:, -new:].reshape(-1)
        if inputs.positions is not None and tuple(inputs.positions.shape) == (batch, new):
            return inputs.positions.to(device).reshape(-1)
        return (torch.arange(new, device=device) + inputs.past).expand(batch, new).reshape(-1)
