"""What analyses of a model answer with: values that the console and the screens read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from moetui.routing.step import F32, I32, I64, U16


@dataclass(frozen=True, slots=True, eq=False)
class TokenImpact:
    """What happens to a sequence when some of its tokens are replaced and the rest stays (leave-one-out).

    Two forward passes over the sequence as far as it was held, teacher-forced: as it was and with the replacement, both
    under the interventions in force now. S sites, n tokens after the last replaced one, c likeliest next tokens of the
    sequence's end.

    Attributes:
        replacement: text that was put in each of the positions.
        indices: ``[P, S, K]`` experts that the replacing tokens went to.
        weights: ``[P, S, K]`` their gate weights; NaN where unknown.
        changed: ``[S]`` share of the later tokens whose set of experts became another; NaN without later tokens.
        logprob: mean change of the later tokens' log-probability, nats (negative: the token made them likelier).
        divergence: KL divergence of the next-token distribution at the end, original from replaced, nats.
        before: likeliest next tokens at the end and their probabilities, as it was.
        after: the same with the replacement.
    """

    replacement: str
    indices: U16
    weights: F32
    changed: F32
    logprob: float
    divergence: float
    before: tuple[tuple[str, float], ...]
    after: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class RouterDecomposition:
    """What of the residual stream made up a router's logits at one token: z = Σ_c ⟨w, γ⊙c⟩ / RMS(h).

    Attributes:
        parts: names of the C components: ``embedding``, ``L0 attention``, ``L0 experts`` ...
        contributions: ``[C, E]`` to each expert's logit.
        logits: ``[E]`` the router's own; what the contributions do not explain is the difference.
    """

    parts: tuple[str, ...]
    contributions: F32
    logits: F32


@dataclass(frozen=True, slots=True, eq=False)
class ExpertAblation:
    """What one expert of a site was worth to the tokens that followed those it got.

    Two teacher-forced passes over a sequence as far as it was held: as it was, and with the expert's gate weight at
    zero at this site for every token (the other weights stay; later layers route by themselves).

    Attributes:
        positions: ``[n]`` of the tokens that used the expert and that a held token followed.
        uses: tokens that used it, the last one included, which none follows: ``n`` or one more.
        changes: ``[n]`` log-probability of the token that followed, ablated minus original, nats: negative where the
            expert helped.
        mean: of ``changes``; NaN without any.
        error: standard error of that mean, as if the tokens were independent; NaN with fewer than two.
        note: what limits the numbers, one line: the type that the model computes in.
    """

    positions: I32
    uses: int
    changes: F32
    mean: float
    error: float
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPaid:
    """What one token attended to, layer by layer, in one pass of its own over the sequence up to it.

    The pass is teacher-forced, with the attention implementation that forms weights (eager) and under the interventions
    in force now: rounding, and routing that was forced otherwise before, may make it differ from the pass that ran.

    Attributes:
        tokens: ``[n]`` timeline numbers, from the sequence's first token to this one.
        layers: ``[L]`` numbers of the layers whose attention formed weights, in order.
        shares: ``[L, n]`` attention paid to each token, mean over the layer's heads. A row sums to one, or to less
            where the layer keeps a sink or compressed tokens beside these.
        heads: ``[L]`` how many heads the mean is of.
        rerouted: share of the token's sites at which this pass chose other experts than were recorded; NaN where
            nothing can be compared.
    """

    tokens: I64
    layers: tuple[int, ...]
    shares: F32
    heads: tuple[int, ...]
    rerouted: float


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """What the tokens up to one token were worth to it: each replaced in turn by a neutral one (leave-one-out).

    An estimate: a replaced token is another token and not none, and tokens that say the same hide each other's worth.

    Attributes:
        tokens: ``[m]`` timeline numbers of the tokens that were replaced, in order; the last is the token itself.
        earlier: tokens before those, which were not tried.
        replacement: text that stood in their place.
        output: ``[m]`` KL divergence of the distribution of the token that follows, original from replaced, nats.
        routing: ``[S, m]`` gate weight that went to other experts at this token: half the sum of absolute changes, as a
            share of the weights' sum; NaN where no expert took the token.
    """

    tokens: I64
    earlier: int
    replacement: str
    output: F32
    routing: F32


Part: TypeAlias = Literal["attention", "router", "experts", "shared experts", "dense", "rest", "head"]
"""Of a model. ``attention``: also what stands in its place (Mamba, linear attention, convolutions). ``dense``: a
layer's MLP that is no mixture. ``head``: what makes logits of hidden states. ``rest``: norms, residual connections, and
what a model computes without calling one of these modules."""


@dataclass(frozen=True, slots=True)
class PartTime:
    """A part's share of a decode step.

    Attributes:
        layer: its number; None outside of the layers.
        part: which part, without those that lie within it.
        ms: milliseconds.
    """

    layer: int | None
    part: Part
    ms: float


@dataclass(frozen=True, slots=True)
class TimeByPart:
    """Where the time of a decode step goes, by layer and part: the last tokens of a sequence passed once more.

    They go through ``generate``, one by one, under the interventions in force now; every other pass has clocks around
    its parts. Means of the middle half of the passes by their time, so that the parts add up to ``step``.

    Attributes:
        parts: by layer, those outside of the layers last.
        step: milliseconds of a pass with the clocks.
        bare: milliseconds of a pass without; the difference is what the clocks cost, and noise.
        steps: passes that were measured.
        context: tokens in the cache before the first of them.
        clock: ``host``: work done when the call returned; ``device``: from event to event in the device's stream of
            work, waits for the host included.
    """

    parts: tuple[PartTime, ...]
    step: float
    bare: float
    steps: int
    context: int
    clock: Literal["host", "device"]

    @property
    def totals(self) -> dict[Part, float]:
        """Milliseconds by part, the longest first."""
        found: dict[Part, float] = {}
        for each in self.parts:
            found[each.part] = found.get(each.part, 0.0) + each.ms
        return dict(sorted(found.items(), key=lambda item: -item[1]))
