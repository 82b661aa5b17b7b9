"""What would make the generating thread wait for a device, told from the calls: on the host none of them takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

import moetui

_OURS, _TORCHS = str(Path(moetui.__file__).parent), str(Path(torch.__file__).parent)
# Values go to the host, or a tensor is made of values there and sent to the device.
_WAITING = {
    *("item", "tolist", "numpy", "cpu", "equal", "nonzero", "unique", "bincount", "masked_select"),
    *("__bool__", "__int__", "__float__", "__index__", "__contains__", "__array__"),
}
_MAKING = ("tensor", "as_tensor")
_INDEXING = ("__getitem__", "__setitem__")


class Waits(TorchFunctionMode):
    """Within it ``found`` has every such call that moetui's own code makes in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        made = name in _MAKING and "device" in (kwargs or {})
        if made or name in _WAITING or (name in _INDEXING and _by_values(args[1])):
            frame = sys._getframe(1)
            while frame.f_back is not None and frame.f_code.co_filename.startswith(_TORCHS):
                frame = frame.f_back
            if frame.f_code.co_filename.startswith(_OURS):
                self.found.append(f"{name} in {frame.f_code.co_qualname if sys.version_info >= (3, 11) else ''}")
        return func(*args, **dict(kwargs or {}))


def _by_values(index: Any) -> bool:
    if isinstance(index, tuple):
        return any(map(_by_values, index))
    return isinstance(index, list) or (isinstance(index, torch.Tensor) and index.dtype is torch.bool)
