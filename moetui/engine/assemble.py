"""From a gathered pass on the host to ``Step`` values: NumPy, in the recorder's thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moetui.engine.gather import Gathered, Prediction, SiteTensors
from moetui.engine.options import CaptureOptions
from moetui.engine.raw import TokenInputs
from moetui.engine.texts import TokenTexts
from moetui.engine.tokens import TokenArrays, attribute_rows, token_arrays
from moetui.routing import NO_EXPERT, Site, SiteFlag, Step
from moetui.routing.step import F16, F32, I32, U8, U16

_LARGEST = np.float32(np.finfo(np.float16).max)


class Assembler:
    """Builds the steps of one session.

    Args:
        sites: as many as arrays have site columns. options: what to keep. texts: of token ids.
        epoch: ``perf_counter_ns`` that ``Step.started`` counts from.
    """

    def __init__(self, sites: Sequence[Site], options: CaptureOptions, texts: TokenTexts, epoch: int) -> None:
        self._sites, self._options, self._texts, self._epoch = sites, options, texts, epoch
        self._kept = [options.layers is None or site.layer in options.layers for site in sites]
        self._slots = max(site.top_k for site in sites)
        self._classes = max(site.num_classes for site in sites)
        self._told: set[int] = set()
        self.unattributed: set[int] = set()

    def steps(self, gathered: Gathered) -> Iterator[Step]:
        """One step a stack that had tokens, encoder first; every site's tensors must be on the host."""
        stacks: dict[str, list[SiteTensors]] = {stack: [] for stack in gathered.inputs}
        for passed in gathered.sites:
            if self._kept[passed.number]:
                stacks.setdefault(self._sites[passed.number].stack, []).append(passed)
        for stack, sites in stacks.items():
            rows = _rows(gathered.inputs.get(stack), sites)
            if rows:
                yield self._step(gathered, stack, token_arrays(gathered.inputs.get(stack), rows), sites)

    def _step(self, gathered: Gathered, stack: str, tokens: TokenArrays, passed: list[SiteTensors]) -> Step:
        raw, rows = gathered.raw, tokens.token_id.shape[0]
        inputs = gathered.inputs.get(stack)
        whole = [site for site in passed if site.indices.shape[0] == rows]
        width = max([self._slots, *(site.indices.shape[1] for site in passed)])
        routing = _Routing(rows, len(self._sites), width, self._classes, self._options)
        routing.fill(whole)
        for site in passed:
            if site.indices.shape[0] != rows:
                self._fill_part(routing, site, inputs, rows)
        logprob, ids, logprobs = self._predictions(gathered.prediction if stack == "decoder" else None, tokens)
        site_ms = np.full(len(self._sites), np.nan, np.float32)
        for site in passed:
            site_ms[site.number] = (site.time - raw.started) * 1e-6
        return Step(
            index=raw.index,
            phase=tokens.phase,
            started=(raw.started - self._epoch) * 1e-9,
            duration=(raw.ended - raw.started) * 1e-6,
            sequence=tokens.sequence,
            position=tokens.position,
            token_id=tokens.token_id,
            pad=tokens.pad,
            logprob=logprob,
            indices=routing.indices,
            weights=routing.weights,
            logits=routing.logits,
            flags=routing.flags(self._sites, passed),
            candidate_ids=ids,
            candidate_logprobs=logprobs,
            site_ms=site_ms,
            branch=raw.branch,
            stack=stack,
            vocabulary=self._vocabulary(tokens.token_id.tolist(), ids.ravel().tolist()),
        )

    def _fill_part(self, routing: _Routing, part: SiteTensors, inputs: TokenInputs | None, rows: int) -> None:
        """A site that got some of the tokens only: those of its modality, if the model was told which they are."""
        at = attribute_rows(inputs, rows, part.indices.shape[0], vision="vision" in self._sites[part.number].name)
        if at is None:
            self.unattributed.add(part.number)
        else:
            routing.fill_rows(part, at)

    def _predictions(self, prediction: Prediction | None, tokens: TokenArrays) -> tuple[F32, I32, F16]:
        rows = tokens.token_id.shape[0]
        logprob = np.full(rows, np.nan, np.float32)
        ids = np.full((rows, self._options.candidates), -1, np.int32)
        logprobs = np.full((rows, self._options.candidates), np.nan, np.float16)
        if prediction is None or rows != tokens.batch * tokens.new:
            return logprob, ids, logprobs
        batch, new = tokens.batch, tokens.new
        last = np.full(batch, new - 1) if prediction.last is None else prediction.last.numpy()
        at = np.arange(batch) * new + last
        count = prediction.ids.shape[1]
        ids[at, :count] = prediction.ids.numpy()
        logprobs[at, :count] = prediction.logprobs.numpy()
        if prediction.first is not None and int(prediction.expected) == tokens.past:
            logprob[::new] = prediction.first.numpy()
        if prediction.inner is not None:
            logprob.reshape(batch, new)[:, 1:] = prediction.inner.numpy()
            # The token before the first real one is padding: it predicts nothing.
            after_pad = np.zeros((batch, new), np.bool_)
            after_pad[:, 1:] = tokens.pad.reshape(batch, new)[:, :-1]
            logprob[after_pad.ravel()] = np.nan
        logprob[tokens.pad | (tokens.token_id < 0)] = np.nan
        return logprob, ids, logprobs

    def _vocabulary(self, *ids: Iterable[int]) -> dict[int, str]:
        new = set().union(*ids) - self._told
        new.discard(-1)
        self._told |= new
        return {token: self._texts.text(token) for token in new}


class _Routing:
    """The arrays of one step, filled site by site or all at once where all have one shape."""

    def __init__(self, rows: int, sites: int, slots: int, classes: int, options: CaptureOptions) -> None:
        self._shape = (rows, sites, slots, classes)
        self._options = options
        self.indices: U16 = np.empty((0, 0, 0), np.uint16)
        self.weights: F16 | None = None
        self.logits: F16 | None = None

    def fill(self, passed: list[SiteTensors]) -> None:
        rows, sites, slots, classes = self._shape
        numbers = [site.number for site in passed]
        self.indices = _stacked([site.indices for site in passed], numbers, (rows, sites, slots), np.uint16, NO_EXPERT)
        if self._options.weights:
            self.weights = _stacked(
                [site.weights for site in passed], numbers, (rows, sites, slots), np.float16, np.nan
            )
        if self._options.logits:
            with_logits = [site for site in passed if site.logits is not None and site.logits.shape[0] == rows]
            self.logits = _stacked(
                [site.logits for site in with_logits if site.logits is not None],
                [site.number for site in with_logits],
                (rows, sites, classes),
                np.float16,
                np.nan,
            )

    def fill_rows(self, part: SiteTensors, at: NDArray[np.intp]) -> None:
        number, slots = part.number, part.indices.shape[1]
        self.indices[at, number, :slots] = part.indices.numpy().astype(np.uint16)
        if self.weights is not None:
            self.weights[at, number, :slots] = _half(part.weights)
        if self.logits is not None and part.logits is not None:
            self.logits[at, number, : part.logits.shape[1]] = _half(part.logits)

    def flags(self, sites: Sequence[Site], passed: list[SiteTensors]) -> U8:
        rows, count = self._shape[:2]
        flags: U8 = np.zeros((rows, count), np.uint8)
        for site in passed:
            if site.before_indices is not None and site.before_weights is not None:
                moved = _moved(site.before_indices, site.indices) | _moved(site.before_weights, site.weights)
                if moved.shape[0] == rows:
                    flags[:, site.number] |= np.where(moved.numpy(), SiteFlag.FORCED, 0).astype(np.uint8)
        numbers = [site.number for site in passed]
        self._flag_dropped(flags, sites, numbers)
        for values in (self.weights, self.logits):
            if values is not None and passed:
                self._flag_non_finite(flags, values, passed)
        return flags

    def _flag_dropped(self, flags: U8, sites: Sequence[Site], numbers: list[int]) -> None:
        if self.weights is None or not numbers:
            return
        idle = (self.indices == NO_EXPERT) | (self.weights == 0)
        if not idle.any():
            return
        counts = np.array([site.num_experts for site in sites])
        # A class past the experts is a choice of its own: to skip.
        idle &= (self.indices == NO_EXPERT) | (self.indices < counts[None, :, None])
        passed = np.zeros(len(sites), np.bool_)
        passed[numbers] = True
        flags[idle.all(-1) & passed] |= np.uint8(SiteFlag.DROPPED)

    def _flag_non_finite(self, flags: U8, values: F16, passed: list[SiteTensors]) -> None:
        odd = ~np.isfinite(values)
        for site in passed:
            width = (
                site.indices.shape[1]
                if values is self.weights
                else (0 if site.logits is None else site.logits.shape[1])
            )
            if odd[:, site.number, :width].any():
                here = odd[:, site.number, :width].any(-1) & (self.indices[:, site.number] != NO_EXPERT).any(-1)
                flags[here, site.number] |= np.uint8(SiteFlag.NON_FINITE)


def _rows(inputs: TokenInputs | None, passed: list[SiteTensors]) -> int:
    """Tokens of a stack: as its arguments say, or as its busiest site saw."""
    seen = max((int(site.indices.shape[0]) for site in passed), default=0)
    told = 0 if inputs is None or inputs.shape is None else inputs.shape[0] * inputs.shape[1]
    return max(seen, told)


def _stacked(
    tensors: list[Tensor], numbers: list[int], shape: tuple[int, int, int], dtype: Any, fill: float
) -> NDArray[Any]:
    """Sites' ``[T, width]`` tensors as one array of ``shape``, ``fill`` where a site has none or is narrower."""
    _, sites, width = shape
    widths = {(tensor.shape[1], tensor.dtype) for tensor in tensors}
    if len(widths) == 1:
        values = _host(torch.stack(tensors, 1), dtype)
        if numbers == list(range(sites)) and values.shape[2] == width:
            return values
        out = np.full(shape, fill, dtype)
        out[:, numbers, : values.shape[2]] = values
        return out
    out = np.full(shape, fill, dtype)
    for number, tensor in zip(numbers, tensors):
        out[:, number, : tensor.shape[1]] = _host(tensor, dtype)
    return out


def _host(values: Tensor, dtype: Any) -> NDArray[Any]:
    return _half(values) if dtype is np.float16 else values.numpy().astype(dtype)


def _half(values: Tensor) -> F16:
    """In half precision; finite values beyond its range become its largest, not infinite."""
    array = (values if values.dtype in (torch.float32, torch.float16, torch.float64) else values.float()).numpy()
    with np.errstate(over="ignore"):
        half: F16 = array.astype(np.float16)
    if not np.isfinite(half).all():
        half = np.where(np.isinf(array), array, np.clip(array, -_LARGEST, _LARGEST)).astype(np.float16)
    return half


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """``[T]`` whether a row changed; with other slots than before every row did."""
    if before.shape != after.shape:
        return torch.ones(after.shape[0], dtype=torch.bool)
    return (before != after).any(-1)
