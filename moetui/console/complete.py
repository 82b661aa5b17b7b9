"""How a line could go on: commands, their options and values, and names in Python."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from moetui.console.bare import Word, find_option, split
from moetui.console.context import Context
from moetui.console.registry import Command, Parameter
from moetui.console.result import Completion
from moetui.routing import ModelInfo
from moetui.routing.query import complete as complete_query

_MOST = 200
_JOINED = ("expert", "layers", "site names", "numbers of breakpoints")
"""How the words begin that tell of arguments whose values are joined by commas."""
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_DOTTED = re.compile(r"([A-Za-z_][\w.\[\]]*)\.(\w*)\Z")
_CALL = re.compile(r"(?:\bmoe\.)?([A-Za-z_]\w*)\(")


def complete(context: Context, names: Mapping[str, Any], line: str, cursor: int) -> Completion:
    """Words that could stand at the cursor.

    Args:
        names: what Python knows; empty where there is no Python.
    """
    cursor = max(0, min(cursor, len(line)))
    before = line[:cursor]
    start = len(before) - len(before.lstrip())
    words = split(before)
    if words and not before[-1:].isspace() and len(words) == 1 and _NAME.match(before[start:]):
        found = [*context.registry.names, *(name for name in names if not name.startswith("_"))]
        return _made(start, before[start:], found, exact=True)
    if not words:
        return Completion(cursor, tuple(context.registry.names))
    command = context.registry.find(words[0].text)
    if command is not None and not words[0].quoted and command.name == words[0].text and _is_bare(before, words):
        return _bare(context, command, line, cursor, words)
    return _python(context, names, before)


def signature_at(context: Context, line: str, cursor: int) -> str:
    """The signature of the command that is being typed at the cursor; empty if there is none."""
    before = line[: max(0, min(cursor, len(line)))]
    words = split(before)
    if words and (found := context.registry.find(words[0].text)) and found.name == words[0].text:
        return found.usage
    command = _open_call(context, before)
    return "" if command is None else f"moe.{command.signature}"


def _is_bare(before: str, words: list[Word]) -> bool:
    rest = before[words[0].stop :]
    return rest[:1].isspace() and not rest.lstrip().startswith(("=", "("))


def _bare(context: Context, command: Command, line: str, cursor: int, words: list[Word]) -> Completion:
    before = line[:cursor]
    fresh = before[-1].isspace() and (words[-1].stop < len(before))
    typed = "" if fresh else before[words[-1].start :]
    start = cursor - len(typed)
    given = words[1:] if fresh else words[1:-1]
    if typed.startswith("-") and not typed[1:2].isdigit() and "=" not in typed:
        options = [parameter.flag for parameter in command.parameters] + ["--json"]
        used = {word.text for word in given}
        return _made(start, typed, [option for option in options if option not in used], hint=command.usage, exact=True)
    parameter, value_start = _parameter_at(command, given, typed, start)
    if parameter is None:
        return Completion(cursor, hint=command.usage)
    if parameter.kind.what.startswith("a query"):
        offset = _query_start(command, parameter, given, start)
        names = context.branch_names
        found = complete_query(line[offset:], cursor - offset, context.session.info, names)
        at = {offset + item.start for item in found}
        if len(at) == 1:
            return Completion(at.pop(), tuple(dict.fromkeys(item.text for item in found))[:_MOST], command.usage)
        return Completion(cursor, hint=command.usage)
    typed = line[value_start:cursor]
    cut = typed.rfind(",") + 1 if parameter.kind.what.startswith(_JOINED) else 0
    return _made(value_start + cut, typed[cut:], parameter.kind.words(context, typed[cut:]), hint=command.usage)


def _query_start(command: Command, query: Parameter, given: list[Word], start: int) -> int:
    """Where the query begins: behind the words of the arguments before it."""
    places = [parameter for parameter in command.parameters if not parameter.option]
    before = places.index(query) if query in places else 0
    return given[before].start if len(given) > before else start


def _parameter_at(command: Command, given: list[Word], typed: str, start: int) -> tuple[Parameter | None, int]:
    """The parameter that a word stands for, and where its value begins."""
    if typed.startswith("-") and "=" in typed:
        return find_option(command, typed), start + typed.index("=") + 1
    if given and given[-1].is_option and "=" not in given[-1].text:
        option = find_option(command, given[-1].text)
        if option is not None and not option.kind.flag:
            return option, start
    taken, skip = 0, False
    for word in given:
        if skip:
            skip = False
        elif word.is_option:
            option = find_option(command, word.text)
            skip = option is not None and not option.kind.flag and "=" not in word.text
        else:
            taken += 1
    places = [parameter for parameter in command.parameters if not parameter.option]
    if not places or (taken >= len(places) and not (places[-1].kind.many or places[-1].kind.raw)):
        return None, start
    return places[min(taken, len(places) - 1)], start


def _python(context: Context, names: Mapping[str, Any], before: str) -> Completion:
    command = _open_call(context, before)
    hint = "" if command is None else f"moe.{command.signature}"
    dotted = _DOTTED.search(before)
    if dotted:
        found = _members(context, names, dotted[1])
        return _made(len(before) - len(dotted[2]), dotted[2], found, hint=hint, exact=True)
    word = _NAME.search(before)
    typed = word[0] if word else ""
    choices: list[str] = []
    if command is not None:
        choices += [f"{parameter.name}=" for parameter in command.parameters]
    if typed:
        choices += [name for name in names if not name.startswith("_")]
    return _made(len(before) - len(typed), typed, choices, hint=hint, exact=True)


def _open_call(context: Context, before: str) -> Command | None:
    """The command whose brackets are open at the end of the line."""
    for found in reversed(list(_CALL.finditer(before))):
        inside = before[found.end() :]
        if inside.count("(") >= inside.count(")") and (command := context.registry.find(found[1])):
            return command
    return None


def _members(context: Context, names: Mapping[str, Any], dotted: str) -> Iterable[str]:
    if dotted == "moe":
        return [command.attribute for command in context.registry]
    root, _, path = dotted.partition(".")
    if root == "model" or root.startswith("model["):
        return _modules(context.session.info, path)
    if "." in dotted or "[" in dotted or root not in names:
        return []
    # Only what the type and the instance hold: asking for an attribute could run code.
    value = names[root]
    own = getattr(value, "__dict__", {})
    found = [*(own if isinstance(own, dict) else {}), *(name for kind in type(value).__mro__ for name in vars(kind))]
    if inspect.ismodule(value):
        found = list(vars(value))
    return [name for name in dict.fromkeys(found) if isinstance(name, str) and not name.startswith("_")]


def _modules(info: ModelInfo | None, path: str) -> Iterable[str]:
    """Children of a module, from the tree that is known: the model itself is not touched."""
    if info is None:
        return []
    place = re.sub(r"\[(\d+)\]", r".\1", path)
    prefix = place + "." if place else ""
    children = [
        node.path[len(prefix) :] for node in info.modules if node.path.startswith(prefix) and node.path != place
    ]
    return [name for name in dict.fromkeys(child.split(".")[0] for child in children) if name and not name.isdigit()]


def _made(start: int, typed: str, choices: Iterable[str], *, hint: str = "", exact: bool = False) -> Completion:
    low = typed.lower()
    words: dict[str, None] = {}
    for word in choices:
        if word.startswith(typed) if exact else word.lower().startswith(low):
            words[word] = None
        if len(words) >= _MOST:
            break
    return Completion(start, tuple(words), hint)
