"""Every quantity that a breakpoint can ask about: it hits where NumPy says that it is so, and tells where and why."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moetui.routing import NO_EXPERT
from moetui.routing.events import BreakpointHit, GenerationSettings, RunState
from moetui.routing.interventions import ExpertCapacity, ForceExperts, Intervention, ScaleExperts, Scope
from tests.session.live_sessions import PATIENCE, Live, Make

PROMPT = "some words to begin with"
SETTINGS = GenerationSettings(max_new_tokens=12)


class Seen:
    """What a session holds, as plain arrays over its tokens and sites."""

    def __init__(self, session: Live) -> None:
        self.view = view = session.timeline.snapshot()
        self.columns, block = view.tokens(0, view.end), view.routing(0, view.end)
        self.indices, self.weights = block.indices, block.weights.astype(np.float64)
        self.logits = block.logits.astype(np.float64)
        shares = np.exp(self.logits - self.logits.max(-1, keepdims=True))
        self.shares = shares / shares.sum(-1, keepdims=True)
        self.entropy = -(self.shares * np.log(self.shares)).sum(-1)
        ordered = -np.sort(-self.logits, -1)
        self.margin = ordered[..., 1] - ordered[..., 2]
        self.layer = np.broadcast_to(np.arange(self.entropy.shape[1]), self.entropy.shape)

    def goes_to(self, expert: int) -> Any:
        return (self.indices == expert).any(-1)

    def weight_of(self, expert: int) -> Any:
        return np.where(self.indices == expert, self.weights, 0.0).sum(-1)

    def load_cv(self) -> Any:
        out = np.zeros(self.entropy.shape)
        for token in range(out.shape[0]):
            for site in range(out.shape[1]):
                window = self.indices[max(0, token - 63) : token + 1, site]
                loads = np.bincount(window.ravel(), minlength=self.logits.shape[-1])
                out[token, site] = loads.std() / loads.mean()
        return out

    def texts(self) -> list[str]:
        return [self.view.text(token) for token in self.columns.token_id.tolist()]


Truth = Callable[[Seen], Any]

CONDITIONS: list[tuple[str, Truth]] = [
    ("entropy < {entropy:.6f} and layer == 1", lambda seen: (seen.entropy < LIMITS["entropy"]) & (seen.layer == 1)),
    ("site:L2 margin < {margin:.6f}", lambda seen: (seen.margin < LIMITS["margin"]) & (seen.layer == 2)),
    ("3 in topk", lambda seen: seen.goes_to(3)),
    ("expert:3 or expert:5 layer >= 1", lambda seen: seen.goes_to(3) | (seen.goes_to(5) & (seen.layer >= 1))),
    ("weight[4] > 0.5", lambda seen: seen.weight_of(4) > 0.5),
    ("load_cv > {load_cv:.6f}", lambda seen: seen.load_cv() > LIMITS["load_cv"]),
    ('text ~ "{text}"', lambda seen: np.array([[bool(re.search(LIMITS["text"], t))] for t in seen.texts()])),
    ("prob > {prob:.8f}", lambda seen: (np.exp(seen.columns.logprob.astype(np.float64)) > LIMITS["prob"])[:, None]),
    ("not 3 in topk and layer == 0", lambda seen: ~seen.goes_to(3) & (seen.layer == 0)),
]
LIMITS: dict[str, Any] = {}


def between(values: Any) -> float:
    """A number that no rounding takes to the other side of a value, with values on both sides."""
    known = np.sort(values[np.isfinite(values)].ravel())
    inner = known[len(known) // 4 : -len(known) // 4]
    widest = int(np.argmax(np.diff(inner)))
    return float((inner[widest] + inner[widest + 1]) / 2)


def hits_of(session: Live, number: int) -> list[BreakpointHit]:
    return [hit for hit in session.log.of(BreakpointHit) if hit.breakpoint == number]


def test_conditions_hit_where_they_hold_and_nowhere_else(live: Make) -> None:
    session = live(PROMPT, settings=SETTINGS)
    first = Seen(session)
    decode = first.columns.phase == 1
    LIMITS.update(
        entropy=between(first.entropy[decode, 1]),
        margin=between(first.margin[decode, 2]),
        load_cv=between(first.load_cv()[decode]),
        text=re.escape(first.texts()[-2].strip() or "e"),
        prob=between(np.exp(first.columns.logprob[decode].astype(np.float64))),
    )
    points = [
        session.add_breakpoint(f"({text.format(**LIMITS)}) and phase:decode branch:1", log_only=True)
        for text, _ in CONDITIONS
    ]
    session.generate(PROMPT, SETTINGS)
    session.settle()
    seen = Seen(session)
    asked = (seen.columns.phase == 1) & (seen.columns.branch == 1)
    for point, (text, truth) in zip(points, CONDITIONS):
        holds = np.broadcast_to(truth(seen), (len(asked), 1 if truth(seen).shape[1] == 1 else seen.layer.shape[1]))
        expected = {int(token): np.flatnonzero(holds[token]) for token in np.flatnonzero(asked & holds.any(1))}
        found = {hit.token: hit for hit in hits_of(session, point.id)}
        assert set(found) == set(expected), text
        assert len(found) > 0, text
        for token, hit in found.items():
            if holds.shape[1] > 1:
                assert hit.site == expected[token][0], text
            else:
                assert hit.site == -1, text


def test_the_true_alternative_is_told_with_its_value(live: Make) -> None:
    session = live(PROMPT, settings=SETTINGS)
    point = session.add_breakpoint("entropy > 99 or (weight[4] > 0 and not dropped) or nan", log_only=True)
    session.generate(PROMPT, SETTINGS)
    session.settle()
    for hit in hits_of(session, point.id):
        assert re.fullmatch(r"weight\[4\] = 0\.\d+, not dropped", hit.values), hit.values


@pytest.mark.parametrize(
    ("condition", "interventions", "site"),
    [
        ("dropped", [ExpertCapacity(0.25, Scope(layers=(2,)))], 2),
        ("inf", [ScaleExperts(tuple(range(8)), 1e300, Scope(layers=(1,)))], 1),  # more than a weight can hold
        ("flip vs 'run 0'", [ForceExperts((6, 7), Scope(layers=(2,)))], 2),
    ],
)
def test_marks_stop_the_run_at_their_site(
    live: Make, condition: str, interventions: list[Intervention], site: int
) -> None:
    session = live(PROMPT, settings=SETTINGS)
    session.add_breakpoint(condition, temporary=True)
    session.generate(PROMPT, SETTINGS)
    session.settle()
    assert session.state is RunState.FINISHED, "nothing of the kind is there by itself"
    session.set_interventions(interventions)
    session.generate(PROMPT, SETTINGS)
    session.settle()
    assert session.state is RunState.PAUSED
    (hit,) = session.log.of(BreakpointHit)
    assert hit.site == site
    assert session.reason.endswith(f"(token {hit.token} at L{site}, hit 1)")
    assert session.breakpoints == ()
    if condition == "dropped":
        seen = Seen(session)
        dropped = (seen.indices[:, 2] == NO_EXPERT).all(-1)
        assert hit.token == int(np.flatnonzero(dropped)[0])


def test_nan_stops_the_run_where_it_arises(live: Make) -> None:
    session = live(PROMPT, settings=SETTINGS)
    session.add_breakpoint("nan")

    def poison(model: Any, _: Any) -> Any:
        gate = model.model.layers[2].mlp.gate
        return gate.register_forward_pre_hook(lambda _, args: (args[0] * float("nan"), *args[1:]))

    hook = session.call(poison).result(PATIENCE)
    session.generate(PROMPT, SETTINGS)
    session.settle()
    assert session.state is RunState.PAUSED
    assert session.hit is not None
    assert (session.hit.site, session.hit.values) == (2, "nan")
    session.call(lambda *_: hook.remove()).result(PATIENCE)
