"""From the references of a forward pass to ``Step`` values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moetui.engine.adapters.base import Seen, SiteHandle
from moetui.engine.options import CaptureOptions
from moetui.engine.raw import RawStep, TokenInputs
from moetui.engine.texts import TokenTexts
from moetui.engine.tokens import TokenArrays, token_arrays
from moetui.engine.transfer import Parcel
from moetui.routing import NO_EXPERT, ModelInfo, SiteFlag, Step
from moetui.routing.events import Event


class Assembler:
    """Builds steps of one session, in order; keeps what links a step to the one before."""

    def __init__(
        self,
        handles: tuple[SiteHandle, ...],
        info: ModelInfo,
        options: CaptureOptions,
        texts: TokenTexts,
        on_event: Callable[[Event], None],
        epoch: int,
    ) -> None:
        self._handles, self._info, self._options = handles, info, options
        self._texts, self._on_event, self._epoch = texts, on_event, epoch
        self._told: set[int] = set()

    def steps(self, parcel: Parcel) -> Iterator[Step]:
        """One step a stack that passed a site."""
        raw = parcel.raw
        stacks: dict[str, list[Seen]] = {}
        for seen in raw.seen:
            stacks.setdefault(self._handles[seen.number].site.stack, []).append(seen)
        outputs = dict(raw.router_outputs)
        for stack, passed in stacks.items():
            yield self._step(raw, raw.inputs.get(stack), passed, outputs)

    def _step(self, raw: RawStep, inputs: TokenInputs | None, passed: list[Seen], outputs: dict[int, Any]) -> Step:
        decoded = {
            seen.number: self._handles[seen.number].adapter.decode(self._handles[seen.number], seen.routing)
            for seen in passed
        }
        rows = max(int(indices.shape[0]) for indices, _ in decoded.values())
        tokens = token_arrays(inputs, rows)
        sites, k, classes = len(self._handles), self._info.top_k, self._info.num_classes
        indices = np.full((rows, sites, k), NO_EXPERT, np.uint16)
        weights = np.full((rows, sites, k), np.nan, np.float16)
        logits = np.full((rows, sites, classes), np.nan, np.float16) if self._options.logits else None
        flags = np.zeros((rows, sites), np.uint8)
        site_ms = np.full(sites, np.nan, np.float32)
        for seen in passed:
            handle = self._handles[seen.number]
            chosen, gates = decoded[seen.number]
            indices[:, seen.number, : chosen.shape[1]] = chosen.numpy().astype(np.uint16)
            weights[:, seen.number, : gates.shape[1]] = _floats(gates)
            site_ms[seen.number] = (seen.time - raw.started) * 1e-6
            if logits is not None and seen.number in outputs:
                found = handle.adapter.logits(handle, outputs[seen.number])
                if found is not None:
                    logits[:, seen.number, : found.shape[1]] = _floats(found)
            if seen.before is not None:
                flags[:, seen.number] |= np.uint8(SiteFlag.FORCED)
        return Step(
            index=raw.index,
            phase=tokens.phase,
            started=(raw.started - self._epoch) * 1e-9,
            duration=(raw.ended - raw.started) * 1e-6,
            sequence=tokens.sequence,
            position=tokens.position,
            token_id=tokens.token_id,
            pad=tokens.pad,
            logprob=np.full(rows, np.nan, np.float32),
            indices=indices,
            weights=weights,
            logits=logits,
            flags=flags,
            candidate_ids=np.full((rows, self._options.candidates), -1, np.int32),
            candidate_logprobs=np.full((rows, self._options.candidates), np.nan, np.float16),
            site_ms=site_ms,
            branch=raw.branch,
            stack="decoder" if inputs is None else inputs.stack,
            vocabulary=self._vocabulary(tokens),
        )

    def _vocabulary(self, tokens: TokenArrays) -> dict[int, str]:
        new = set(tokens.token_id.tolist()) - self._told - {-1}
        self._told |= new
        return {token: self._texts.text(token) for token in new}


def _floats(values: Tensor) -> Any:
    values = values.detach()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy().astype(np.float16)
