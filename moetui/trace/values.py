"""What a trace's header and events hold, as plain maps and back, without what would betray the machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from moetui.routing.events import (
    BranchAdded,
    BranchChanged,
    BreakpointHit,
    Event,
    FindingRaised,
    GenerationSettings,
    InterventionsChanged,
    RunState,
    RunStateChanged,
)
from moetui.routing.interventions import Intervention, ReplayRouting
from moetui.routing.model import ModelInfo, ModuleNode, ParameterInfo, Site, TensorKind
from moetui.trace.layout import MAX_PROMPT, MAX_TEXT
from moetui.trace.plain import MisfitError, clean, from_plain, to_plain, unknown_keys

LastingEvent: TypeAlias = (
    RunStateChanged | BranchAdded | BranchChanged | InterventionsChanged | BreakpointHit | FindingRaised
)

EVENT_KINDS: dict[str, type[LastingEvent]] = {
    "run_state": RunStateChanged,
    "branch": BranchAdded,
    "branch_changed": BranchChanged,
    "interventions": InterventionsChanged,
    "breakpoint_hit": BreakpointHit,
    "finding": FindingRaised,
}
_KIND_OF = {cls: kind for kind, cls in EVENT_KINDS.items()}
_HOME = re.compile(r"(?<![\w.:/~])(?:[A-Za-z]:)?[/\\](?:home|Users)[/\\][^\s/\\:'\"]+(?![^\s:'\",.;)])")
_FOLDERS = re.compile(r"(?<![\w.:/~])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:'\"]+[/\\])+")


_MODEL = {"model", "sites", "modules"}
KEYS: dict[str, set[str]] = {
    "header": _MODEL | {"format", "schema_version", "version", "writer", "settings", "prompt", "present", "id_space"},
    "model": _MODEL,
    "vocabulary": {"ids", "texts"},
    "stacks": {"names"},
    "widths": {"sites", "slots", "classes", "candidates"},
    "events": {"events"},
}
"""The keys of the records that are no chunks."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event and when it was: after token ``token - 1`` had been recorded, before token ``token``."""

    token: int
    event: LastingEvent


def text_bytes(text: str) -> bytes:
    """A token's text as a trace holds it: UTF-8 as far as it is text, for it may end within a character."""
    try:
        return text.encode("utf-8", "surrogateescape")[:MAX_TEXT]
    except UnicodeEncodeError:
        return clean(text).encode()[:MAX_TEXT]


def last_component(name: str) -> str:
    """A model's name as a trace may tell it: a hub id or an alias as it is, of a path only the last part."""
    if not re.match(r"[/~.\\]|[A-Za-z]:[/\\]", name):
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or "model"


def without_folders(text: str) -> str:
    """``text`` with absolute paths cut to their last part, a user's own folder to ``~``."""
    return _FOLDERS.sub("", _HOME.sub("~", text.replace("file://", "")))


def is_lasting(event: Event) -> bool:
    """Whether an event belongs into a trace."""
    if isinstance(event, RunStateChanged):
        return event.state is not RunState.LOADING
    return type(event) in _KIND_OF


def event_to_plain(token: int, event: Event) -> dict[str, Any]:
    """A lasting event as a plain map."""
    last = event.last_text if isinstance(event, RunStateChanged) else ""
    if isinstance(event, RunStateChanged):
        event = replace(event, reason=without_folders(event.reason), hint=without_folders(event.hint))
    elif isinstance(event, FindingRaised):
        found = event.finding
        message, suggestion = without_folders(found.message), without_folders(found.suggestion)
        event = replace(event, finding=replace(found, message=message, suggestion=suggestion))
    elif isinstance(event, InterventionsChanged):
        event = replace(event, interventions=tuple(_without_path(each) for each in event.interventions))
    elif isinstance(event, BranchAdded):
        event = replace(event, branch=replace(event.branch, prompt=event.branch.prompt[:MAX_PROMPT]))
    plain = {"at": token, "event": _KIND_OF[type(event)], **to_plain(event)}  # type: ignore[index]
    plain.pop("last_text", None)
    return {**plain, "last_text": text_bytes(last)} if last else plain


def event_from_plain(value: Any) -> RecordedEvent:
    """The event of ``event_to_plain``.

    Raises:
        MisfitError: it is of a kind not known, or does not fit its kind.
    """
    if not isinstance(value, Mapping):
        raise MisfitError("not a map")
    kind, token = value.get("event"), value.get("at")
    if not isinstance(kind, str) or kind not in EVENT_KINDS or type(token) is not int or token < 0:
        raise MisfitError("of a kind not known")
    if isinstance(value.get("last_text"), bytes):
        value = {**value, "last_text": value["last_text"].decode("utf-8", "surrogateescape")}
    return RecordedEvent(token, from_plain(EVENT_KINDS[kind], value))


def unknown_in_event(value: Mapping[str, Any]) -> int:
    """How many keys of a map that ``event_from_plain`` took are not known."""
    own = {key: part for key, part in value.items() if key not in ("at", "event")}
    return unknown_keys(EVENT_KINDS[value["event"]], own)


def unknown_in_record(kind: str, value: Mapping[str, Any]) -> int:
    """How many keys of a record that is no chunk are not known; what ``events`` hold is not looked at."""
    unknown = len(value.keys() - KEYS.get(kind, value.keys()))
    if kind in ("header", "model"):
        unknown += unknown_keys(ModelInfo, value.get("model")) + unknown_keys(tuple[Site, ...], value.get("sites"))
        unknown += unknown_keys(GenerationSettings, value.get("settings"))
    return unknown


def info_to_plain(info: ModelInfo, *, modules: bool = True) -> dict[str, Any]:
    """A model as ``{"model", "sites", "modules"}``; the module tree as rows, as it may have many."""
    plain = to_plain(replace(info, name=last_component(info.name), modules=()))
    sites = plain.pop("sites")
    for site in sites:
        if site["selection"] is None:
            del site["selection"]
    del plain["modules"]
    out = {"model": plain, "sites": sites}
    if modules:
        out["modules"] = [_module_row(node) for node in info.modules]
    return out


def info_from_plain(value: Mapping[str, Any], modules: tuple[ModuleNode, ...] = ()) -> ModelInfo:
    """The model of ``info_to_plain``; ``modules`` where the map has none.

    Raises:
        MisfitError: it is not such a map, or its sites are out of order or of impossible size.
    """
    model = value.get("model")
    if not isinstance(model, Mapping):
        raise MisfitError("without a model")
    sites = from_plain(tuple[Site, ...], value.get("sites"))
    info: ModelInfo = from_plain(ModelInfo, {**model, "sites": [], "modules": []})
    if [site.index for site in sites] != list(range(len(sites))):
        raise MisfitError("its sites are not numbered in order")
    for site in sites:
        if not (0 <= site.num_experts < 1 << 20 and 0 <= site.num_classes < 1 << 20 and 0 <= site.top_k < 1 << 16):
            raise MisfitError("a site of impossible size")
    if "modules" in value:
        modules = _modules(value["modules"])
    return replace(info, sites=sites, modules=modules)


def settings_from_plain(value: Any) -> GenerationSettings:
    """Generation settings; the default ones where they do not fit."""
    try:
        settings: GenerationSettings = from_plain(GenerationSettings, value)
    except MisfitError:
        return GenerationSettings()
    return settings


def _without_path(intervention: Intervention) -> Intervention:
    if isinstance(intervention, ReplayRouting):
        return replace(intervention, source=re.split(r"[/\\]", intervention.source)[-1])
    return intervention


def _module_row(node: ModuleNode) -> list[Any]:
    return [clean(node.path), clean(node.class_name), node.role, node.site, list(map(_parameter_row, node.parameters))]


def _parameter_row(parameter: ParameterInfo) -> list[Any]:
    row = [clean(parameter.name), list(parameter.shape), parameter.dtype, parameter.device, parameter.nbytes]
    return row if parameter.kind == "parameter" else [*row, parameter.kind]


def _modules(rows: Any) -> tuple[ModuleNode, ...]:
    nodes = []
    for row in _rows(rows, 5):
        path, class_name, role, site, parameters = row
        infos = tuple(
            ParameterInfo(
                from_plain(str, name),
                from_plain(tuple[int, ...], shape),
                from_plain(str, dtype),
                from_plain(str, device),
                from_plain(int, nbytes),
                *(from_plain(TensorKind, each) for each in kind),
            )
            for name, shape, dtype, device, nbytes, *kind in _rows(parameters, 5, 6)
        )
        node = {"path": path, "class_name": class_name, "role": role, "site": site}
        nodes.append(replace(from_plain(ModuleNode, node), parameters=infos))
    return tuple(nodes)


def _rows(value: Any, *widths: int) -> list[list[Any]]:
    if not isinstance(value, list) or not all(isinstance(row, list) and len(row) in widths for row in value):
        raise MisfitError("not a table")
    return value
