"""The router log: JSON with samples, layers and logits, as ``moetui export --format json`` and notebooks write it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moetui.routing.errors import TraceError
from moetui.routing.events import Branch, Finding
from moetui.routing.model import Site
from moetui.routing.scores import probabilities
from moetui.trace.arrays import Array
from moetui.trace.importers.base import COUNTED, Imported, Opening, Passage, model_of, narrow_experts, write_trace
from moetui.trace.importers.json_stream import JsonStream

_CHECKED = 64  # tokens on which the scoring rule is tried
_REPEATED = Finding(
    "import_layers_repeated",
    "info",
    "the log has some layers more than once: their routers are told apart by their order, and named for it",
    "a comparison with the recording that it was made of takes other names for other routers; CSV has their names",
)


@dataclass(slots=True)
class _Head:
    """What stands beside the samples, and what the first of them tells."""

    config: str = ""
    stated: int = 0  # experts, as the log itself says; 0 where it does not
    classes: int = 0  # that the routers choose among
    has_logits: bool = False
    top_k: int = 0
    layers: list[int] = field(default_factory=list)
    has_weights: bool = False
    normalised: bool | None = None
    softmax: bool = False
    branches: list[Branch] = field(default_factory=list)
    tokens: int = 0

    @property
    def experts(self) -> int:
        """How many there are. Where each class has a logit, those past the number stated are zero-experts."""
        return self.stated if self.has_logits and 0 < self.stated < self.classes else max(self.stated, self.classes)


def fits(opening: Opening) -> bool:
    """Whether it begins like a router log."""
    if not opening.text.startswith("{"):
        return False
    return opening.has_key("samples") and opening.has_key("layers", "num_layers", "router_logits_sample")


def read(path: Path, out: Path, overwrite: bool) -> Imported:
    """Import it: one branch a sample.

    The scoring rule is taken for softmax where the weights are those of one; else entropies stay unknown. A sample's
    loss, a mean over its tokens, says nothing of one of them.

    Raises:
        TraceError: it makes no sense, or the trace cannot be written.
    """
    head = _survey(path)
    told = (
        *(() if head.stated or head.has_logits else (COUNTED,)),
        *((_REPEATED,) if len(set(head.layers)) < len(head.layers) else ()),
    )
    info = model_of(
        head.config or path.stem,
        head.layers,
        head.experts,
        head.top_k,
        classes=head.classes,
        scoring="softmax" if head.softmax else "unknown",
        logits_form="logits" if head.softmax else "unknown",
        normalised=head.normalised,
    )
    return write_trace(
        out,
        info,
        _passages(path, head),
        source="a router log",
        has_weights=head.has_weights,
        has_logits=head.has_logits,
        branches=head.branches,
        findings=told,
        overwrite=overwrite,
    )


def _survey(path: Path) -> _Head:
    head = _Head()
    for key, value in JsonStream(path, "samples").items():
        if key == "config" and isinstance(value, str):
            head.config = value
        elif key == "num_experts" and type(value) is int:
            head.stated = max(head.stated, value)
        elif key == "top_k" and type(value) is int:
            head.top_k = max(head.top_k, value)
        elif key == "samples":
            _survey_sample(head, value)
    return head


def _survey_sample(head: _Head, sample: Any) -> None:
    number = len(head.branches)
    layers = _layers(sample, number)
    ids = [_layer_number(layer, number) for layer in layers]
    if not head.layers:
        head.layers = ids
    elif ids != head.layers:
        raise TraceError(f"sample {number} has other layers than the first", "the log is damaged")
    count = 0
    for layer in layers:
        experts = _experts(layer, number)
        count = len(experts)
        head.top_k = max(head.top_k, experts.shape[1])
        head.classes = max(head.classes, int(experts.max(initial=-1)) + 1)
        logits = _table(layer, "router_logits_sample", number)
        weights = _table(layer, "expert_weights", number)
        if logits is not None:
            head.classes = max(head.classes, logits.shape[1])
            head.has_logits = True
        head.has_weights |= weights is not None
        if not number and logits is not None and weights is not None and not head.softmax:
            head.softmax, head.normalised = _softmax_rule(logits, experts, weights)
    head.branches.append(Branch(number, number, f"sample {number}", first_token=head.tokens))
    head.tokens += count


def _passages(path: Path, head: _Head) -> Iterator[Passage]:
    texts: dict[str, int] = {}
    number = 0
    for key, sample in JsonStream(path, "samples").items():
        if key == "samples":
            yield _passage(sample, number, head, texts)
            number += 1


def _passage(sample: Any, number: int, head: _Head, texts: dict[str, int]) -> Passage:
    layers = _layers(sample, number)
    count = len(_experts(layers[0], number)) if layers else 0
    shape = (count, len(head.layers))
    indices = np.full((*shape, head.top_k), -1, np.int64)
    weights = np.full((*shape, head.top_k), np.nan, np.float16) if head.has_weights else None
    width = max(head.experts, head.classes)
    logits = np.full((*shape, width), np.nan, np.float16) if head.has_logits else None
    for row, layer in enumerate(layers):
        _fill(indices, row, _experts(layer, number), number)
        for target, name in ((weights, "expert_weights"), (logits, "router_logits_sample")):
            values = _table(layer, name, number)
            if target is not None and values is not None:
                _fill(target, row, values, number)
    token_id, vocabulary = _tokens(sample, count, texts)
    return Passage(
        narrow_experts(indices, width, f"sample {number}"),
        weights,
        logits,
        token_id=token_id,
        texts=vocabulary,
        branch=number,
    )


def _fill(target: Array, row: int, values: Array, number: int) -> None:
    if values.shape[0] != target.shape[0] or values.shape[1] > target.shape[2]:
        raise TraceError(f"sample {number}: the layers have different numbers of tokens", "the log is damaged")
    with np.errstate(over="ignore"):
        target[:, row, : values.shape[1]] = values


def _layers(sample: Any, number: int) -> list[dict[str, Any]]:
    layers = sample.get("layers") if isinstance(sample, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise TraceError(f"sample {number} has no layers", "the log is damaged")
    return layers


def _layer_number(layer: dict[str, Any], number: int) -> int:
    value = layer.get("layer")
    if type(value) is not int or not 0 <= value < 1 << 16:
        raise TraceError(f"sample {number}: a layer has no number", "the log is damaged")
    return value


def _experts(layer: dict[str, Any], number: int) -> Array:
    values = _table(layer, "selected_experts", number)
    if values is None:
        raise TraceError(f"sample {number}: a layer has no selected_experts", "the log is damaged")
    if values.size and (np.isnan(values).any() or (values != np.floor(values)).any() or abs(values).max() > 1 << 31):
        raise TraceError(f"sample {number}: expert ids are no whole numbers", "the log is damaged")
    return values.astype(np.int64)


def _table(layer: dict[str, Any], name: str, number: int) -> Array | None:
    rows = layer.get(name)
    if rows is None:
        return None
    try:
        values = np.array(rows, np.float64)  # null becomes NaN
    except (ValueError, TypeError):
        raise TraceError(f"sample {number}: {name} is no table of numbers", "the log is damaged") from None
    if values.size == 0:
        return values.reshape(len(rows) if isinstance(rows, list) else 0, 0)
    if values.ndim != 2:
        raise TraceError(f"sample {number}: {name} is no table of numbers", "the log is damaged")
    return values


def _tokens(sample: dict[str, Any], count: int, texts: dict[str, int]) -> tuple[Array | None, dict[int, str]]:
    """Token ids and the texts that go with them; texts without ids are numbered as they come."""
    ids, words = sample.get("token_ids"), sample.get("tokens")
    has_ids = isinstance(ids, list) and len(ids) == count
    has_words = isinstance(words, list) and len(words) == count
    if not has_ids and not has_words:
        return None, {}
    vocabulary: dict[int, str] = {}
    out = np.full(count, -1, np.int32)
    for row in range(count):
        word = words[row] if has_words and isinstance(words, list) else None
        value = ids[row] if has_ids and isinstance(ids, list) else None
        if not has_ids and isinstance(word, str):
            value = texts.setdefault(word, len(texts))
        if type(value) is int and 0 <= value < 1 << 31:
            out[row] = value
            if isinstance(word, str):
                vocabulary[value] = word
    return out, vocabulary


def _softmax_rule(logits: Array, experts: Array, weights: Array) -> tuple[bool, bool | None]:
    """Whether the weights are those of a softmax over these logits, and whether they were renormalised."""
    count = min(_CHECKED, len(logits))
    if not count or experts.shape != weights.shape or not logits.shape[1] or experts.min() < 0:
        return False, None
    if experts.max() >= logits.shape[1]:
        return False, None
    site = Site(0, "", 0, "", "", logits.shape[1], logits.shape[1], 1, scoring="softmax", logits_form="logits")
    chosen = np.take_along_axis(probabilities(logits[:count], site), experts[:count], -1)
    for normalised, expected in ((False, chosen), (True, chosen / chosen.sum(-1, keepdims=True))):
        if np.allclose(weights[:count], expected, rtol=2e-2, atol=2e-3):
            return True, normalised
    return False, None
