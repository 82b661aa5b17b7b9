"""Everything the detail shows of one token, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moetui.routing.model import Site
from moetui.routing.scores import entropy, margins, probabilities
from moetui.routing.step import NO_EXPERT, SiteFlag
from moetui.routing.timeline import TimelineView


@dataclass(frozen=True, slots=True)
class Choice:
    """An expert and its gate weight (NaN: unknown) or, for a runner-up, its router probability."""

    expert: int
    weight: float


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """One site's routing of one token.

    Attributes:
        choices: experts by falling weight, in slot order where weights are unknown.
        runners_up: the likeliest experts not chosen, with their router probability.
        entropy: nats; NaN where unknown. margin: k-th minus (k+1)-th score; NaN where unknown.
        passed: the token came by this site at all.
    """

    site: Site
    choices: tuple[Choice, ...]
    runners_up: tuple[Choice, ...]
    entropy: float
    margin: float
    forced: bool
    dropped: bool
    broken: bool
    passed: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A likely next token: its text as the model has it, and its probability."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """One token's routing and what the model expected next. NaN means unknown."""

    token: int
    text: str
    token_id: int
    position: int
    branch: int
    prefill: bool
    probability: float
    ms: float
    sites: tuple[SiteFacts, ...]
    candidates: tuple[Candidate, ...]


def token_facts(view: TimelineView, token: int, *, runners_up: int = 3) -> TokenFacts | None:
    """The facts of a token; None if it is not held."""
    columns, block = view.tokens(token, token + 1), view.routing(token, token + 1)
    if not len(columns.pad):
        return None
    sites = []
    for site in view.sites:
        indices = block.indices[0, site.index]
        slots = np.flatnonzero(indices != NO_EXPERT)
        chosen = indices[slots]
        weights = (
            np.full(len(slots), np.nan, np.float32)
            if block.weights is None
            else block.weights[0, site.index, slots].astype(np.float32)
        )
        logits = None if block.logits is None else block.logits[0, site.index, : site.num_classes].astype(np.float32)
        flags = int(block.flags[0, site.index])
        passed = len(slots) > 0 or bool(flags & SiteFlag.DROPPED)
        known = logits is not None and passed
        spread = probabilities(logits, site) if logits is not None and known else np.empty(0, np.float32)
        order = np.argsort(-np.nan_to_num(weights, nan=-1.0), kind="stable")
        others = [e for e in np.argsort(-spread, kind="stable").tolist() if e not in set(chosen.tolist())]
        others = [e for e in others if e < site.num_experts and not math.isnan(spread[e])]
        sites.append(
            SiteFacts(
                site=site,
                choices=tuple(Choice(int(chosen[i]), float(weights[i])) for i in order),
                runners_up=tuple(Choice(e, float(spread[e])) for e in others[:runners_up]),
                entropy=float(entropy(spread)) if known else math.nan,
                margin=float(margins(logits, site.top_k)) if logits is not None and known else math.nan,
                forced=bool(flags & SiteFlag.FORCED),
                dropped=bool(flags & SiteFlag.DROPPED),
                broken=bool(flags & SiteFlag.NON_FINITE),
                passed=passed,
            )
        )
    with np.errstate(all="ignore"):
        likely = np.exp(columns.candidate_logprobs[0].astype(np.float32))
    ids = columns.candidate_ids[0]
    return TokenFacts(
        token=token,
        text=view.text(int(columns.token_id[0])),
        token_id=int(columns.token_id[0]),
        position=int(columns.position[0]),
        branch=int(columns.branch[0]),
        prefill=int(columns.phase[0]) == 0,
        probability=float(np.exp(columns.logprob[0])),
        ms=float(columns.ms[0]),
        sites=tuple(sites),
        candidates=tuple(Candidate(view.text(int(i)), float(p)) for i, p in zip(ids, likely) if i >= 0),
    )
