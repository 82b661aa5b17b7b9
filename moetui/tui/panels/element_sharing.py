"""The Elements tab's details as rows to take along: a fact, what it is of, and the number as it is known."""

from __future__ import annotations

from collections.abc import Iterator

from moetui.console.inspecting import Told
from moetui.routing import ModelInfo, Site, TimelineView, drawable
from moetui.tui.panels.element_facts import ExpertFacts, RouterFacts
from moetui.tui.panels.outline import Entry, Outline, router_note
from moetui.tui.panels.weights import WeightFacts

Fact = tuple[str, str, object]
"""What it is, of what (empty: of the node), the value."""
HEADER: Fact = ("fact", "of", "value")


def expert_shared(facts: ExpertFacts, view: TimelineView) -> Iterator[Fact]:
    """An expert over the recent tokens."""
    yield from (("tokens of the site", "", facts.tokens), ("tokens", "", facts.load), ("share", "", facts.share))
    yield from (("times even", "", facts.relative), ("first choice of", "", facts.first))
    yield from (("share of gate mass", "", facts.mass), ("mean weight", "", facts.weight))
    for token, share, count in facts.favourites:
        text = drawable(view.text(token), spaces=True)
        yield from (("share of a favourite", text, share), ("occurrences of it", text, count))
    for expert, share in facts.partners:
        yield ("together with", f"E{expert}", share)


def site_shared(facts: RouterFacts, site: Site) -> Iterator[Fact]:
    """A router's rule, and what it did over the recent tokens."""
    yield from (("rule", "", router_note(site)), ("top-k", "", site.top_k), ("experts", "", site.num_experts))
    if site.scale is not None:
        yield ("scaled by", "", site.scale)
    yield from (("shared experts", "", site.shared_experts), ("tokens", "", facts.tokens))
    yield from (("entropy", "nats", facts.entropy), ("margin", "", facts.margin), ("near ties", "", facts.ties))
    yield ("fairness", "", facts.fairness)
    for expert in range(site.num_experts):
        yield ("tokens", f"E{expert}", int(facts.loads[expert]))


def module_shared(info: ModelInfo, outline: Outline) -> Iterator[Fact]:
    """The model as a whole, and its parameters by what they belong to."""
    yield from (("model", "", drawable(info.name)), ("architecture", "", drawable(info.architecture)))
    yield from (("parameters", "", info.parameters), ("bytes", "", info.nbytes))
    yield from (("device", "", drawable(info.device)), ("dtype", "", drawable(info.dtype)))
    yield from (("layers", "", info.num_layers), ("sites", "", len(info.sites)))
    yield from (("experts", "", info.num_experts), ("top-k", "", info.top_k))
    yield from (("vocabulary", "", info.vocab_size or ""), ("context", "tokens", info.context_length or ""))
    for name, text in info.versions.items():
        yield ("version", drawable(name), drawable(text))
    for role, count in sorted(outline.by_role().items(), key=lambda item: -item[1]):
        if count:
            yield ("parameters", role, count)


def parameter_shared(entry: Entry, outline: Outline) -> Iterator[Fact]:
    """Shapes, types and places of the parameters in and below a node."""
    parameters = outline.parameters(entry)
    if parameters:
        yield from (("parameters", "", entry.parameters), ("bytes", "", entry.nbytes))
    for parameter in parameters:
        name = drawable(parameter.name)
        shape = "x".join(str(length) for length in parameter.shape) or "1"
        yield from (("shape", name, shape), ("dtype", name, drawable(parameter.dtype)))
        if parameter.kind != "parameter":
            yield ("kind", name, parameter.kind)
        yield from (("device", name, drawable(parameter.device)), ("bytes", name, parameter.nbytes))


def weight_shared(found: tuple[WeightFacts, ...] | str | None) -> Iterator[Fact]:
    """Distributions of weights, where they are known."""
    for facts in found if isinstance(found, tuple) else ():
        name = drawable(facts.name)
        yield from (("mean", name, facts.mean), ("sd", name, facts.std), ("max |w|", name, facts.largest))
        yield from (("norm", name, facts.norm), ("from", name, facts.low), ("to", name, facts.high))
        for place, count in enumerate(facts.histogram):
            yield (f"numbers in bin {place + 1} of {len(facts.histogram)}", name, count)


def inspected_shared(told: Told | str | None) -> Iterator[Fact]:
    """What users' inspectors say, where it is known."""
    for name, (_, words) in told.items() if isinstance(told, dict) else ():
        yield ("inspected", drawable(name), drawable(words))
