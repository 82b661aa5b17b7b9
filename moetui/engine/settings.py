"""The ranges of generation settings. Imports no torch."""

from __future__ import annotations

from moetui.routing import UsageError
from moetui.routing.events import GenerationSettings

_MOST = 2**31
"""No sequence is longer and no vocabulary larger; tensors count up to 2^63 and no further."""


def check_settings(settings: GenerationSettings) -> None:
    """Check what needs no model to be checked.

    Raises:
        UsageError: a number outside its range.
    """
    if settings.max_new_tokens < 1:
        raise UsageError(
            f"the number of new tokens must be at least 1, not {settings.max_new_tokens}", "-n/--max-new-tokens N"
        )
    for count, words in ((settings.max_new_tokens, "the number of new tokens"), (settings.top_k_sampling, "top-k")):
        if count is not None and count >= _MOST:
            raise UsageError(f"{words} must be less than 2^31, not {count}")
    if settings.temperature is not None and not 0 <= settings.temperature < float("inf"):
        raise UsageError(
            f"the temperature must be a number from 0, not {settings.temperature}", "leave it out for greedy"
        )
    if settings.top_p is not None and not 0 < settings.top_p <= 1:
        raise UsageError(f"top-p must lie in (0, 1], not {settings.top_p}", "1 means no limit")
    if settings.top_k_sampling is not None and settings.top_k_sampling < 1:
        raise UsageError(
            f"top-k for sampling must be at least 1, not {settings.top_k_sampling}", "leave it out for none"
        )
    if settings.seed is not None and not 0 <= settings.seed < 2**63:
        raise UsageError(f"the seed must be a number from 0 to 2^63 - 1, not {settings.seed}")
