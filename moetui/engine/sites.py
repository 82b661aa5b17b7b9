"""Finds every router with its experts in a model, by structure alone, and names it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from torch import nn

from moetui.engine.adapters import ADAPTERS, Adapter, FoundSite, SiteHandle
from moetui.routing import Site

_STACKS = (
    ("encoder", re.compile(r"(^|\.)(text_)?encoder(\.|$)")),
    ("vision", re.compile(r"(^|\.)(vision|visual)\w*(\.|$)")),
    ("audio", re.compile(r"(^|\.)audio\w*(\.|$)")),
    ("talker", re.compile(r"(^|\.)talker(\.|$)")),
)
_QUALIFIERS = (("attention", re.compile(r"attn|attention")), ("vision", re.compile("vision|visual")))


@dataclass(frozen=True, slots=True)
class _Found:
    found: FoundSite
    adapter: Adapter
    order: int
    stack: str
    layer: int
    rest: str


def find_sites(model: nn.Module) -> tuple[SiteHandle, ...]:
    """Every site of a model, by stack and layer, in the order in which the modules are defined.

    Nothing is read from the configuration but numbers that no module carries; an architecture that this package has
    never seen is found if its experts are called like those of the known ones.
    """
    order = {path: number for number, (path, _) in enumerate(model.named_modules())}
    found: dict[str, _Found] = {}
    for adapter in ADAPTERS:
        for site in adapter.find(model):
            if site.path not in found:
                stack, layer, rest = _place(site.path)
                found[site.path] = _Found(site, adapter, order[site.path], stack, layer, rest)
    stacks = {stack: number for number, stack in enumerate(dict.fromkeys(_stack_order(found)))}
    ranked = sorted(found.values(), key=lambda item: (stacks[item.stack], item.layer, *_in_layer(item)))
    names = _names(ranked)
    return tuple(_handle(number, item, name) for number, (item, name) in enumerate(zip(ranked, names)))


def _in_layer(item: _Found) -> tuple[bool, int]:
    """Attention runs before the rest, wherever the layer defines it."""
    return not re.search(r"attn|attention", item.rest), item.order


def _stack_order(found: dict[str, _Found]) -> list[str]:
    return [item.stack for item in sorted(found.values(), key=lambda item: item.order)]


def _place(path: str) -> tuple[str, int, str]:
    """Stack, layer and the rest of a module path: ``model.layers.3.mlp.experts`` is (decoder, 3, mlp.experts)."""
    parts = path.split(".")
    number = next((index for index, part in enumerate(parts) if part.isdecimal()), None)
    head = ".".join(parts if number is None else parts[:number])
    stack = next((name for name, pattern in _STACKS if pattern.search(head)), "decoder")
    if number is None:
        return stack, 0, path
    return stack, int(parts[number]), ".".join(parts[number + 1 :])


def _names(items: list[_Found]) -> list[str]:
    """``L3``, with the stack before it unless it is the decoder and a qualifier behind it where a layer has several."""
    names = []
    crowd = Counter((item.stack, item.layer) for item in items)
    taken: Counter[str] = Counter()
    for item in items:
        name = f"L{item.layer}" if item.stack == "decoder" else f"{item.stack}.L{item.layer}"
        if crowd[item.stack, item.layer] > 1:
            qualifier = next((word for word, pattern in _QUALIFIERS if pattern.search(item.rest)), "")
            name += f".{qualifier}" if qualifier else ""
        taken[name] += 1
        names.append(name if taken[name] == 1 else f"{name}.{taken[name]}")
    return names


def _handle(number: int, item: _Found, name: str) -> SiteHandle:
    found = item.found
    site = Site(
        index=number,
        name=name,
        layer=item.layer,
        path=found.path,
        router_path=found.router_path,
        num_experts=found.num_experts,
        num_classes=found.num_classes,
        top_k=found.top_k,
        kind=item.adapter.kind,
        stack=item.stack,
        selection_bias=found.selection_bias,
        groups=found.groups,
        shared_experts=found.shared_experts,
        zero_experts=found.zero_experts,
        note=found.note,
    )
    return SiteHandle(site, found.experts, found.router, found.block, item.adapter)
