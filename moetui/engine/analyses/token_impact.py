"""What a token does to the routing and to the output: it is left out, and all else stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from moetui.engine.analyses.passes import Passed, at_rest, logprobs, routed
from moetui.engine.analyses.replacement import chosen, neutral
from moetui.engine.analyses.subject import Subject
from moetui.engine.gather import SiteTensors
from moetui.engine.texts import TokenTexts
from moetui.routing import NO_EXPERT, UsageError
from moetui.routing.analyses import TokenImpact
from moetui.routing.step import F32, U16

_NEXT = 5


def token_impact(
    subject: Subject,
    branch: int,
    positions: Sequence[int],
    sequence: int = 0,
    replacement: str | None = None,
) -> TokenImpact:
    """Replace tokens of a sequence and run it again, teacher-forced; see ``TokenImpact``.

    Args:
        positions: sequence positions of the tokens, which are replaced together.
        replacement: text to put there, one token for each or one for all; None for a neutral token (see ``neutral``).

    Raises:
        UsageError: a position that is not held, or a replacement of the wrong length.
        UnsupportedError: a model without next-token probabilities, or with an encoder.
        ModelError: the model failed.
    """
    ids = subject.ids(branch, sequence)
    places = sorted(set(positions))
    if not places or not 0 <= places[0] <= places[-1] < len(ids):
        raise UsageError(f"positions must lie between 0 and {len(ids) - 1}", "'tokens' lists them")
    put = _replacing(subject, [ids[place] for place in places], replacement)
    changed = list(ids)
    for place, token in zip(places, put):
        changed[place] = token
    later = ids[places[-1] + 1 :]
    with at_rest(subject.model):
        before = routed(subject.model, subject.handles, ids, logits=len(later) + 1)
        after = routed(subject.model, subject.handles, changed, logits=len(later) + 1)
    texts = TokenTexts(subject.tokenizer)
    likelier = logprobs(after.logits[:-1], later) - logprobs(before.logits[:-1], later)
    indices, weights = _went(after, subject, places)
    return TokenImpact(
        replacement="".join(texts.texts(put if len(set(put)) > 1 else put[:1])),
        indices=indices,
        weights=weights,
        changed=_rerouted(before, after, subject, places[-1] + 1),
        logprob=float(likelier.mean()) if later else float("nan"),
        divergence=_divergence(before.logits[-1], after.logits[-1]),
        before=_likeliest(before.logits[-1], texts),
        after=_likeliest(after.logits[-1], texts),
    )


def _replacing(subject: Subject, original: Sequence[int], text: str | None) -> tuple[int, ...]:
    config = getattr(subject.model, "config", None)
    if text is None:
        return (neutral(subject.tokenizer, config, original),) * len(original)
    put = chosen(subject.tokenizer, text, len(original))
    embeddings = subject.model.get_input_embeddings()  # type: ignore[operator]
    if max(put) >= embeddings.weight.shape[0]:
        raise UsageError(f"the model has no token {max(put)}", f"ids go from 0 to {embeddings.weight.shape[0] - 1}")
    return put


def _went(passed: Passed, subject: Subject, places: Sequence[int]) -> tuple[U16, F32]:
    """``[P, S, K]`` experts and weights of these tokens; slots without a part in the output are empty."""
    slots = max([1, *(site.indices.shape[1] for site in passed.sites.values())])
    shape = (len(places), len(subject.handles), slots)
    indices: U16 = np.full(shape, NO_EXPERT, np.uint16)
    weights: F32 = np.full(shape, np.nan, np.float32)
    for number, site in passed.sites.items():
        width = site.indices.shape[1]
        rows = _used(site)[places]
        indices[:, number, :width] = np.where(rows >= 0, rows, NO_EXPERT).astype(np.uint16)
        weights[:, number, :width] = np.where(rows >= 0, site.weights.float().cpu().numpy()[places], np.nan)
    return indices, weights


def _used(site: SiteTensors) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """``[T, K]`` experts; -1 for a slot that adds nothing."""
    used = site.indices.long().masked_fill(site.weights == 0, -1)
    return np.asarray(used.cpu().numpy(), np.int64)


def _rerouted(before: Passed, after: Passed, subject: Subject, start: int) -> F32:
    """``[S]`` share of the tokens from ``start`` on whose set of experts became another."""
    out: F32 = np.full(len(subject.handles), np.nan, np.float32)
    for number in before.sites.keys() & after.sites.keys():
        one, other = (np.sort(_used(passed.sites[number])[start:], -1) for passed in (before, after))
        if len(one):
            out[number] = (one != other).any(-1).mean()
    return out


def _divergence(original: Tensor, replaced: Tensor) -> float:
    """KL(original ‖ replaced) of two next-token distributions ``[V]``, nats."""
    first, second = original.double().log_softmax(-1), replaced.double().log_softmax(-1)
    # An impossible token adds nothing; a difference of rounding must not come out below zero.
    terms = (first.exp() * (first - second)).masked_fill(first.isneginf(), 0.0)
    return max(0.0, float(terms.sum()))


def _likeliest(logits: Tensor, texts: TokenTexts) -> tuple[tuple[str, float], ...]:
    top = logits.float().softmax(-1).topk(min(_NEXT, logits.shape[-1]))
    return tuple((texts.text(int(token)), float(share)) for token, share in zip(top.indices.cpu(), top.values.cpu()))
