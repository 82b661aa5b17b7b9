"""What a query can ask about: one table for the parser, the evaluation, completion and help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["token", "site"]
Kind = Literal["integer", "number", "word", "text", "mark"]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A name that a query can use.

    Attributes:
        level: ``token``: one value a token; ``site``: one (or one a slot) for each site that the token passed.
        kind: ``mark`` stands alone; the others are compared.
        help: one line.
    """

    name: str
    level: Level
    kind: Kind
    help: str


_TABLE = (
    FieldSpec("layer", "site", "integer", "layer index: layer:3  layer:2-5  layer >= 4"),
    FieldSpec("site", "site", "word", "site by name or number: site:L3  site:encoder.L3"),
    FieldSpec("expert", "site", "integer", "an expert the token was sent to: expert:5  3 in topk"),
    FieldSpec("first", "site", "integer", "the expert with the largest gate weight: first:5"),
    FieldSpec("weight", "site", "number", "gate weight of a chosen expert: weight<0.4  weight[5] > 0.9"),
    FieldSpec("entropy", "site", "number", "router entropy at the site, nats: entropy>1.2"),
    FieldSpec("margin", "site", "number", "k-th minus k+1-th score at the site: margin<0.05"),
    FieldSpec("load_cv", "site", "number", "variation of the site's loads over the last 64 tokens"),
    FieldSpec("token", "token", "text", 'the token\'s text: token:"foo"  token == " foo"  token ~ "^[A-Z]"'),
    FieldSpec("id", "token", "integer", "token id"),
    FieldSpec("index", "token", "integer", "number of the token, as the table shows it"),
    FieldSpec("position", "token", "integer", "position in its sequence"),
    FieldSpec("step", "token", "integer", "number of the forward pass"),
    FieldSpec("sequence", "token", "integer", "row of the batch"),
    FieldSpec("branch", "token", "integer", "branch by number or name: branch:1"),
    FieldSpec("phase", "token", "word", "phase:prefill  phase:decode"),
    FieldSpec("stack", "token", "word", "stack:encoder  stack:decoder"),
    FieldSpec("conf", "token", "number", "router confidence, mean over the sites"),
    FieldSpec("mean_entropy", "token", "number", "router entropy in nats, mean over the sites"),
    FieldSpec("mean_margin", "token", "number", "margin, mean over the sites"),
    FieldSpec("logp", "token", "number", "log-probability that the model gave the token, nats"),
    FieldSpec("prob", "token", "number", "probability that the model gave the token"),
    FieldSpec("ms", "token", "number", "milliseconds the token took"),
    FieldSpec("forced", "site", "mark", "an intervention changed the routing here"),
    FieldSpec("dropped", "site", "mark", "the token got no expert here"),
    FieldSpec("nan", "site", "mark", "the router's numbers hold NaN here"),
    FieldSpec("inf", "site", "mark", "the router's numbers hold infinity here"),
    FieldSpec("flip", "site", "mark", "other experts than at this position of another branch: flip vs 0"),
    FieldSpec("pad", "token", "mark", "padding, which matches no query that does not ask for it"),
)

FIELDS = {spec.name: spec for spec in _TABLE}

ALIASES = {
    "text": "token",
    "pos": "position",
    "confidence": "conf",
    "logprob": "logp",
    "probability": "prob",
    "experts": "expert",
    "topk": "expert",
    "seq": "sequence",
    "h": "entropy",
    "top1": "first",
}

KEYWORDS = ("and", "or", "not", "in", "vs")


def find_field(word: str) -> FieldSpec | None:
    """The field of this name or alias, upper or lower case."""
    name = word.lower()
    return FIELDS.get(ALIASES.get(name, name))


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``did you mean 'entropy'?``, or nothing."""
    close = difflib.get_close_matches(word.lower(), list(choices), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""
