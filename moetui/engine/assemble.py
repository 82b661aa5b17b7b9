"""From gathered passes on the host to ``Steps``: NumPy, in the recorder's thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moetui.engine.endings import Endings
from moetui.engine.gather import Gathered, SiteColumns, SiteTensors
from moetui.engine.inputs import TokenInputs
from moetui.engine.options import CaptureOptions
from moetui.engine.predict import Prediction
from moetui.engine.raw import RawStep
from moetui.engine.routing_arrays import RoutingArrays
from moetui.engine.texts import TokenTexts
from moetui.engine.tokens import TokenArrays, attribute_rows, decode_arrays, token_arrays
from moetui.routing import Site
from moetui.routing.events import Finding
from moetui.routing.scores import routing_scores
from moetui.routing.step import F16, F32, I32, U8, TokenScores
from moetui.routing.steps import Steps


class Assembler:
    """Builds the steps of one session.

    Args:
        sites: as many as arrays have site columns.
        options: what to keep.
        texts: of token ids.
        epoch: ``perf_counter_ns`` that ``Step.started`` counts from.
        on_finding: told once of each site whose routing a step cannot show in full.
        described: gives the sites with all that is known of them by now, for the scores.
        endings: tells padding behind the end of a sequence.
        memory: gives ``Step.memory``.

    Attributes:
        described: see above.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        options: CaptureOptions,
        texts: TokenTexts,
        epoch: int,
        on_finding: Callable[[Finding], None],
        described: Callable[[], tuple[Site, ...]],
        endings: Endings | None = None,
        memory: Callable[[], float] = lambda: math.nan,
    ) -> None:
        self._endings, self._memory = endings or Endings(), memory
        self._on_finding = on_finding
        self._sites, self._options, self._texts, self._epoch = tuple(sites), options, texts, epoch
        self.described = described
        self._kept = [options.layers is None or site.layer in options.layers for site in sites]
        self._told: set[int] = set()
        self._reported: set[tuple[str, int]] = set()

    def steps(self, run: Sequence[Gathered], prediction: Prediction | None) -> Iterator[Steps]:
        """The steps of each stack that had tokens.

        Args:
            run: passes on the host; several only if each adds one token to the same sequences of one stack, at the
                same sites, so that their arrays can be made at one go.
            prediction: of all of them.
        """
        stacks: dict[str, list[SiteTensors]] = {stack: [] for stack in run[0].inputs}
        for gathered in run:
            for passed in gathered.sites:
                if self._kept[passed.number]:
                    stacks.setdefault(self._sites[passed.number].stack, []).append(passed)
        for number in run[0].repeated:
            self._report(
                "site_repeated",
                number,
                "is passed several times in one pass: its last routing is shown",
                "loads and statistics leave its earlier routings out; interventions hold for all of them",
            )
        raws = [gathered.raw for gathered in run]
        for stack, passed_sites in stacks.items():
            inputs = [gathered.inputs.get(stack) for gathered in run]
            rows = _rows(inputs[0], passed_sites)
            if not rows:
                continue
            tokens = self._tokens(inputs, stack, rows)
            whole = [site for site in passed_sites if site.indices.shape[0] == rows]
            columns = SiteColumns.of(whole, len(run))
            routing = RoutingArrays(self._sites, self._options, rows, len(run))
            routing.fill(columns)
            for site in passed_sites:
                if site.indices.shape[0] != rows:
                    self._fill_part(routing, site, inputs[0], rows)
            times = self._times(raws, columns, passed_sites if len(run) == 1 else ())
            yield self._recorded(raws, stack, tokens, routing, times, prediction if stack == "decoder" else None)

    def alike_steps(self, raws: Sequence[RawStep], columns: SiteColumns, prediction: Prediction | None) -> Steps:
        """The steps of the decoder's passes, alike in their sites and rows, whose routing was gathered by column."""
        inputs = [raw.inputs.get("decoder") for raw in raws]
        rows = _rows(inputs[0], [])
        tokens = self._tokens(inputs, "decoder", rows)
        routing = RoutingArrays(self._sites, self._options, rows, len(raws))
        routing.fill(columns)
        return self._recorded(raws, "decoder", tokens, routing, self._times(raws, columns), prediction)

    def glimpse(self, raw: RawStep, columns: SiteColumns, *, scores: bool) -> Steps:
        """A decode step of one sequence without its prediction; nothing is noted for the steps to come.

        Args:
            scores: whether to work them out.
        """
        tokens = token_arrays(raw.inputs["decoder"], 1)
        routing = RoutingArrays(self._sites, self._options, 1, 1)
        routing.fill(columns)
        flags = routing.flags()
        known = self._scores(routing, flags) if scores else None
        number = int(tokens.token_id[0])
        texts = {} if number < 0 else {number: self._texts.text(number)}
        times, unknown = self._times([raw], columns), self._predictions(None, tokens)
        return self._made([raw], "decoder", tokens, routing, flags, times, unknown, known, texts)

    def so_far(
        self, raw: RawStep, stack: str, sites: Sequence[SiteTensors], inputs: TokenInputs | None
    ) -> Steps | None:
        """The step of a stack in a pass that is not over; nothing is noted for the steps to come.

        Args:
            sites: those passed, on the host; of other stacks, too.
            inputs: the stack's.

        Returns:
            None where nothing tells how many tokens there are.
        """
        passed = [site for site in sites if self._kept[site.number] and self._sites[site.number].stack == stack]
        rows = _rows(inputs, passed)
        if not rows:
            return None
        tokens = token_arrays(inputs, rows)
        routing = RoutingArrays(self._sites, self._options, rows, 1)
        columns = SiteColumns.of([site for site in passed if site.indices.shape[0] == rows], 1)
        routing.fill(columns)
        flags = routing.flags()
        texts = {number: self._texts.text(number) for number in set(tokens.token_id.tolist()) if number >= 0}
        unknown, scores = self._predictions(None, tokens), self._scores(routing, flags)
        times = self._times([raw], columns)
        made = self._made([raw], stack, tokens, routing, flags, times, unknown, scores, texts)
        return replace(made, duration=np.full(1, np.nan))

    def _tokens(self, inputs: Sequence[TokenInputs | None], stack: str, rows: int) -> TokenArrays:
        tokens = token_arrays(inputs[0], rows) if len(inputs) == 1 else decode_arrays(inputs)
        if stack == "decoder":
            self._note_endings(tokens, len(inputs))
        return tokens

    def _note_endings(self, tokens: TokenArrays, passes: int) -> None:
        batch = tokens.batch // passes
        if tokens.new > 1 or tokens.past == 0:
            self._endings.begin(tokens.token_id.reshape(batch, -1)[:, -1])
            return
        over = self._endings.follow(tokens.token_id.reshape(passes, batch))
        if over is not None:
            tokens.pad[over.ravel()] = True
            tokens.position[over.ravel()] = -1

    def _recorded(
        self,
        raws: Sequence[RawStep],
        stack: str,
        tokens: TokenArrays,
        routing: RoutingArrays,
        times: F32,
        prediction: Prediction | None,
    ) -> Steps:
        flags = routing.flags()
        predictions = self._predictions(prediction, tokens)
        texts = self._vocabulary(tokens.token_id, predictions[1])
        scores = self._scores(routing, flags)
        steps = self._made(raws, stack, tokens, routing, flags, times, predictions, scores, texts, self._memory())
        steps.freeze()
        return steps

    def _scores(self, routing: RoutingArrays, flags: U8) -> TokenScores:
        # Of all passes at once: by itself each would cost more than all else that is done with it.
        return routing_scores(routing.indices, routing.weights, routing.logits, flags, self.described())

    def _made(
        self,
        raws: Sequence[RawStep],
        stack: str,
        tokens: TokenArrays,
        routing: RoutingArrays,
        flags: U8,
        times: F32,
        predictions: tuple[F32, I32, F16],
        scores: TokenScores | None,
        texts: dict[int, str],
        memory: float = math.nan,
    ) -> Steps:
        begun = np.array([raw.started for raw in raws], np.int64)
        ended = np.array([raw.ended for raw in raws], np.int64)
        logprob, ids, logprobs = predictions
        return Steps(
            phase=tokens.phase,
            index=np.array([raw.index for raw in raws], np.int32),
            branch=np.array([raw.branch for raw in raws], np.int16),
            started=_microseconds(begun - self._epoch) / 1e6,
            duration=_microseconds(ended - begun) / 1e3,
            sequence=tokens.sequence,
            position=tokens.position,
            token_id=tokens.token_id,
            pad=tokens.pad,
            logprob=logprob,
            indices=routing.indices,
            weights=routing.weights,
            logits=routing.logits,
            flags=flags,
            candidate_ids=ids,
            candidate_logprobs=logprobs,
            site_ms=times,
            stack=stack,
            vocabulary=texts,
            scores=scores,
            memory=memory,
        )

    def _fill_part(self, routing: RoutingArrays, part: SiteTensors, inputs: TokenInputs | None, rows: int) -> None:
        """A site that got some of the tokens only: those of its modality, if the model was told which they are."""
        at = attribute_rows(inputs, rows, part.indices.shape[0], vision="vision" in self._sites[part.number].name)
        if at is None:
            got = f"got {part.indices.shape[0]} of {rows} tokens and nothing tells which: its routing is left out"
            self._report("rows_unattributed", part.number, got, "interventions hold for it all the same")
        else:
            routing.fill_rows(part, at)

    def _report(self, kind: str, number: int, what: str, suggestion: str) -> None:
        if (kind, number) not in self._reported:
            self._reported.add((kind, number))
            name = self._sites[number].name
            self._on_finding(Finding(kind, "warning", f"{name} {what}", suggestion, name))

    def _predictions(self, prediction: Prediction | None, tokens: TokenArrays) -> tuple[F32, I32, F16]:
        rows, batch, new = tokens.token_id.shape[0], tokens.batch, tokens.new
        logprob = np.full(rows, np.nan, np.float32)
        ids = np.full((rows, self._options.candidates), -1, np.int32)
        logprobs = np.full((rows, self._options.candidates), np.nan, np.float16)
        if prediction is None or rows != batch * new:
            return logprob, ids, logprobs
        count = prediction.ids.shape[1]
        at = np.arange(new - 1, rows, new)
        if prediction.last is not None:
            at = at - (new - 1) + prediction.last.numpy()
        ids[at, :count] = prediction.ids.numpy()
        logprobs[at, :count] = prediction.logprobs.numpy()
        if prediction.first is not None and (prediction.expected is None or int(prediction.expected) == tokens.past):
            logprob[::new] = prediction.first.numpy()
        if prediction.inner is not None:
            logprob.reshape(batch, new)[:, 1:] = prediction.inner.numpy()
            # The token before the first real one is padding: it predicts nothing.
            logprob.reshape(batch, new)[:, 1:][tokens.pad.reshape(batch, new)[:, :-1]] = np.nan
        logprob[tokens.pad | (tokens.token_id < 0)] = np.nan
        return logprob, ids, logprobs

    def _times(self, raws: Sequence[RawStep], columns: SiteColumns, more: Sequence[SiteTensors] = ()) -> F32:
        """``[N, S]`` milliseconds from each pass's start to its sites.

        Args:
            more: sites of a single pass, of which some may have seen a part of the tokens only.
        """
        times: F32 = np.full((len(raws), len(self._sites)), np.nan, np.float32)
        begun = np.array([raw.started for raw in raws], np.int64)[:, None]
        times[:, columns.numbers] = _microseconds(columns.times - begun) / 1e3
        for site in more:
            times[0, site.number] = _microseconds(np.array(site.time - raws[0].started)) / 1e3
        return times

    def _vocabulary(self, *ids: I32) -> dict[int, str]:
        new = set().union(*(array.ravel().tolist() for array in ids)) - self._told
        new.discard(-1)
        self._told |= new
        return {token: self._texts.text(token) for token in new}


def _microseconds(nanoseconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole ones: a clock read from Python tells no more, and a recording of the rest would take twice the room."""
    return (nanoseconds + 500) // 1000


def _rows(inputs: TokenInputs | None, passed: list[SiteTensors]) -> int:
    """Tokens of a stack: as its arguments say, or as its busiest site saw."""
    if inputs is not None and inputs.shape is not None:
        return inputs.shape[0] * inputs.shape[1]
    return max((int(site.indices.shape[0]) for site in passed), default=0)
