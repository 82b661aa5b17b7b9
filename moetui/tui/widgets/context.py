"""What earlier tokens were to one token: shares by token, with the words that the table and the detail say them in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moetui.routing import drawable
from moetui.routing.analyses import AttentionPaid, Attribution
from moetui.routing.model import Site
from moetui.routing.step import F64, I64

Question = Literal["attention", "attribution"]
Texts = Callable[[int], str]
"""A token's text, as the model has it, by its number in the timeline."""


@dataclass(frozen=True, slots=True)
class Related:
    """Shares of earlier tokens in one token, ready to be drawn.

    Attributes:
        token: timeline number of the one token.
        heading: of the table's column, at most five characters.
        title: what the shares are, in a few words, for the table's frame.
        head: what stands before the largest of them in the detail.
        note: how they came about, behind them in the detail.
        brief: the same where there is less room.
        shares: by timeline number, 0 to 1.
        most: text (not yet drawable) and share of the tokens that have one, largest first.
        highest: the largest share.
    """

    token: int
    heading: str
    title: str
    head: str
    note: str
    brief: str
    shares: Mapping[int, float]
    most: tuple[tuple[str, float], ...]
    highest: float = 0.0

    def level(self, token: int) -> int:
        """A token's share as a level 0 to 15 of the largest share, by its root: small shares are told apart too."""
        share = self.shares.get(token, 0.0)
        return round(15 * math.sqrt(share / self.highest)) if share > 0 else 0


def attention_related(token: int, paid: AttentionPaid, texts: Texts, site: Site | None) -> Related:
    """Attention at a site's layer, mean over its heads; over all layers where ``site`` is None."""
    note, brief = "a pass of its own, eager", ""
    if paid.rerouted > 0:
        note += f" · {100 * paid.rerouted:.0f}% of the routers chose otherwise in it"
        brief = f", {100 * paid.rerouted:.0f}% rerouted"
    if site is None:
        count = len(paid.layers)
        where, head = f"all {count} layers" if count > 1 else f"L{paid.layers[0]}", "paid"
        values, of = paid.shares.astype(np.float64).mean(0), f"mean of {count} layers"
    elif site.layer in paid.layers:
        row = paid.layers.index(site.layer)
        where, head = f"L{site.layer}", f"paid L{site.layer}"
        values, of = paid.shares[row].astype(np.float64), f"mean of {paid.heads[row]} heads"
    else:
        where, head = f"L{site.layer}: none there", f"paid L{site.layer}"
        values, of = np.zeros(len(paid.tokens)), ""
    notes = (f"{of} · {note}", of + brief) if of else ("this layer's attention forms no weights",) * 2
    return _related(token, "paid", f"attention of {token}, {where}", head, notes, paid.tokens, values, texts)


def attribution_related(token: int, worth: Attribution, texts: Texts, site: Site | None) -> Related:
    """Shares in the change of the next token's distribution; of the routing at ``site`` where one is given."""
    tried = f" of the newest {len(worth.tokens)}" if worth.earlier else ""
    notes = f'estimate: each{tried} replaced by "{drawable(worth.replacement, spaces=True)}"', "estimate"
    values = np.asarray(worth.output if site is None else worth.routing[site.index], np.float64)
    known = bool(np.isfinite(values).any())
    values = np.nan_to_num(values)
    total = float(values.sum())
    name = "" if site is None else drawable(site.name)
    what, head = (f"routing at {name}", f"why {name}") if name else ("next token", "why next")
    if not known:
        notes = (f"no expert of {name} took this token",) * 2
    elif total <= 0:
        notes = (f"no replacement changed the {what}",) * 2
    shares = values / total if total > 0 else values
    return _related(token, "worth", f"worth to {token}, {what}", head, notes, worth.tokens, shares, texts)


def _related(
    token: int,
    heading: str,
    title: str,
    head: str,
    notes: tuple[str, str],
    numbers: I64,
    values: F64,
    texts: Texts,
) -> Related:
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > 0][:16]
    most = tuple((texts(int(numbers[row])), float(values[row])) for row in order)
    shares = dict(zip(numbers.tolist(), values.tolist()))
    return Related(token, heading, title, head, *notes, shares, most, most[0][1] if most else 0.0)
