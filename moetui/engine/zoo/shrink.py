"""From the full-size default configuration of an architecture to a small one of the same kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from moetui.engine.zoo import sizes

_OWN_FIELDS = frozenset(field.name for field in dataclasses.fields(PreTrainedConfig))


def shrink(
    config_class: type[PreTrainedConfig], overrides: Mapping[str, Any], layers: int = sizes.LAYERS
) -> PreTrainedConfig:
    """A small configuration: the full-size default with the fields of :mod:`sizes` made small.

    Args:
        config_class: the architecture's configuration class.
        overrides: fields that win over the rules; a nested mapping goes to the nested configuration.
        layers: decoder layers; every kind of layer that the full size mixes keeps at least one, if they suffice.
    """
    full = config_class()
    fields = {name: _stored(full, name) for name in _field_names(full)}
    small: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, PreTrainedConfig):
            depth = sizes.TOWER_LAYERS if name in sizes.TOWERS else layers
            small[name] = shrink(type(value), overrides.get(name, {}), depth)
        elif (size := _size(name, value, fields, layers)) != value:
            small[name] = size
    small.update(_short_lists(fields, layers))
    for name, value in overrides.items():
        if not isinstance(small.get(name), PreTrainedConfig):
            small[name] = value(layers) if callable(value) else value
    return config_class(**small)


def _field_names(config: PreTrainedConfig) -> list[str]:
    names = [field.name for field in dataclasses.fields(config)]
    return [name for name in names if name not in _OWN_FIELDS or name in sizes.EXACTLY]


def _stored(config: PreTrainedConfig, name: str) -> Any:
    """A field's value, read past the guards against per-layer attributes and through renamed fields."""
    values = vars(config)
    return values.get(name, values.get(config.attribute_map.get(name, name)))


def _size(name: str, value: Any, fields: Mapping[str, Any], layers: int) -> Any:
    if name in sizes.EXACTLY:
        return sizes.EXACTLY[name]
    if name.endswith(("_token_id", "_token_index")) and name not in sizes.TEXT_TOKEN_IDS:
        return value + sizes.VOCABULARY if isinstance(value, int) and value < sizes.VOCABULARY else value
    if name == "rope_parameters":
        return _short_rotary(value)
    if not isinstance(value, int) or isinstance(value, bool) or value == 0:
        return value
    if name in sizes.GROUPS:
        return sizes.GROUPS[name]
    if name in sizes.KEY_VALUE_HEADS:
        heads = fields.get("num_attention_heads", fields.get("n_heads", value))
        return sizes.HEADS if value == heads else min(value, sizes.HEADS // 2)
    if name in sizes.LAYER_COUNTS:
        return layers
    return min(value, sizes.AT_MOST.get(name, value))


def _short_rotary(parameters: Any) -> Any:
    """Rotary settings that stretch positions by a factor, stretching fewer positions."""
    if isinstance(parameters, dict) and {"factor", "original_max_position_embeddings"} <= parameters.keys():
        factor = min(parameters["factor"], sizes.STRETCH)
        return {**parameters, "factor": factor, "original_max_position_embeddings": int(sizes.POSITIONS // factor)}
    return parameters


def _short_lists(fields: Mapping[str, Any], layers: int) -> dict[str, list[Any]]:
    """The per-layer lists, cut to ``layers`` entries that keep every combination the full-size lists have."""
    depth = next((fields[name] for name in sizes.LAYER_COUNTS if fields.get(name)), None)
    lists = {
        name: value
        for name, value in fields.items()
        if isinstance(value, (list, tuple)) and depth is not None and len(value) == depth
    }
    if not lists:
        return {}
    keep = representatives([tuple(map(str, row)) for row in zip(*lists.values())], layers)
    return {name: [_small_entry(name, value[index]) for index in keep] for name, value in lists.items()}


def _small_entry(name: str, value: Any) -> Any:
    singular = name.removesuffix("_per_layer")
    return min(value, sizes.AT_MOST[singular]) if singular in sizes.AT_MOST else value


def representatives(kinds: Sequence[object], count: int) -> list[int]:
    """Indices, ascending, of ``count`` entries that stand for all of them.

    Every kind gets one as long as there are enough, the rest is shared out by how frequent the kinds are (the
    D'Hondt rule), and each kind gives its earliest entries. Where ``count`` exceeds the entries, they repeat.
    """
    if count >= len(kinds):
        return [index % len(kinds) for index in range(count)]
    places: dict[object, list[int]] = {}
    for index, kind in enumerate(kinds):
        places.setdefault(kind, []).append(index)
    taken = dict.fromkeys(list(places)[:count], 1)
    while sum(taken.values()) < count:
        open_kinds = [kind for kind in taken if taken[kind] < len(places[kind])]
        fullest = max(open_kinds, key=lambda kind: len(places[kind]) / (taken[kind] + 1))
        taken[fullest] += 1
    return sorted(index for kind, number in taken.items() for index in places[kind][:number])
