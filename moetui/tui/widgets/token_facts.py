"""Everything the detail shows of one token, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moetui.routing.model import Site
from moetui.routing.scores import passed, site_entropy, site_margin
from moetui.routing.selection import selection_scores
from moetui.routing.step import F16, F32, NO_EXPERT, SiteFlag
from moetui.routing.timeline import RoutingBlock, TimelineView
from moetui.tui.widgets.sums import router_spread


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
        runners_up: the experts that would have come next, with their router probability; none where what chooses is not
            known, and none of a group that was left out.
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
    scores = _Scores(block, view.sites, runners_up)
    sites = tuple(_site_facts(site, block, scores) for site in view.sites)
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
        sites=sites,
        candidates=tuple(Candidate(view.text(int(i)), float(p)) for i, p in zip(ids, likely) if i >= 0),
    )


class _Scores:
    """Every site's distribution of one token at once: a loop over 48 sites would cost more in calls than in sums."""

    def __init__(self, block: RoutingBlock, sites: tuple[Site, ...], runners_up: int) -> None:
        self.known = passed(block.indices, block.flags)[0].tolist()
        self.entropy = site_entropy(block.logits, sites, 1)[0].tolist()
        self.margin = site_margin(block.logits, sites, 1)[0].tolist()
        self.likeliest: list[list[Choice]] = [[] for _ in sites]
        if block.logits is None or not sites:
            return
        chances, _ = router_spread(block.logits, sites)
        keep = min(chances.shape[2], block.indices.shape[2] + runners_up)
        order = np.argsort(-np.nan_to_num(chances[0], nan=-1.0), axis=-1, kind="stable")[:, :keep]
        values = np.take_along_axis(chances[0], order, -1)
        for row, (experts, likely) in enumerate(zip(order.tolist(), values.tolist())):
            self.likeliest[row] = [Choice(e, p) for e, p in zip(experts, likely) if not math.isnan(p)]
        for row, site in enumerate(sites):
            if not site.plain_choice:
                self.likeliest[row] = _by_selection(block.logits[0, row], site, chances[0, row], keep)


def _by_selection(logits: F16, site: Site, chances: F32, keep: int) -> list[Choice]:
    """The first ``keep`` experts in the order in which the site takes them; none where that is not known."""
    scores, left_out = selection_scores(logits, site)
    if np.isnan(scores).any():
        return []
    order = np.argsort(np.where(left_out, np.inf, -scores), kind="stable")[: min(keep, int((~left_out).sum()))]
    return [Choice(expert, float(chances[expert])) for expert in order.tolist()]


def _site_facts(site: Site, block: RoutingBlock, scores: _Scores) -> SiteFacts:
    row = site.index
    experts = block.indices[0, row].tolist()
    weights = [math.nan] * len(experts) if block.weights is None else block.weights[0, row].tolist()
    chosen = [Choice(e, w) for e, w in zip(experts, weights) if e != NO_EXPERT]
    # The sort is stable: unknown weights keep the model's slot order, behind the known ones.
    chosen.sort(key=lambda choice: math.inf if math.isnan(choice.weight) else -choice.weight)
    taken = {choice.expert for choice in chosen}
    others = [one for one in scores.likeliest[row] if one.expert not in taken and one.expert < site.num_experts]
    flags, known = int(block.flags[0, row]), bool(scores.known[row])
    return SiteFacts(
        site=site,
        choices=tuple(chosen),
        runners_up=tuple(others[: max(0, len(scores.likeliest[row]) - len(experts))]) if known else (),
        entropy=scores.entropy[row] if known else math.nan,
        margin=scores.margin[row] if known else math.nan,
        forced=bool(flags & SiteFlag.FORCED),
        dropped=bool(flags & SiteFlag.DROPPED),
        broken=bool(flags & SiteFlag.NON_FINITE),
        passed=known,
    )
