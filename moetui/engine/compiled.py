"""Compiled models: what watches breaks the graph where it stands; code compiled before it came is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from moetui.engine.around import After, Arguments, Around, Before, Handle
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


class BreakingAround(Around):
    """An ``Around`` whose functions break the graph where the module is compiled; its own forward is compiled on.

    Args:
        module, before, after, broke: as of an ``Around``; ``broke`` is not called between compiled graphs.
        on_compile: called before ``before`` between compiled graphs.
    """

    __slots__ = ("_compiling", "_first", "_last", "_traced")

    def __init__(
        self,
        module: nn.Module,
        *,
        before: Before | None = None,
        after: After | None = None,
        broke: Callable[[], None] | None = None,
        on_compile: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(module, before=before, after=after, broke=broke)

        def first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
            if on_compile is not None:
                on_compile()
            before = self.before
            return None if before is None else before(args, kwargs)

        def last(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            after = self.after
            if after is not None:
                after(args, kwargs, output)

        self._first: Before = torch.compiler.disable(first)  # type: ignore[no-untyped-call]
        self._last: After = torch.compiler.disable(last)  # type: ignore[no-untyped-call]
        self._compiling, self._traced = torch.compiler.is_dynamo_compiling, self.inner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        # Leaving the graph costs microseconds even where there is none.
        if not self._compiling():
            return Around.__call__(self, *args, **kwargs)
        # Not within a try, where no graph can break.
        changed = self._first(args, kwargs)
        if changed is not None:
            args, kwargs = changed
        output = self._traced(*args, **kwargs)
        self._last(args, kwargs, output)
        return output


def breaking(handle: Handle) -> Handle:
    """Let what was put on a module break the graph where it is compiled: there it runs as plain Python, on tensors.

    Returns:
        what takes the handle's place.
    """
    if isinstance(handle, Around):
        before, after, broke = handle.before, handle.after, handle.broke
        handle.remove()
        return BreakingAround(handle.module, before=before, after=after, broke=broke)
    if isinstance(handle, RemovableHandle):
        _break_at_hook(handle)
    return handle


def _break_at_hook(handle: RemovableHandle) -> None:
    hooks = handle.hooks_dict_ref()
    assert hooks is not None
    hook: Callable[..., Any] = hooks[handle.id]
    compiling = torch.compiler.is_compiling

    outside: Callable[..., Any] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]

    def traced(*args: Any) -> Any:
        return outside(*args) if compiling() else hook(*args)

    hooks[handle.id] = traced
