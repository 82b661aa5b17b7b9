"""Writes ``docs/console.md`` from the registry: ``python -m moetui.console.docs docs/console.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from moetui.console.commands import registry
from moetui.console.registry import Command, Need, Parameter
from moetui.routing.query import FIELDS
from moetui.session import Capability, Filing, Playable

_INTRODUCTION = """\
# The console

Generated from the commands themselves by `python -m moetui.console.docs docs/console.md`.

A line is one of three things:

- a command with words: `force_expert_selection 0 3 7 --layers 2-4`
- the same as a call: `moe.force_expert_selection([0, 3, 7], layers=[2, 3, 4])`
- any other Python, on `moe`, `model`, `tokenizer`, `trace` (the tokens held when the line began), `recording` (what
  `load` opened), `np`, and what was assigned before; `_` is the last value. It runs where the model may be touched,
  between two steps. Tensors, arrays and modules are summarised. On a recording there is no model. Ctrl-C interrupts it
  between two of Python's instructions, and behind a command that it calls on the model; within one that holds the
  interpreter, such as `sum(range(10**11))`, nothing in the process can run, not even Ctrl-C in a plain `python`: only
  `kill -9` ends that, and a recording keeps what was written up to then.

`help` lists the commands and says which work now, `help NAME` (or `NAME?`) explains one. In the form with words a value
with spaces stands in quotes, several values of an option are joined by commas or given as a range (`--layers 0,2-4`),
and `--json` shows the answer as data; in Python an answer is used like that data: `moe.stats()["fairness_index"]`,
`dict(moe.stats())`. What changes the routing can be taken back with `undo`. Lines are remembered across sessions,
except those that begin with a space. `moetui run MODEL --exec FILE` and `moetui record MODEL --exec FILE` run a script
of such lines and stop at the first that fails; there, `generate` waits until its run is over. With `--no-python`
commands are all that runs.

Experts, layers, sites, tokens and branches are counted from 0. A run is called by the number of its branch, which is
also that of files: `run 2` is branch 2 (`--branch 2`, `branch:2`), and `run 2 @9`, forked from it at position 9, is a
branch with a number of its own, as `branches` lists them. In recordings made before, `run 1` is branch 0. Entropies are
in nats, times in milliseconds. Layers in a row, as `2-5` or `[2, 3, 4, 5]`, may have some without a router among them,
which are stepped over; a layer by itself may not.
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_INTRODUCTION]
    for group, commands in registry().groups.items():
        parts.append(f"## {group.capitalize()}\n")
        parts += [_section(command) for command in commands]
    parts.append("## Queries\n")
    parts.append(
        "`find`, `break_when`, `log_when` and `watch` take the language of the filter line: terms side by side, or"
        " joined by `and`, `or`, `not` and parentheses. A token matches if all terms hold at one of its sites, and"
        " negated ones (`not expert:0`) at all of them: one term more only narrows. Terms of `layer` and `site` say"
        " where the rest is asked: `layer:3 not expert:0` is of layer 3 alone. A layer,"
        " site, expert or branch that there is not is refused, for it would be waited for in vain; a branch may be"
        " named by its number before it is there.\n"
    )
    parts.append(_table(("field", "of a", "what"), [(f"`{f.name}`", f.level, f.help) for f in FIELDS.values()]))
    return "\n".join(parts)


def _section(command: Command) -> str:
    forms = f"```\n{command.usage}\nmoe.{command.signature}\n```\n"
    lines = [f"### `{command.name}`\n", forms, command.doc.summary, ""]
    for paragraph in command.doc.body:
        lines += [paragraph, ""]
    if command.parameters:
        rows = [(_name(parameter), _about(parameter), parameter.kind.what) for parameter in command.parameters]
        lines.append(_table(("argument", "", "valid"), rows))
    if command.need is not None:
        lines.append(f"Needs {_need(command.need)}.\n")
    if command.doc.examples:
        lines.append("```\n" + "\n".join(command.doc.examples) + "\n```\n")
    return "\n".join(lines)


def _name(parameter: Parameter) -> str:
    return f"`{parameter.flag if parameter.option else parameter.name}`"


def _about(parameter: Parameter) -> str:
    given = parameter.default
    default = "" if parameter.required or given is None or given is False or given == "" else f" (default {given})"
    return f"{parameter.about}{default}"


def _need(need: Need) -> str:
    if need.capability is not None and Capability.SEEK in need.capability:
        return "a recording" if need.protocol is None else "a recording, or a model whose runs can be taken back"
    if need.protocol is Playable:
        return "a recording"
    if need.capability is Capability.STEP:
        return "a run, live or recorded"
    return "a session that reads and writes files" if need.protocol is Filing else "a model"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    out = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    out += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(out) + "\n"


def main() -> None:
    """Write the page to the file named on the command line."""
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
