"""What each token was worth to one token's routing and prediction: all are replaced in turn, many in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moetui.engine.analyses.passes import Passed, at_rest, routed_rows
from moetui.engine.analyses.replacement import neutral
from moetui.engine.analyses.subject import Subject
from moetui.engine.gather import SiteTensors
from moetui.engine.texts import TokenTexts
from moetui.routing import UsageError
from moetui.routing.analyses import Attribution
from moetui.routing.step import F32

MOST = 64
"""Tokens that are replaced unless asked for more: the newest."""
_TOKENS = 4096  # in one pass
_WORK = 1 << 18  # tokens in all passes: nothing else runs on the model meanwhile


def attribution(subject: Subject, branch: int, position: int, sequence: int = 0, most: int = MOST) -> Attribution:
    """Replace each of the newest ``most`` tokens up to ``position`` by a neutral one; see ``Attribution``.

    In a sequence of many thousand tokens fewer are replaced, so that a run does not stand still for long.

    Raises:
        UsageError: a position that is not held, or fewer than one token to replace.
        UnsupportedError: a model without next-token probabilities, or with an encoder.
        ModelError: the model failed.
    """
    found = subject.tokens(branch, sequence)
    if not 0 <= position < len(found):
        raise UsageError(f"position must lie between 0 and {len(found) - 1}", "'tokens' lists them")
    if most < 1:
        raise UsageError("most must be at least 1", "it is how many tokens are replaced, each in turn")
    ids = [token for token, _ in found[: position + 1]]
    places = range(max(0, len(ids) - max(1, min(most, _WORK // len(ids)))), len(ids))
    config = getattr(subject.model, "config", None)
    put = [neutral(subject.tokenizer, config, (ids[place],)) for place in places]
    at_once = max(1, _TOKENS // len(ids) - 1)
    output: list[F32] = []
    routing: list[F32] = []
    with at_rest(subject.model):
        for begin in range(0, len(places), at_once):
            # The original goes along in each pass: what a pass of another shape rounds differently is no change.
            rows = [ids]
            for place, token in zip(places[begin : begin + at_once], put[begin : begin + at_once]):
                rows.append([*ids[:place], token, *ids[place + 1 :]])
            passed = routed_rows(subject.model, subject.handles, rows, logits=1)
            output.append(_divergences(passed.logits[:, -1]))
            routing.append(_moved(passed, len(subject.handles), rows))
    texts = TokenTexts(subject.tokenizer)
    return Attribution(
        tokens=np.array([found[place][1] for place in places], np.int64),
        earlier=places[0],
        replacement=texts.text(max(put, key=put.count)),
        output=np.concatenate(output),
        routing=np.concatenate(routing, axis=1),
    )


def _divergences(logits: Tensor) -> F32:
    """KL of the first row's distribution from each of the others, ``[B, V]`` → ``[B - 1]`` nats."""
    logs = logits.double().log_softmax(-1)
    first = logs[:1]
    terms = (first.exp() * (first - logs[1:])).masked_fill(first.isneginf(), 0.0)
    return terms.sum(-1).clamp_min(0.0).cpu().numpy().astype(np.float32)


def _moved(passed: Passed, sites: int, rows: Sequence[Sequence[int]]) -> F32:
    """``[S, B - 1]`` share of the gate weight that the rows' last tokens sent elsewhere than the first row's did."""
    out: F32 = np.full((sites, len(rows) - 1), np.nan, np.float32)
    for number, site in passed.sites.items():
        gates = _gates(site, len(rows))
        whole = float(gates[0].abs().sum())
        if whole > 0:  # else the token passed by all experts, or used none
            out[number] = ((gates[1:] - gates[0]).abs().sum(-1) / (2 * whole)).cpu().numpy()
    return out


def _gates(site: SiteTensors, rows: int) -> Tensor:
    """``[B, E]`` gate weight by expert of each row's last token."""
    indices = site.indices.reshape(rows, -1, site.indices.shape[-1])[:, -1].long()
    weights = site.weights.reshape(rows, -1, site.weights.shape[-1])[:, -1].float()
    experts = int(indices.max()) + 1
    used = indices >= 0
    gates = torch.zeros(rows, max(1, experts), device=weights.device)
    return gates.scatter_add_(1, indices.clamp_min(0), weights * used)
