"""Forward passes that are alike in shape, as NumPy arrays over all of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.phase import Phase
from moetui.routing.step import F16, F32, F64, I16, I32, U8, U16, Bool, Step, TokenScores


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """N consecutive steps of one stack with T tokens each: what ``Step`` says of one, at one go.

    Handing on hundreds of steps a second one by one takes longer than all that is done with them. Rows of tokens stand
    step by step: those of step n are ``n · T .. (n + 1) · T - 1``. Every array is read-only.

    Attributes:
        index, branch, started, duration: ``[N]`` as in ``Step``, seconds and milliseconds.
        site_ms: ``[N, S]`` milliseconds.
        phase, stack, memory: of all of them.
        vocabulary: of all of them; iterating gives it with the first.
        sequence, position, token_id, pad, logprob, indices, weights, logits, flags, candidate_ids, candidate_logprobs,
            scores: as in ``Step``, ``[N · T, ...]``.
    """

    phase: Phase
    index: I32
    branch: I16
    started: F64
    duration: F64
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
    stack: str = "decoder"
    vocabulary: Mapping[int, str] = field(default_factory=dict)
    scores: TokenScores | None = None
    memory: float = float("nan")

    def __len__(self) -> int:
        """N."""
        return len(self.index)

    @property
    def num_tokens(self) -> int:
        """N · T, padding included."""
        return len(self.token_id)

    def __iter__(self) -> Iterator[Step]:
        """The steps one by one, as views of these arrays."""
        count = self.num_tokens // max(1, len(self))
        for number in range(len(self)):
            at = slice(number * count, (number + 1) * count)
            scores = self.scores
            yield Step(
                index=int(self.index[number]),
                phase=self.phase,
                started=float(self.started[number]),
                duration=float(self.duration[number]),
                sequence=self.sequence[at],
                position=self.position[at],
                token_id=self.token_id[at],
                pad=self.pad[at],
                logprob=self.logprob[at],
                indices=self.indices[at],
                weights=None if self.weights is None else self.weights[at],
                logits=None if self.logits is None else self.logits[at],
                flags=self.flags[at],
                candidate_ids=self.candidate_ids[at],
                candidate_logprobs=self.candidate_logprobs[at],
                site_ms=self.site_ms[number],
                branch=int(self.branch[number]),
                stack=self.stack,
                vocabulary={} if number else self.vocabulary,
                scores=scores and TokenScores(scores.entropy[at], scores.confidence[at], scores.margin[at]),
                memory=self.memory,
            )

    def freeze(self) -> None:
        """Make every array read-only."""
        scores = self.scores
        own = [getattr(self, name) for name in self.__slots__]
        for value in (*own, *(() if scores is None else (scores.entropy, scores.confidence, scores.margin))):
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    @staticmethod
    def of(step: Step) -> Steps:
        """One step as several."""
        return Steps(
            phase=step.phase,
            index=np.array([step.index], np.int32),
            branch=np.array([step.branch], np.int16),
            started=np.array([step.started], np.float64),
            duration=np.array([step.duration], np.float64),
            sequence=step.sequence,
            position=step.position,
            token_id=step.token_id,
            pad=step.pad,
            logprob=step.logprob,
            indices=step.indices,
            weights=step.weights,
            logits=step.logits,
            flags=step.flags,
            candidate_ids=step.candidate_ids,
            candidate_logprobs=step.candidate_logprobs,
            site_ms=step.site_ms[None],
            stack=step.stack,
            vocabulary=step.vocabulary,
            scores=step.scores,
            memory=step.memory,
        )


def token_ms(duration: F32 | F64, real: NDArray[np.integer[Any]]) -> F32:
    """``[N]`` milliseconds of each token of some steps.

    Args:
        duration: ``[N]`` milliseconds of the steps.
        real: ``[N]`` their tokens that are no padding.
    """
    # As 32-bit floats first: so it comes out the same from a recording, which holds these.
    return np.asarray(duration.astype(np.float32) / np.maximum(real, 1), np.float32)
