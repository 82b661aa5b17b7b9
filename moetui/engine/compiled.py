"""Compiled models run without looking at hooks: they are refused with a reason instead of captured as nothing."""

from __future__ import annotations

from torch import nn

from moetui.routing import UnsupportedError

_HINT = "give moetui the model before torch.compile, and pass disable_compile=True to generate"


def refuse_compiled(model: nn.Module) -> None:
    """Check that no module runs as compiled code.

    Raises:
        UnsupportedError: the model, or a module in it, was compiled.
    """
    for path, module in model.named_modules():
        # ``torch.compile(module)`` wraps it, ``module.compile()`` sets this attribute.
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            where = f"its module {path}" if path else "the model"
            raise UnsupportedError(f"{where} is compiled, so that hooks would be skipped", _HINT)
