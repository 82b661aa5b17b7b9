"""Takes a step's tensors off their devices: one buffer and one asynchronous copy a device, one event at its end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moetui.engine.accelerators import accelerator

Contents = tuple[tuple[int, torch.dtype, torch.Size], ...]
"""What lies in a buffer, end to end: number, type and shape of each tensor."""


class Transfer:
    """Tensors on their way to the host.

    Tensors of one device are laid end to end in one buffer of bytes there, copied in one go, and read in place on the
    host, in their own type: nothing is converted on the way. On an accelerator the copy goes to pinned memory and
    nobody waits for it until ``arrived``; elsewhere it is synchronous; what is on the host already stays as it is.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._count = len(tensors)
        self._here = {number: tensor for number, tensor in enumerate(tensors) if tensor.is_cpu}
        self._events: list[torch.Event | torch.cuda.Event] = []
        away: dict[torch.device, dict[int, Tensor]] = {}
        for number, tensor in enumerate(tensors):
            if not tensor.is_cpu:
                away.setdefault(tensor.device, {})[number] = tensor
        self._sent = [self._send(device, numbered) for device, numbered in away.items()]

    def arrived(self) -> list[Tensor]:
        """The tensors on the host, in the order given; waits for the copies without holding the interpreter."""
        for event in self._events:
            event.synchronize()
        found = dict(self._here)
        for buffer, contents in self._sent:
            found |= unpacked(buffer, contents)
        return [found[number] for number in range(self._count)]

    def _send(self, device: torch.device, tensors: dict[int, Tensor]) -> tuple[Tensor, Contents]:
        buffer, contents = packed(tensors)
        waits = not _copies_behind(device)
        # A copy to the host that nobody waits for goes to pinned memory by itself.
        host = buffer.to("cpu", non_blocking=not waits)
        if not waits:
            event = _event(device)
            event.record(torch.accelerator.current_stream(device))
            self._events.append(event)
        return host, contents


def _copies_behind(device: torch.device) -> bool:
    """Whether a copy to the host stands in the device's stream behind what was computed, and an event tells its end."""
    own = accelerator()
    # On MPS such a copy is known to hand on what was not computed yet.
    return own is not None and own.type == device.type != "mps"


def _event(device: torch.device) -> torch.Event | torch.cuda.Event:
    """Whose ``synchronize`` sleeps: only CUDA's own can be told to, and would keep a processor busy otherwise."""
    return torch.cuda.Event(blocking=True) if device.type == "cuda" else torch.Event(device)  # type: ignore[no-untyped-call]


def only_host(model: nn.Module) -> bool:
    """Whether there is no device but the host that tensors of a model could ever lie on."""
    if torch.accelerator.is_available():
        return False
    return all(tensor.device.type in ("cpu", "meta") for tensor in model.parameters())


def packed(tensors: dict[int, Tensor]) -> tuple[Tensor, Contents]:
    """Tensors of one device end to end as bytes, and what lies where."""
    by_type: dict[torch.dtype, list[int]] = {}
    for number, tensor in tensors.items():
        by_type.setdefault(tensor.dtype, []).append(number)
    # Larger elements first, so that each tensor starts at a multiple of its element's size.
    ordered = sorted(by_type.items(), key=lambda item: -item[0].itemsize)
    parts = [_joined([tensors[number] for number in numbers]) for _, numbers in ordered]
    contents = tuple((number, dtype, tensors[number].shape) for dtype, numbers in ordered for number in numbers)
    return parts[0] if len(parts) == 1 else torch.cat(parts), contents


def unpacked(buffer: Tensor, contents: Contents) -> dict[int, Tensor]:
    """The tensors that lie in a buffer, by number, without a copy."""
    found, offset = {}, 0
    for number, dtype, shape in contents:
        nbytes = shape.numel() * dtype.itemsize
        found[number] = buffer[offset : offset + nbytes].view(dtype).view(shape)
        offset += nbytes
    return found


def _joined(tensors: list[Tensor]) -> Tensor:
    """Tensors of one type as bytes."""
    first = tensors[0]
    if first.dim() and all(tensor.dim() == first.dim() and tensor.shape[1:] == first.shape[1:] for tensor in tensors):
        return torch.cat(tensors).reshape(-1).view(torch.uint8)
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).view(torch.uint8)
