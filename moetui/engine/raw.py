"""One forward pass as the hooks saw it: references to tensors, and what is needed to know its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from moetui.engine.inputs import TokenInputs, Told, token_inputs
from moetui.routing import Phase


@dataclass(slots=True, eq=False)
class ProbeRows:
    """The first rows of what a router got in a pass, and of its last linear's output where it calls one."""

    input: Tensor
    projected: Tensor | None = None


SEEN = 4
"""Places that a site has in ``RawStep.seen``."""

_NOTHING: Final[dict[int, Any]] = {}  # never written to


class RawStep:
    """What a forward pass left behind: references, as what looks at a site between a model's operations must be short.

    Attributes:
        index: number of the pass.
        branch: whose tokens these are.
        owner: what began the pass, compared by identity.
        keep: whether this pass is to be recorded.
        reordered: rows of the batch may have been permuted since the pass before (beam search).
        started, ended: ``perf_counter_ns``.
        timed: whether this pass's hooks take the time, which costs them as much as what they do.
        cost: nanoseconds spent in this capture's hooks, if so.
        inputs: the tokens of each stack that was called; what is ``unread`` is read when somebody asks.
        unread: what the call that began the pass told of one more token of one sequence.
        seen: for each site, by its number, what its router returned, the ``perf_counter_ns`` when its experts got their
            routing (0 where they did not), and that routing, as the site's adapter decodes it. One list: every other
            object that a site's hooks touch is one more that is in no cache.
        before: that routing before a routing function changed it, at sites where one did.
        earlier: first, second and output of a site's earlier calls, where a pass calls one several times.
        logits: ``[B, columns, V]`` of the language model's head, None where there are none.
        probes: what the first passes keep to study the routers.
        extras: what the hooks of ``Extras`` noted: kind, number, tensors.
        sent: on its way to the host instead of all that, where it does not lie there (see ``Recorder``).
    """

    __slots__ = (
        "_inputs", "before", "branch", "cost", "earlier", "ended", "extras", "index", "keep", "logits", "owner",
        "probes", "reordered", "seen", "sent", "started", "timed", "unread",
    )  # fmt: skip

    def __init__(self, index: int, branch: int, owner: object, sites: int) -> None:
        self.index, self.branch, self.owner = index, branch, owner
        self.keep, self.reordered, self.timed = True, False, False
        self.started = self.ended = self.cost = 0
        self._inputs: dict[str, TokenInputs] = {}
        self.unread: Told | None = None
        self.seen: list[Any] = [None, 0, None, None] * sites
        self.logits: Tensor | None = None
        self.sent: Any = None
        # Most passes have none of these, and a container for each would cost more than all that is above.
        self.before: dict[int, tuple[Any, Any]] = _NOTHING
        self.earlier: dict[int, list[tuple[Any, Any, Any]]] = _NOTHING
        self.probes: dict[int, ProbeRows] = _NOTHING
        self.extras: tuple[tuple[str, int, tuple[Tensor, ...]], ...] = ()

    @property
    def inputs(self) -> dict[str, TokenInputs]:
        """See above."""
        unread, self.unread = self.unread, None
        if unread is not None:
            self._inputs[unread[0]] = token_inputs(unread)
        return self._inputs

    def changed(self, number: int, first: Any, second: Any) -> None:
        """A routing function is changing what a site's experts were about to get."""
        if not self.before:
            self.before = {}
        self.before[number] = first, second

    def probed(self, number: int, rows: ProbeRows) -> None:
        """A router that is being studied was called."""
        if not self.probes:
            self.probes = {}
        self.probes[number] = rows

    def note(self, number: int, time: int, first: Any, second: Any) -> None:
        """A site's experts got their routing."""
        at = SEEN * number
        if self.seen[at + 1]:
            self.repeat(number)
        self.seen[at + 1], self.seen[at + 2], self.seen[at + 3] = time, first, second

    def returned(self, number: int, output: Any) -> None:
        """A site's router returned."""
        at = SEEN * number
        if self.seen[at] is not None:
            self.repeat(number)
        self.seen[at] = output

    def routing(self, number: int) -> tuple[Any, Any]:
        """What a site's experts got."""
        first, second = self.seen[SEEN * number + 2 : SEEN * (number + 1)]
        return first, second

    @property
    def times(self) -> list[int]:
        """By site number, as ``first``, ``second`` and ``outputs``."""
        return self.seen[1::SEEN]

    @property
    def first(self) -> list[Any]:
        """The routing that the sites' experts got, and ``second``."""
        return self.seen[2::SEEN]

    @property
    def second(self) -> list[Any]:
        """See ``first``."""
        return self.seen[3::SEEN]

    @property
    def outputs(self) -> list[Any]:
        """What the routers returned."""
        return self.seen[0::SEEN]

    @property
    def on_host(self) -> bool:
        """Whether nothing that the hooks saw lies on another device: experts may lie on the host and all else not."""
        for value in self.first:
            if value is not None and not (value if isinstance(value, Tensor) else value[0]).is_cpu:
                return False
        if self.logits is not None and not self.logits.is_cpu:
            return False
        noted = (tensor for _, _, tensors in self.extras for tensor in tensors)
        return all(inputs.on_host for inputs in self.inputs.values()) and all(tensor.is_cpu for tensor in noted)

    def repeat(self, number: int) -> None:
        """A site is called again: lay its last call aside."""
        at = SEEN * number
        output, _, first, second = self.seen[at : at + SEEN]
        if not self.earlier:
            self.earlier = {}
        self.earlier.setdefault(number, []).append((first, second, output))
        self.seen[at], self.seen[at + 1] = None, 0

    def release(self) -> None:
        """Let go of every tensor that the sites' hooks noted."""
        times = self.times
        self.seen = [None] * len(self.seen)
        self.seen[1::SEEN] = times
        self.logits = None
        for number in self.before:
            self.before[number] = None, None

    def stood(self, nanoseconds: int) -> None:
        """See ``StepFrame``."""
        self.started += nanoseconds
        self.seen[1::SEEN] = [time and time + nanoseconds for time in self.times]

    def knows(self, stacks: tuple[str, ...]) -> bool:
        """Whether the tokens of these stacks are known in full."""
        for stack in stacks:
            inputs = self.inputs.get(stack)
            if inputs is None or inputs.shape is None:
                return False
        return True

    def phase(self, stack: str) -> Phase:
        """See ``StepFrame``."""
        inputs = self.inputs.get(stack)
        return Phase.PREFILL if inputs is None else inputs.phase

    def passed(self, number: int) -> bool:
        """See ``StepFrame``."""
        return bool(self.seen[SEEN * number + 1]) or number in self.earlier

    def sequences(self, stack: str, rows: int) -> int:
        """See ``StepFrame``."""
        inputs = self.inputs.get(stack)
        if inputs is None or inputs.shape is None:
            return 1
        return inputs.shape[0] if inputs.shape[0] * inputs.shape[1] == rows else 0

    def positions(self, stack: str, rows: int, device: torch.device, *, vision: bool = False) -> Tensor:
        """See ``StepFrame``."""
        inputs = self.inputs.get(stack)
        if inputs is None or inputs.shape is None:
            return torch.arange(rows, device=device)
        whole = inputs.shape[0] * inputs.shape[1]
        if whole != rows:
            if inputs.modality is None or inputs.modality.numel() != whole:
                return torch.arange(rows, device=device)
            # The model itself waits for the device here, to pick them.
            here = ((inputs.modality != 0) == vision).reshape(-1).to(device)
            own = self.positions(stack, whole, device)[here]
            return own if len(own) == rows else torch.arange(rows, device=device)
        batch, new = inputs.shape
        places = inputs.place()
        if places is not None:
            return places.to(device).reshape(-1)
        mask = inputs.mask
        if mask is not None and mask.shape[1] >= new:
            kept = mask.to(device)
            place = kept.long().cumsum(1) - 1
            if mask.shape[1] == new:
                place = place + inputs.past_on(device)
            return place.masked_fill(kept == 0, -1)[:, -new:].reshape(-1)
        if inputs.positions is not None and tuple(inputs.positions.shape) == (batch, new):
            return inputs.positions.to(device).reshape(-1)
        return (torch.arange(new, device=device) + inputs.past_on(device)).expand(batch, new).reshape(-1)
