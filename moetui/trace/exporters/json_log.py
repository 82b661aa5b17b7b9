"""The router log as JSON: samples with every layer's logits, experts and weights. Written piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeAlias

import numpy as np

from moetui.routing.model import Site
from moetui.routing.step import I64, join_texts
from moetui.routing.timeline import RoutingBlock, TimelineView
from moetui.trace.arrays import Array
from moetui.trace.exporters.numbers import expert_rows, half_rows, number
from moetui.trace.exporters.samples import Sample, heavy_blocks, samples_of
from moetui.trace.recorded import Recorded, last_interventions

_MEMORY = 256 << 20  # bytes held while blocks that hold all layers are spread over them
_Part: TypeAlias = tuple[Array | None, Array, Array | None]  # logits, experts, weights of some tokens at one site


def export(recorded: Recorded, stream: BinaryIO) -> None:
    """Write the router log.

    One sample a sequence of a branch (a fork has its own tokens only). ``router_logits_sample`` is ``[tokens,
    experts]`` as captured; null where the recording has no logits, as ``expert_weights`` is without weights. A number
    that JSON cannot say is null, a slot without an expert -1. ``loss`` is the mean −log p of the tokens for which the
    model gave one, null without any.
    """
    samples = samples_of(recorded)
    info = recorded.info
    names = [each.name for each in last_interventions(recorded)]
    head = {
        "config": info.name,
        "strategy": "+".join(names) or "topk_baseline",
        "num_experts": info.num_experts,
        "top_k": info.top_k,
        "dataset": "prompt",
        "num_layers": max((len(sample.sites) for sample in samples), default=len(info.sites)),
    }
    stream.write(json.dumps(head)[:-1].encode() + b', "samples": [')
    for number_, sample in enumerate(samples):
        stream.write(b",\n" if number_ else b"\n")
        _write_sample(recorded.timeline, number_, sample, stream)
    stream.write(b"]}\n")


def _write_sample(view: TimelineView, sample_id: int, sample: Sample, stream: BinaryIO) -> None:
    known = sample.logprobs[~np.isnan(sample.logprobs)]
    ids = sample.token_ids.tolist()
    head = {
        "sample_id": sample_id,
        "num_tokens": len(ids),
        "loss": number(float(-known.mean(dtype=np.float64))) if len(known) else None,
        "tokens": [join_texts([view.text(token_id)]) if token_id >= 0 else None for token_id in ids],
        "token_ids": [token_id if token_id >= 0 else None for token_id in ids],
    }
    stream.write(json.dumps(head)[:-1].encode() + b', "layers": [')
    tokens = max(1, len(ids))
    widest = max((site.num_classes + 2 * site.top_k for site in sample.sites), default=1)
    # A block of the recording holds all layers, the file one after the other: as many a pass as memory has room for.
    group = _MEMORY // (2 * tokens * max(1, widest))
    for start in range(0, len(sample.sites), max(1, group)):
        _write_layers(view, sample, sample.sites[start : start + max(1, group)], bool(group), stream)
    stream.write(b"]}")


def _write_layers(view: TimelineView, sample: Sample, sites: tuple[Site, ...], hold: bool, stream: BinaryIO) -> None:
    held = _held(view, sample, sites) if hold else None  # let go before the next ones are read
    for site in sites:
        parts = held.pop(site.index) if held is not None else _Parts(view, sample, site)
        _write_layer(site, sample, parts, site is not sample.sites[0], stream)


def _write_layer(site: Site, sample: Sample, parts: Iterable[_Part], begun: bool, stream: BinaryIO) -> None:
    head = {"layer": site.layer, "router_logits_shape": [len(sample.rows), site.num_classes]}
    stream.write((b", " if begun else b"") + json.dumps(head)[:-1].encode())
    fields = (("router_logits_sample", half_rows), ("selected_experts", expert_rows), ("expert_weights", half_rows))
    for column, (name, words) in enumerate(fields):
        stream.write(f', "{name}": '.encode())
        opened = False
        for part in parts:
            array = part[column]
            if array is None:
                stream.write(b"null")
                break
            stream.write((b", " if opened else b"[") + ", ".join(words(array)).encode())
            opened = True
        else:
            stream.write(b"]" if opened else b"[]")
    stream.write(b"}")


class _Parts:
    """The parts of one layer, read anew each time: for a layer too large for memory."""

    def __init__(self, view: TimelineView, sample: Sample, site: Site) -> None:
        self._of = (view, sample, site)

    def __iter__(self) -> Iterator[_Part]:
        view, sample, site = self._of
        for rows, block in heavy_blocks(view, sample.rows):
            yield _part(block, rows, site)


def _held(view: TimelineView, sample: Sample, sites: tuple[Site, ...]) -> dict[int, list[_Part]]:
    held: dict[int, list[_Part]] = {site.index: [] for site in sites}
    for rows, block in heavy_blocks(view, sample.rows):
        for site in sites:
            held[site.index].append(_part(block, rows, site))
    return held


def _part(block: RoutingBlock, rows: I64, site: Site) -> _Part:
    logits, weights = block.logits, block.weights
    return (
        None if logits is None else logits[rows, site.index, : site.num_classes],
        block.indices[rows, site.index],
        None if weights is None else weights[rows, site.index],
    )
