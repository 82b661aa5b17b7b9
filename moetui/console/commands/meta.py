"""Commands on the console itself."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Annotated, Any

from rich.console import RenderableType
from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import named, pairs, table, text
from moetui.console.kinds import COMMAND, TEXT, Rows, integer, real
from moetui.console.registry import Command, command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.routing.events import GenerationSettings
from moetui.session import Capability, Configurable

GROUP = "console"
_SETTINGS = tuple(field.name for field in fields(GenerationSettings))
_SETTING_NAME = replace(TEXT, words=lambda _context, _typed: _SETTINGS)
_READ = {
    "max_new_tokens": integer(1),
    "temperature": real(0, above=True),
    "top_p": real(0, 1, above=True),
    "top_k_sampling": integer(1),
    "seed": integer(0, 2**63 - 1),
}


@command(GROUP)
def help_(console: Context, name: Annotated[str | None, COMMAND] = None) -> Result:
    """List the commands, or explain one.

    Args:
        name: a command; all if left out.

    Examples:
        help
        help force_expert_selection
        find?
    """
    if name is None:
        return _overview(console)
    if name.lower() == "python":
        return Result((_python_help(console),), {"python": Capability.PYTHON in console.session.capabilities})
    found = console.registry.get(name.removeprefix("moe.").removesuffix("()"))
    return Result(_explained(console, found), _command_data(console, found))


@command(GROUP)
def history(console: Context, search: Annotated[str | None, TEXT] = None, *, rows: Rows = 20) -> Result:
    """List the lines typed, in this session and earlier ones.

    Args:
        search: only lines that contain this, in any case.
        rows: the most rows to show; the newest.

    Examples:
        history
        history entropy
    """
    known = list(enumerate(console.history.lines, 1))
    if search is not None:
        known = [(number, line) for number, line in known if search.lower() in line.lower()]
    shown = known[-rows:]
    drawn: list[RenderableType] = [table(("#", "line"), [(str(at), text(line)) for at, line in shown], left=("line",))]
    if console.history.problem:
        drawn.append(text(console.history.problem, "dim"))
    return Result(tuple(drawn), [line for _, line in shown])


@command(GROUP)
def config(
    console: Context, name: Annotated[str | None, _SETTING_NAME] = None, value: Annotated[str | None, TEXT] = None
) -> Result:
    """Show how runs are generated, or change a setting of the runs to come.

    Args:
        name: a setting; all are shown if left out.
        value: its new value; 'none' for no limit, or for greedy.

    Examples:
        config
        config max_new_tokens 32
        config temperature none
    """
    if name is not None:
        key, _, given = name.partition("=")
        key = key.replace("-", "_")
        if key not in _SETTINGS:
            raise UsageError(f"name: there is no setting {key}", f"one of {', '.join(_SETTINGS)}")
        value = given or value
        if value is not None:
            console.configure({key: _setting(console, key, value)})
    settings = asdict(console.settings)
    if name is not None and value is None:
        settings = {key: settings[key]}
    shown: list[RenderableType] = [pairs((key, _shown(value)) for key, value in settings.items())]
    if value is not None and not isinstance(console.session, Configurable):
        shown.append(text("holds for runs started from this console", "dim"))
    return Result(tuple(shown), settings)


@command(GROUP)
def clear(console: Context) -> Result:  # noqa: ARG001 - as all commands have it
    """Empty the log; tokens, history and interventions stay."""
    return Result(clear=True)


def _overview(console: Context) -> Result:
    drawn: list[RenderableType] = []
    data = []
    for group, commands in console.registry.groups.items():
        reasons = list(dict.fromkeys(reason for item in commands if (reason := item.why_not(console.session))))
        head = text(group, "bold")
        if reasons:
            first, *more = reasons
            shared = " ".join(first.split()[:2]) + " cannot "
            told = "; ".join([first, *(reason.removeprefix(shared) for reason in more)])
            head.append_text(text(f"   (-: {told})", "dim"))
        drawn.append(head)
        rows = []
        for item in commands:
            missing = item.why_not(console.session)
            style = "dim" if missing else ""
            mark = "- " if missing else "  "
            rows.append((text(mark + item.name, style), text(item.doc.summary, style)))
            data.append({"name": item.name, "group": group, "summary": item.doc.summary, "missing": missing})
        drawn.append(named(rows))
    drawn.append(_python_help(console))
    drawn.append(text("'help NAME' explains a command; --json prints its answer as data", "dim"))
    return Result(tuple(drawn), data)


def _python_help(console: Context) -> Text:
    if not console.python:
        return text("there is no Python here: it was switched off")
    if Capability.PYTHON in console.session.capabilities:
        return text(
            "anything else is Python, on moe, model, tokenizer, trace (the tokens held), np and what you assign"
        )
    return text("anything else is Python, on moe, trace (the tokens shown), np and what you assign; there is no model")


def _explained(console: Context, item: Command) -> tuple[RenderableType, ...]:
    shown: list[RenderableType] = [
        text(item.usage, "bold"),
        text(f"moe.{item.signature}", "dim"),
        text(item.doc.summary),
    ]
    shown += [text(paragraph) for paragraph in item.doc.body]
    rows = []
    for parameter in item.parameters:
        name = parameter.flag if parameter.option else parameter.name
        rows.append(
            (text("  " + name), text(f"{parameter.about or parameter.kind.what}"), text(parameter.kind.what, "dim"))
        )
    if rows:
        shown.append(named(rows))
    shown += [text("  " + example, "italic") for example in item.doc.examples]
    missing = item.why_not(console.session)
    if missing:
        shown.append(text(f"not here: {missing}", "yellow"))
    return tuple(shown)


def _command_data(console: Context, item: Command) -> dict[str, Any]:
    return {
        "name": item.name,
        "group": item.group,
        "usage": item.usage,
        "signature": item.signature,
        "summary": item.doc.summary,
        "body": list(item.doc.body),
        "arguments": [
            {"name": one.name, "about": one.about, "valid": one.kind.what, "required": one.required}
            for one in item.parameters
        ],
        "examples": list(item.doc.examples),
        "missing": item.why_not(console.session),
    }


def _setting(console: Context, key: str, value: str) -> Any:
    low = value.lower()
    if key == "system":
        return "" if low == "none" else value
    if key == "chat":
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "none": None}
        if low not in words:
            raise UsageError(f"value: {value} will not do", "on, off, or none: when the model is a chat model")
        return words[low]
    if low == "none" and key != "max_new_tokens":
        return None
    try:
        return _READ[key].read(value, console)
    except UsageError as error:
        raise UsageError(f"value: {error.message}", error.hint or _READ[key].what) from None


def _shown(value: Any) -> str:
    return "none" if value is None else str(value) or '""'
