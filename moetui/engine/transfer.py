"""Takes a step's tensors off their devices: one buffer and one asynchronous copy a device, one event at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """The tensors of one device, end to end in ``buffer``: their numbers, types and shapes, in that order."""

    buffer: Tensor
    contents: tuple[tuple[int, torch.dtype, torch.Size], ...]


class Transfer:
    """Tensors on their way to the host.

    Tensors of one device are laid end to end in one buffer of bytes there, copied in one go, and read in place on the
    host, in their own type: nothing is converted on the way. On CUDA the copy goes to pinned memory and nobody waits
    for it until ``arrived``; on other devices it is synchronous; what is on the host already stays as it is.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._count = len(tensors)
        self._here = {number: tensor for number, tensor in enumerate(tensors) if tensor.is_cpu}
        self._events: list[torch.cuda.Event] = []
        away: dict[torch.device, dict[torch.dtype, list[int]]] = {}
        for number, tensor in enumerate(tensors):
            if not tensor.is_cpu:
                away.setdefault(tensor.device, {}).setdefault(tensor.dtype, []).append(number)
        self._sent = [self._send(device, by_type, tensors) for device, by_type in away.items()]

    def arrived(self) -> list[Tensor]:
        """The tensors on the host, in the order given; waits for the copies without holding the interpreter."""
        for event in self._events:
            event.synchronize()
        found = dict(self._here)
        for sent in self._sent:
            offset = 0
            for number, dtype, shape in sent.contents:
                nbytes = shape.numel() * dtype.itemsize
                found[number] = sent.buffer[offset : offset + nbytes].view(dtype).view(shape)
                offset += nbytes
        return [found[number] for number in range(self._count)]

    def _send(self, device: torch.device, by_type: dict[torch.dtype, list[int]], tensors: Sequence[Tensor]) -> _Sent:
        # Larger elements first, so that each tensor starts at a multiple of its element's size.
        ordered = sorted(by_type.items(), key=lambda item: -item[0].itemsize)
        parts = [_joined([tensors[number] for number in numbers]) for _, numbers in ordered]
        packed = parts[0] if len(parts) == 1 else torch.cat(parts)
        # On CUDA a copy to the host that nobody waits for goes to pinned memory by itself.
        buffer = packed.to("cpu", non_blocking=device.type == "cuda")
        if device.type == "cuda":
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._events.append(event)
        contents = tuple((number, dtype, tensors[number].shape) for dtype, numbers in ordered for number in numbers)
        return _Sent(buffer, contents)


def _joined(tensors: list[Tensor]) -> Tensor:
    """Tensors of one type as bytes."""
    first = tensors[0]
    if len(tensors) == 1:
        whole = first
    elif first.dim() and all(tensor.shape[1:] == first.shape[1:] for tensor in tensors):
        whole = torch.cat(tensors)
    else:
        whole = torch.cat([tensor.reshape(-1) for tensor in tensors])
    return whole.reshape(-1).contiguous().view(torch.uint8)
