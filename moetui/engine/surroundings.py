"""What torch and transformers need of the process that they start in. Imports neither."""

from __future__ import annotations

import sys
from pathlib import Path

from moetui.routing.errors import ModelError


def check_surroundings() -> None:
    """Say why the libraries will not start, where what they say themselves helps nobody.

    Raises:
        ModelError: the working folder was removed, or Python strips docstrings, of which transformers makes code.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ModelError("the folder that this was started in is gone", "start it in one that exists") from None
    if sys.flags.optimize >= 2:
        raise ModelError(
            "Python runs without docstrings, which transformers needs", "unset PYTHONOPTIMIZE, or leave out -OO"
        )
