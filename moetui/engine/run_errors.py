"""Says in one line and a hint why a run broke off."""

from __future__ import annotations

import traceback

import torch

from moetui.routing import ModelError, MoetuiError


def explain_run(error: BaseException, steps: int) -> MoetuiError:
    """The error to show for ``error``, raised by a model after ``steps`` steps had begun."""
    if isinstance(error, MoetuiError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        hint = "a shorter prompt, fewer new tokens, or --dtype bfloat16"
        failure = ModelError(f"out of memory in step {steps}", hint)
    else:
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(str(error).split())
        place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
        hint = "the model stays loaded: try another prompt"
        failure = ModelError(f"the model failed: {type(error).__name__}: {words} ({place})", hint)
    failure.__cause__ = error
    return failure
