"""Which experts a token goes to: pure functions on selection scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(slots=True)
class Choice:
    """How the model's own choice is changed, gathered from interventions in their order.

    Attributes:
        num_experts: experts that may be chosen; score columns past it (zero-experts, skip classes) are left alone.
        k: slots a token may use.
        bias: expert → what is added to its selection score.
        banned: experts that are never chosen.
        forced: experts that every token goes to, in slot order; None where the scores decide.
    """

    num_experts: int
    k: int
    bias: dict[int, float] = field(default_factory=dict)
    banned: set[int] = field(default_factory=set)
    forced: tuple[int, ...] | None = None
    _made: dict[tuple[str, int, torch.device], Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def free(self) -> bool:
        """Whether the model chooses as it does, but for how many slots it uses."""
        return self.forced is None and not self.banned and not self.bias

    def force(self, experts: tuple[int, ...]) -> None:
        """Send tokens to these experts; bans before it no longer hold for them."""
        self.forced = tuple(dict.fromkeys(experts))
        self.banned -= set(experts)

    def ban(self, experts: tuple[int, ...]) -> None:
        """Keep tokens from these experts, forced ones too."""
        self.banned |= set(experts)
        if self.forced is not None:
            self.forced = tuple(expert for expert in self.forced if expert not in self.banned)

    def boost(self, experts: tuple[int, ...], bias: float) -> None:
        """Add to these experts' selection scores."""
        for expert in experts:
            self.bias[expert] = self.bias.get(expert, 0.0) + bias

    def limit(self, k: int) -> None:
        """Use k slots; of forced experts the first k stay."""
        self.k = k
        if self.forced is not None:
            self.forced = self.forced[:k]

    def select(self, scores: Tensor) -> Tensor:
        """The experts chosen by these scores.

        Args:
            scores: ``[T, E]`` what the model ranks experts by (its bias and groups already applied).

        Returns:
            ``[T, k']`` indices, best first; ``k'`` is at most the number of experts left, so that no banned expert is
            among them unless the scores leave no other (a group limit that shuts all others out).
        """
        if self.forced is not None:
            row = self._once("forced", scores, self._row)
            return row if scores.shape[0] == 1 else row.expand(scores.shape[0], -1)
        # NaN ranks above all numbers in topk and would win every slot; here it ranks last, yet before what is banned.
        lowest, width = torch.finfo(torch.float32).min, scores.shape[-1]
        ranked = torch.nan_to_num(
            scores if scores.dtype is torch.float32 else scores.float(), nan=lowest, neginf=lowest
        )
        if self.bias:
            ranked = (ranked + self._once("shift", scores, self._shift)).clamp(lowest, -lowest)
        if self.banned:
            ranked = ranked + self._once("closed", scores, self._closed)
        slots = min(self.k, width - len(self.banned))
        return torch.topk(ranked, max(slots, 0), dim=-1).indices

    def _once(self, name: str, scores: Tensor, make: Callable[[int, torch.device], Tensor]) -> Tensor:
        """What stays the same from step to step, for scores of that width: made once for each device."""
        key = name, scores.shape[-1], scores.device
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = make(scores.shape[-1], scores.device)
        return found

    def _row(self, _: int, device: torch.device) -> Tensor:
        assert self.forced is not None
        return listed(self.forced, device).unsqueeze(0).clone()  # the model gets it

    def _shift(self, width: int, device: torch.device) -> Tensor:
        shift = torch.zeros(width)
        for expert, bias in self.bias.items():
            shift[expert] += bias
        return shift.to(device)

    def _closed(self, width: int, device: torch.device) -> Tensor:
        banned = listed(tuple(sorted(self.banned)), device)
        return torch.zeros(width, device=device).index_fill_(0, banned, -torch.inf)

    def allowed(self, indices: Tensor) -> Tensor:
        """``[T, K]`` whether each chosen expert may be chosen."""
        if not self.banned:
            return torch.ones_like(indices, dtype=torch.bool)
        return ~among(indices, tuple(sorted(self.banned)))


def preferring(scores: Tensor, indices: Tensor, held: Tensor) -> Tensor:
    """``[T, E]`` scores by which experts that a token has come first, in slot order, then the others as they ranked.

    Args:
        scores: ``[T, E]``.
        indices: ``[T, K]`` what the tokens have; ids past the experts are left out.
        held: ``[T, K]`` which slots count.
    """
    lowest, slots = torch.finfo(torch.float32).min, indices.shape[-1]
    ranked = torch.nan_to_num(scores.float(), nan=lowest)
    places = -ranked.argsort(stable=True, dim=-1, descending=True).argsort(-1).float()
    first = (slots - torch.arange(slots, device=scores.device, dtype=torch.float32)).expand(indices.shape)
    counted = held & (indices >= 0) & (indices < scores.shape[-1])
    at = torch.where(counted, indices, 0).long()
    preferred: Tensor = places.scatter_reduce(-1, at, torch.where(counted, first, places.gather(-1, at)), "amax")
    return preferred


def among(indices: Tensor, experts: tuple[int, ...]) -> Tensor:
    """Where ``indices`` name one of ``experts``: a boolean tensor of the same shape."""
    if not experts:
        return torch.zeros_like(indices, dtype=torch.bool)
    return (indices.unsqueeze(-1) == listed(experts, indices.device)).any(-1)


@lru_cache(maxsize=256)
def listed(experts: tuple[int, ...], device: torch.device) -> Tensor:
    """``[n]`` int64 these experts on a device, not to be written into; kept, as sending them there waits for it."""
    with torch.inference_mode(False):  # training may follow
        return torch.tensor(experts, dtype=torch.int64, device=device)


def fit(indices: Tensor, weights: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Widen ``[T, K']`` to at least ``slots`` columns: the first expert again, with weight zero.

    Columns are never dropped: kernels and unsorting code of some models count on the router's own number of slots, and
    a duplicate with weight zero adds nothing.
    """
    missing = slots - indices.shape[-1]
    if missing <= 0:
        return indices, weights
    filler = indices[:, :1] if indices.shape[-1] else indices.new_zeros(indices.shape[0], 1)
    return (
        torch.cat([indices, filler.expand(-1, missing)], -1),
        torch.cat([weights, weights.new_zeros(weights.shape[0], missing)], -1),
    )


def merge(rows: Tensor, chosen: tuple[Tensor, Tensor], otherwise: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two routings row by row: the first where ``rows`` (``[T]``) is set; both are widened to the same slots."""
    slots = max(chosen[0].shape[-1], otherwise[0].shape[-1])
    first, second = fit(*chosen, slots), fit(*otherwise, slots)
    mask = rows.unsqueeze(-1)
    return torch.where(mask, first[0], second[0]), torch.where(mask, first[1], second[1])
