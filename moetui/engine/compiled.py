"""Compiled models: hooks break the graph where they stand; code compiled before they came is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from moetui.routing import UnsupportedError

_HINT = "give moetui the model before it is compiled, or pass disable_compile=True to generate"


def refuse_compiled(model: nn.Module) -> None:
    """Check that no module runs as code that was compiled without hooks.

    Raises:
        UnsupportedError: the model, or a module in it, was compiled; such code never looks at hooks that come later.
    """
    for path, module in model.named_modules():
        # ``torch.compile(module)`` wraps it, ``module.compile()`` and ``generate`` leave these attributes.
        compiled = (getattr(module, name, None) for name in ("_compiled_call_impl", "_compiled_call"))
        if hasattr(module, "_orig_mod") or any(call is not None for call in compiled):
            where = f"its module {path}" if path else "the model"
            raise UnsupportedError(f"{where} is compiled, so that hooks would be skipped", _HINT)


def breaking(handle: RemovableHandle, on_compile: Callable[[], None] | None = None) -> RemovableHandle:
    """Let a hook break the graph where a module is compiled: there it runs as plain Python, on real tensors.

    Args:
        handle: of the hook; it is replaced in its dictionary.
        on_compile: called before the hook where it runs between compiled graphs.
    """
    hooks = handle.hooks_dict_ref()
    assert hooks is not None
    hook: Callable[..., Any] = hooks[handle.id]
    compiling = torch.compiler.is_compiling

    def between(*args: Any) -> Any:
        if on_compile is not None:
            on_compile()
        return hook(*args)

    outside: Callable[..., Any] = torch.compiler.disable(between)  # type: ignore[no-untyped-call]

    def traced(*args: Any) -> Any:
        # Leaving the graph costs microseconds even where there is none.
        return outside(*args) if compiling() else hook(*args)

    hooks[handle.id] = traced
    return handle
