"""The timeline: every token that went through the model, in columns, growable and bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from moetui.routing.columns import Columns, Rows
from moetui.routing.model import ModelInfo, Site
from moetui.routing.phase import Phase
from moetui.routing.scores import token_scores
from moetui.routing.step import F16, F32, F64, I16, I32, U8, U16, Bool, Step, TokenScores
from moetui.routing.steps import Steps, token_ms


@dataclass(frozen=True, slots=True, eq=False)
class TokenColumns:
    """The light columns of n consecutive tokens, all ``[n]`` unless said. NaN and -1 mean unknown.

    ``entropy`` (nats), ``confidence`` (largest probability of the full router distribution; the largest gate weight's
    share of the gate mass where logits are unknown) and ``margin`` (k-th minus k+1-th score) are means over the sites
    that the token passed; ``flags`` are the sites' flags or-ed; ``ms`` is the duration of the token's step divided by
    the number of its tokens, padding left out; ``stack`` indexes ``TimelineView.stacks``; ``candidate_*`` are
    ``[n, C]``.
    """

    step: I32
    branch: I16
    phase: U8
    stack: U8
    sequence: I16
    position: I32
    token_id: I32
    pad: Bool
    started: F64
    ms: F32
    logprob: F32
    entropy: F32
    confidence: F32
    margin: F32
    flags: U8
    candidate_ids: I32
    candidate_logprobs: F16


@dataclass(frozen=True, slots=True, eq=False)
class RoutingBlock:
    """The routing of n consecutive tokens: ``[n, S, K]``, ``[n, S, K]``, ``[n, S, E]``, ``[n, S]`` as in ``Step``."""

    indices: U16
    weights: F16 | None
    logits: F16 | None
    flags: U8


@dataclass(frozen=True, slots=True, eq=False)
class StepColumns:
    """The m steps held: ``first_token`` and ``num_tokens`` count timeline tokens, ``site_ms`` is ``[m, S]``.

    ``memory`` is in megabytes, NaN where it is unknown.
    """

    index: I32
    branch: I16
    phase: U8
    started: F64
    duration: F32
    first_token: I32
    num_tokens: I32
    site_ms: F32
    memory: F32


class TimelineView(Protocol):
    """A consistent picture of a timeline: it does not change while one looks at it.

    Tokens are numbered from 0 in the order in which they went through the model; ``first`` is the oldest still held
    (so ``first`` tokens have left), ``end`` one past the newest.
    """

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, as the site axis orders them."""

    @property
    def first(self) -> int:
        """Number of the oldest token held."""

    @property
    def end(self) -> int:
        """One past the newest token."""

    @property
    def stacks(self) -> tuple[str, ...]:
        """Names that ``TokenColumns.stack`` indexes."""

    def tokens(self, start: int, stop: int) -> TokenColumns:
        """Light columns of tokens ``start .. stop - 1``, clipped to what is held."""

    def routing(self, start: int, stop: int) -> RoutingBlock:
        """Routing of tokens ``start .. stop - 1``, clipped to what is held."""

    def steps(self) -> StepColumns:
        """The steps whose tokens are held."""

    def text(self, token_id: int) -> str:
        """Text of a token id (not yet made drawable); ``‹id›`` where unknown, ``‹?›`` where the id is, too."""


def read_ids(parts: Iterable[tuple[TokenColumns, Bool]]) -> list[int]:
    """Ids of the tokens to keep as a person reads them: run by run, and the sequences of a batch one by one.

    Args:
        parts: consecutive tokens with ``[n]`` those that are kept.
    """
    kept = [
        (tokens.token_id[keep], tokens.sequence[keep], np.where(tokens.phase == Phase.PREFILL, tokens.step, -1)[keep])
        for tokens, keep in parts
    ]
    if not kept:
        return []
    ids, sequence, prefill = (np.concatenate(column) for column in zip(*kept))
    if sequence.any():
        run = np.cumsum((prefill >= 0) & (np.diff(prefill, prepend=-1) != 0))
        ids = ids[np.lexsort((sequence, run))]
    return ids.tolist()  # type: ignore[no-any-return]


def view_text(view: TimelineView) -> str:
    """A view in one line, for who looks at it in Python: its arrays would fill the screen."""
    held = f"tokens {view.first} to {view.end - 1}" if view.end > view.first else "no tokens"
    return f"{held} at {len(view.sites)} sites; tokens(start, stop), routing(start, stop), steps(), text(token_id)"


class TimelineSource(Protocol):
    """What gives views: the live timeline, or a recording up to the replay's cursor."""

    def snapshot(self) -> TimelineView:
        """The present picture; cheap."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _View:
    sites: tuple[Site, ...]
    first: int
    stacks: tuple[str, ...]
    _tokens: dict[str, np.ndarray[Any, Any]]
    _steps: dict[str, np.ndarray[Any, Any]]
    _vocabulary: dict[int, str]

    def __repr__(self) -> str:
        return f"<{view_text(self)}>"

    @property
    def end(self) -> int:
        return self.first + int(self._tokens["step"].shape[0])

    def _range(self, start: int, stop: int) -> slice:
        low = min(max(start, self.first), self.end)
        return slice(low - self.first, max(min(stop, self.end), low) - self.first)

    def tokens(self, start: int, stop: int) -> TokenColumns:
        rows = self._range(start, stop)
        return TokenColumns(**{field.name: self._tokens[field.name][rows] for field in fields(TokenColumns)})

    def routing(self, start: int, stop: int) -> RoutingBlock:
        rows = self._range(start, stop)
        weights, logits = self._tokens.get("weights"), self._tokens.get("logits")
        return RoutingBlock(
            indices=self._tokens["indices"][rows],
            weights=None if weights is None else weights[rows],
            logits=None if logits is None else logits[rows],
            flags=self._tokens["site_flags"][rows],
        )

    def steps(self) -> StepColumns:
        return StepColumns(**{field.name: self._steps[field.name] for field in fields(StepColumns)})

    def text(self, token_id: int) -> str:
        return self._vocabulary.get(token_id, unknown_text(token_id))


class Timeline:
    """The live timeline: one thread appends steps, any thread takes snapshots.

    Args:
        info: the model, for its sites.
        max_tokens: how many tokens are held; older steps leave whole, and ``snapshot().first`` counts their tokens.
            The newest step is always held.
    """

    def __init__(self, info: ModelInfo, max_tokens: int = 100_000) -> None:
        self._lock = threading.Lock()
        self._info = info
        self._max_tokens = max(1, max_tokens)
        self._columns: Columns | None = None
        self._steps: Columns | None = None
        self._first = 0
        self._stacks: list[str] = []
        self._vocabulary: dict[int, str] = {}

    def append(self, step: Step) -> int:
        """Add a step's tokens; return the number of tokens that ever were in the timeline.

        Raises:
            ValueError: the step's arrays do not fit those before it.
        """
        return self.extend(Steps.of(step))

    def extend(self, added: Steps) -> int:
        """Add the tokens of several steps, as if one by one but at the cost of one; see ``append``."""
        sites = self._info.sites
        if added.indices.ndim != 3 or added.indices.shape[1] != len(sites):
            raise ValueError(f"indices have shape {added.indices.shape}, for {len(sites)} sites")
        scores = token_scores(added, sites)
        with self._lock:
            stacks = self._stacks if added.stack in self._stacks else [*self._stacks, added.stack]
            rows = _token_rows(added, stacks.index(added.stack), scores)
            step_rows = _step_rows(added, self._first + self._held())
            columns, steps = self._columns, self._steps
            if columns is None or steps is None:
                columns, steps = Columns(rows, 256), Columns(step_rows, 64)
            fits, steps_fit = columns.check(rows, added.num_tokens), steps.check(step_rows, len(added))
            columns.append(rows, added.num_tokens, fits)
            steps.append(step_rows, len(added), steps_fit)
            self._columns, self._steps, self._stacks = columns, steps, stacks
            self._vocabulary.update(added.vocabulary)
            self._drop_oldest()
            return self._first + self._held()

    def clear(self) -> None:
        """Forget all tokens held; numbering goes on."""
        with self._lock:
            self._first += self._held()
            self._columns = self._steps = None

    def update_info(self, info: ModelInfo) -> None:
        """Take over what became known of the model; sites keep their number and order."""
        with self._lock:
            self._info = info

    def snapshot(self) -> TimelineView:
        """A consistent view of all tokens held; no data is copied."""
        with self._lock:
            if self._columns is None or self._steps is None:
                return empty_view(self._info, self._first)
            return _View(
                self._info.sites,
                self._first,
                tuple(self._stacks),
                self._columns.slices(),
                self._steps.slices(),
                self._vocabulary,
            )

    def _held(self) -> int:
        return 0 if self._columns is None else self._columns.stop - self._columns.start

    def _drop_oldest(self) -> None:
        if self._columns is None or self._steps is None or self._held() <= self._max_tokens:
            return
        steps = self._steps.slices()["num_tokens"]
        number = tokens = 0
        while number < len(steps) - 1 and self._held() - tokens > self._max_tokens:
            tokens += int(steps[number])
            number += 1
        self._columns.drop(tokens)
        self._steps.drop(number)
        self._first += tokens


def unknown_text(token_id: int) -> str:
    """What stands for the text of a token that nobody told."""
    return f"‹{token_id}›" if token_id >= 0 else "‹?›"


def empty_view(info: ModelInfo, first: int = 0) -> TimelineView:
    """A view without tokens, with arrays of the right dtypes and shapes."""
    sites, k, classes = len(info.sites), info.top_k, info.num_classes
    empty = Steps(
        phase=Phase.DECODE,
        index=np.empty(0, np.int32),
        branch=np.empty(0, np.int16),
        started=np.empty(0, np.float64),
        duration=np.empty(0, np.float64),
        sequence=np.empty(0, np.int16),
        position=np.empty(0, np.int32),
        token_id=np.empty(0, np.int32),
        pad=np.empty(0, np.bool_),
        logprob=np.empty(0, np.float32),
        indices=np.empty((0, sites, k), np.uint16),
        weights=np.empty((0, sites, k), np.float16),
        logits=np.empty((0, sites, classes), np.float16),
        flags=np.empty((0, sites), np.uint8),
        candidate_ids=np.empty((0, 0), np.int32),
        candidate_logprobs=np.empty((0, 0), np.float16),
        site_ms=np.empty((0, sites), np.float32),
    )
    rows = _none_of(_token_rows(empty, 0, token_scores(empty, info.sites)))
    return _View(info.sites, first, (), rows, _none_of(_step_rows(empty, 0)), {})


def view_of(steps: Steps, sites: tuple[Site, ...]) -> TimelineView:
    """Some steps by themselves, their tokens numbered from 0; scores that they do not bring are unknown."""
    unknown = np.full(steps.num_tokens, np.nan, np.float32)
    rows = _token_rows(steps, 0, steps.scores or TokenScores(unknown, unknown, unknown))
    tokens, held = _each(rows, steps.num_tokens), _each(_step_rows(steps, 0), len(steps))
    return _View(sites, 0, (steps.stack,), tokens, held, dict(steps.vocabulary))


def _each(rows: dict[str, Rows], count: int) -> dict[str, np.ndarray[Any, Any]]:
    return {name: row if isinstance(row, np.ndarray) else row.repeat(count) for name, row in rows.items()}


def _none_of(rows: dict[str, Rows]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.atleast_1d(row)[:0] for name, row in rows.items()}


def _token_rows(steps: Steps, stack: int, scores: TokenScores) -> dict[str, Rows]:
    count = steps.num_tokens
    each = count // max(1, len(steps))  # tokens of a step

    def of_steps(values: np.ndarray[Any, Any]) -> Rows:
        if len(values) == 1:
            return values[0]  # type: ignore[no-any-return]  # one number for all of them
        return values if each == 1 else np.repeat(values, each)

    real = each - np.count_nonzero(steps.pad.reshape(len(steps), each), axis=1)
    rows: dict[str, Rows] = {
        "step": of_steps(steps.index),
        "branch": of_steps(steps.branch),
        "phase": np.uint8(steps.phase),
        "stack": np.uint8(stack),
        "sequence": steps.sequence,
        "position": steps.position,
        "token_id": steps.token_id,
        "pad": steps.pad,
        "started": of_steps(steps.started),
        "ms": of_steps(token_ms(steps.duration, real)),
        "logprob": steps.logprob,
        "entropy": scores.entropy,
        "confidence": scores.confidence,
        "margin": scores.margin,
        "flags": np.bitwise_or.reduce(steps.flags, axis=1) if steps.flags.shape[1] else np.zeros(count, np.uint8),
        "candidate_ids": steps.candidate_ids,
        "candidate_logprobs": steps.candidate_logprobs,
        "indices": steps.indices,
        "site_flags": steps.flags,
    }
    if steps.weights is not None:
        rows["weights"] = steps.weights
    if steps.logits is not None:
        rows["logits"] = steps.logits
    return rows


def _step_rows(steps: Steps, first_token: int) -> dict[str, Rows]:
    each = steps.num_tokens // max(1, len(steps))
    return {
        "index": steps.index,
        "branch": steps.branch,
        "phase": np.uint8(steps.phase),
        "started": steps.started,
        "duration": steps.duration.astype(np.float32),
        "first_token": np.arange(len(steps), dtype=np.int32) * np.int32(each) + np.int32(first_token),
        "num_tokens": np.int32(each),
        "site_ms": steps.site_ms,
        "memory": np.float32(steps.memory),
    }
