"""One forward pass as NumPy arrays: what the recorder hands to the timeline and to the trace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from moetui.routing.phase import Phase

NO_EXPERT = 0xFFFF
"""In ``indices``: no expert in this slot (site not passed, token dropped, fewer experts than slots)."""

U8: TypeAlias = NDArray[np.uint8]
U16: TypeAlias = NDArray[np.uint16]
I16: TypeAlias = NDArray[np.int16]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
F16: TypeAlias = NDArray[np.float16]
F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]


class SiteFlag(IntFlag):
    """Marks on one token at one site."""

    FORCED = 1  # an intervention changed its indices or weights
    DROPPED = 2  # it got no expert: over capacity, or banned everywhere
    NON_FINITE = 4  # its logits or weights hold NaN or infinity


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """Means over the sites a token passed, ``[T]`` each, NaN where unknown (see ``TokenColumns``)."""

    entropy: F32
    confidence: F32
    margin: F32


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One forward pass of the model over T tokens of one stack, S sites, K slots, E router classes.

    Every array is read-only. S, K and E are those of the whole model (``ModelInfo``): a site with fewer slots or
    classes, or one that this step did not pass, is filled with ``NO_EXPERT`` and NaN. K may be larger than the model's
    own in steps in which an intervention gave tokens more slots.

    Attributes:
        index: number of the step within its session, from 0.
        branch: the branch whose tokens these are.
        started: seconds since the session's start.
        duration: milliseconds of the forward pass.
        sequence: ``[T]`` row of the batch.
        position: ``[T]`` position in its sequence, padding not counted; -1 for padding.
        token_id: ``[T]``; -1 where unknown.
        pad: ``[T]`` padding, which statistics leave out.
        logprob: ``[T]`` natural log of the probability the model gave this token; NaN where unknown.
        indices: ``[T, S, K]`` experts in the model's own slot order.
        weights: ``[T, S, K]`` gate weights, NaN where unknown; None when the source has no weights.
        logits: ``[T, S, E]`` the router's first output (``Site.logits_form``); None when not captured.
        flags: ``[T, S]`` ``SiteFlag`` bits.
        candidate_ids: ``[T, C]`` likeliest next tokens, -1 where unknown (only a sequence's last token has them).
        candidate_logprobs: ``[T, C]`` their log-probabilities, NaN where unknown.
        site_ms: ``[S]`` milliseconds from the step's start until the site's experts got their routing, as the host
            saw it; NaN where unknown.
        memory: megabytes (10^6 bytes) that the model's process held at the step's end, or had on its device; NaN where
            unknown.
        vocabulary: text of token ids not met before in this session. Bytes that are no valid UTF-8 stand as lone
            surrogates (``surrogateescape``), so that joining texts and re-encoding gives the original bytes.
        scores: ``token_scores`` of these tokens where they are known already; None where whoever wants them works
            them out.
    """

    index: int
    phase: Phase
    started: float
    duration: float
    sequence: I16
    position: I32
    token_id: I32
    pad: Bool
    logprob: F32
    indices: U16
    weights: F16 | None
    logits: F16 | None
    flags: U8
    candidate_ids: I32
    candidate_logprobs: F16
    site_ms: F32
    branch: int = 0
    stack: str = "decoder"
    vocabulary: Mapping[int, str] = field(default_factory=dict)
    scores: TokenScores | None = None
    memory: float = float("nan")

    @property
    def num_tokens(self) -> int:
        """T, padding included."""
        return int(self.token_id.shape[0])


_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that stand for nothing


def join_texts(texts: list[str]) -> str:
    """Join token texts into readable text: bytes split over tokens meet again, broken ones become U+FFFD."""
    joined = _NO_BYTE.sub("\ufffd", "".join(texts))
    return joined.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
