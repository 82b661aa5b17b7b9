"""Commands as typed functions: one registry derives help, completion, both call forms and the documentation page."""

from __future__ import annotations

import difflib
import inspect
import keyword
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from moetui.console.context import Context
from moetui.console.docstrings import Doc, read_docstring
from moetui.console.kinds import Kind
from moetui.console.result import Result
from moetui.routing import UnsupportedError, UsageError
from moetui.session import Capability, Session

F = TypeVar("F", bound=Callable[..., Result])
_MARK = "__console_command__"


@dataclass(frozen=True, slots=True)
class Need:
    """What a command needs of a session.

    Attributes:
        what: completes "this session cannot …".
        capability: a capability that will do.
        protocol: an optional protocol that will do.
        instead: what to do where it is missing.
    """

    what: str
    capability: Capability | None = None
    protocol: type | None = None
    instead: str = ""

    def missing(self, session: Session) -> str:
        """Why ``session`` will not do; empty if it will."""
        if self.capability is not None and self.capability in session.capabilities:
            return ""
        if self.protocol is not None and isinstance(session, self.protocol):
            return ""
        return f"{'a recording' if session.playback is not None else 'this session'} cannot {self.what}"

    def require(self, session: Session) -> None:
        """Raise ``UnsupportedError`` if ``session`` will not do."""
        reason = self.missing(session)
        if reason:
            raise UnsupportedError(reason, self.instead)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a command.

    Attributes:
        option: given by name only in the bare form, ``--layers 2-4``.
        default: ``inspect.Parameter.empty`` where it must be given.
    """

    name: str
    kind: Kind
    about: str
    default: Any
    option: bool

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def flag(self) -> str:
        """Its name in the bare form."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its function, and what signature and docstring say of it."""

    name: str
    group: str
    function: Callable[..., Result]
    parameters: tuple[Parameter, ...]
    doc: Doc
    need: Need | None

    @property
    def attribute(self) -> str:
        """Its name on ``moe``: Python keeps some words for itself."""
        return self.name + "_" if keyword.iskeyword(self.name) else self.name

    @property
    def signature(self) -> str:
        """As shown while it is typed: ``force_expert_selection(experts, *, layers=None)``."""
        shown = []
        for number, parameter in enumerate(self.parameters):
            if parameter.option and (number == 0 or not self.parameters[number - 1].option):
                shown.append("*")
            shown.append(parameter.name if parameter.required else f"{parameter.name}={parameter.default!r}")
        return f"{self.attribute}({', '.join(shown)})"

    @property
    def usage(self) -> str:
        """The bare form: ``force_expert_selection EXPERTS [--layers LAYERS]``."""
        words = [self.name]
        for parameter in self.parameters:
            value = parameter.name.upper().replace("_", "-") + (" ..." if parameter.kind.many else "")
            if parameter.option:
                value = parameter.flag if parameter.kind.flag else f"{parameter.flag} {value.removesuffix(' ...')}"
            words.append(value if parameter.required else f"[{value}]")
        return " ".join(words)

    def why_not(self, session: Session) -> str:
        """Why it does not work on ``session``; empty if it does."""
        return "" if self.need is None else self.need.missing(session)

    def run(self, context: Context, values: Mapping[str, Any]) -> Result:
        """Run it on raw values by parameter name; what is missing takes its default.

        Raises:
            UsageError: an argument is missing or not valid; the message names it, the hint says what is valid.
            UnsupportedError: the session cannot do it.
        """
        if self.need is not None:
            self.need.require(context.session)
        read: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.name in values:
                read[parameter.name] = _read(parameter, values[parameter.name], context)
            elif parameter.required:
                raise UsageError(f"{parameter.name} is missing: {parameter.kind.what}", f"usage: {self.usage}")
        positional = [read.pop(item.name) for item in self.parameters if item.name in read and item.required]
        return self.function(context, *positional, **read)

    def call(self, context: Context, arguments: Iterable[Any], keywords: Mapping[str, Any]) -> Result:
        """Run it on the arguments of a Python call."""
        values: dict[str, Any] = {}
        given = list(arguments)
        places = [parameter for parameter in self.parameters if not parameter.option]
        if len(places) == 1 and places[0].kind.many and len(given) > 1 and not isinstance(given[0], list | tuple | set):
            given = [given]  # ban_experts(0, 3) is as clear as ban_experts([0, 3])
        if len(given) > len(places):
            most = ", ".join(parameter.name for parameter in places) or "none"
            raise UsageError(
                f"{self.name} takes {len(places)} positional arguments ({most}), not {len(given)}", self.signature
            )
        values.update({parameter.name: value for parameter, value in zip(places, given)})
        names = [parameter.name for parameter in self.parameters]
        for name, value in keywords.items():
            if name not in names:
                raise UsageError(f"{self.name} has no argument {name}", nearest(name, names) or self.signature)
            if name in values:
                raise UsageError(f"{name} is given twice", self.signature)
            values[name] = value
        return self.run(context, values)


class Registry:
    """All commands by name, in the order in which they are explained."""

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self._commands: dict[str, Command] = {}
        for module in modules:
            for function in vars(module).values():
                mark = getattr(function, _MARK, None)
                if mark is not None and function.__module__ == module.__name__:
                    made = _describe(function, *mark)
                    self._commands[made.name] = made

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    def find(self, name: str) -> Command | None:
        """The command of this name, or of this attribute of ``moe``."""
        return self._commands.get(name) or self._commands.get(name.rstrip("_"))

    def get(self, name: str) -> Command:
        """The command of this name.

        Raises:
            UsageError: there is none; the hint names the nearest.
        """
        found = self.find(name)
        if found is None:
            raise UsageError(f"no such command: {name}", nearest(name, self.names) or "'help' lists the commands")
        return found

    @property
    def names(self) -> list[str]:
        """All names."""
        return list(self._commands)

    @property
    def groups(self) -> dict[str, list[Command]]:
        """The commands by group."""
        out: dict[str, list[Command]] = {}
        for command_ in self:
            out.setdefault(command_.group, []).append(command_)
        return out


def command(group: str, need: Need | None = None) -> Callable[[F], F]:
    """Make a function a command: its first argument is the ``Context``, the others carry a ``Kind``."""

    def mark(function: F) -> F:
        setattr(function, _MARK, (group, need))
        return function

    return mark


def nearest(word: str, choices: Iterable[str]) -> str:
    """``did you mean 'entropy'?``, or nothing."""
    wanted, known = str(word).lower(), list(choices)
    begun = [choice for choice in known if len(wanted) > 2 and choice.lower().startswith(wanted)]
    found = sorted(begun, key=len) or difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
    return f"did you mean '{found[0]}'?" if found else ""


def _describe(function: Callable[..., Result], group: str, need: Need | None) -> Command:
    doc = read_docstring(function)
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = []
    for number, item in enumerate(inspect.signature(function).parameters.values()):
        if number == 0:
            continue  # the context
        kind = _kind_of(hints[item.name])
        if kind is None:
            raise TypeError(f"{function.__name__}: argument {item.name} carries no Kind")
        about = doc.arguments.get(item.name, kind.about).removesuffix(".")
        parameters.append(
            Parameter(item.name, kind, about, item.default, option=item.kind is inspect.Parameter.KEYWORD_ONLY)
        )
    return Command(function.__name__.rstrip("_"), group, function, tuple(parameters), doc, need)


def _kind_of(hint: Any) -> Kind | None:
    for item in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        found = item if isinstance(item, Kind) else _kind_of(item)
        if found is not None:
            return found
    return None


def _read(parameter: Parameter, value: Any, context: Context) -> Any:
    if value is None and not parameter.required:
        return parameter.default
    try:
        return parameter.kind.read(value, context)
    except UsageError as error:
        name = parameter.flag if parameter.option else parameter.name
        raise UsageError(f"{name}: {error.message}", error.hint or parameter.kind.what) from None
