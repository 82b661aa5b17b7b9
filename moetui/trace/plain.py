"""Values as plain maps and back: dataclasses by their fields, checked on the way in, nothing executed."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints


class MisfitError(ValueError):
    """A plain value that is no value of the type asked for."""


def to_plain(value: Any) -> Any:
    """A dataclass, an enum, or containers of them, as MessagePack and JSON can hold them.

    Dataclasses with a class attribute ``name`` (interventions) get it as key ``kind``.
    """
    if dataclasses.is_dataclass(value):
        out = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        kind = _kind(type(value))
        return {"kind": kind, **out} if kind else out
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {clean(str(key)): to_plain(item) for key, item in value.items()}
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """The value of type ``kind`` that ``value`` stands for.

    Keys not known are ignored; missing ones take the field's default.

    Raises:
        MisfitError: ``value`` stands for no such value.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(args, value)
    if origin is Literal:
        return _literal(args, value)
    if origin is tuple:
        return _tuple(args, value)
    if origin in (dict, Mapping):
        return _map(args, value)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(kind, value)
    return _scalar(kind, value)


def unknown_keys(kind: Any, value: Any) -> int:
    """How many keys of the maps in ``value``, of which ``from_plain`` made a ``kind``, it did not know."""
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        hints, own = _hints(kind), {"kind"} if _kind(kind) else set()  # type: ignore[arg-type]
        names = {field.name for field in dataclasses.fields(kind)}
        within = sum(unknown_keys(hints[name], value[name]) for name in names & value.keys())
        return len(value.keys() - names - own) + within
    if origin is tuple and isinstance(value, list):
        return sum(unknown_keys(args[0], item) for item in value if isinstance(item, Mapping))
    if origin in (Union, types.UnionType) and isinstance(value, Mapping):
        fitting = [arg for arg in args if dataclasses.is_dataclass(arg) and _kind(arg) in ("", value.get("kind"))]
        return unknown_keys(fitting[0], value) if fitting else 0
    return 0


def clean(text: str) -> str:
    """``text`` as valid UTF-8: lone surrogates (bytes that were no text) become U+FFFD, or join to what they mean."""
    for errors in ("strict", "surrogateescape"):
        try:
            return text.encode("utf-8", errors).decode("utf-8", "replace")
        except UnicodeEncodeError:
            continue
    return text.encode("utf-8", "replace").decode()


def _kind(cls: Any) -> str:
    hint = _hints(cls).get("name")
    return str(cls.name) if get_origin(hint) is ClassVar else ""


@lru_cache(maxsize=128)
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _union(args: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in args:
        return None
    tagged = {_kind(arg): arg for arg in args if dataclasses.is_dataclass(arg) and _kind(arg)}
    if tagged and isinstance(value, Mapping):
        name = value.get("kind")
        if not isinstance(name, str) or name not in tagged:
            raise MisfitError("of a kind not known")
        return _dataclass(tagged[name], value)
    for arg in args:
        if arg is not type(None):
            try:
                return from_plain(arg, value)
            except MisfitError:
                continue
    raise MisfitError("of no type that fits")


def _literal(args: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, str):
        for word in (value, "unknown", "other"):  # a newer version may know more words
            if word in args:
                return word
    raise MisfitError("not one of the words allowed")


def _tuple(args: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise MisfitError("not a list")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(from_plain(args[0], item) for item in value)
    if len(args) != len(value):
        raise MisfitError("a list of the wrong length")
    return tuple(from_plain(arg, item) for arg, item in zip(args, value))


def _map(args: tuple[Any, ...], value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise MisfitError("not a map")
    return {from_plain(args[0], key): from_plain(args[1], item) for key, item in value.items()}


def _dataclass(cls: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise MisfitError("not a map")
    hints = _hints(cls)
    known: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in value:
            known[field.name] = from_plain(hints[field.name], value[field.name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise MisfitError(f"without {field.name}")
    return cls(**known)


def _enum(cls: type[Enum], value: Any) -> Enum:
    try:
        return cls(value)
    except ValueError:
        raise MisfitError("not one of the values allowed") from None


def _scalar(kind: Any, value: Any) -> Any:
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is int and type(value) is int and -(1 << 62) < value < 1 << 62:
        return value
    if kind in (str, bool) and type(value) is kind:
        return value
    if kind is type(None) and value is None:
        return None
    raise MisfitError("of the wrong type")
