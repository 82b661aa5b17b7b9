"""Commands on the interventions in force: list, undo, remove."""

from __future__ import annotations

from typing import Annotated

from rich.text import Text

from moetui.console.changes import change, restore
from moetui.console.context import Context
from moetui.console.draw import table, text
from moetui.console.kinds import NUMBERS
from moetui.console.needs import INTERVENE
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.console.words import describe, scope_words
from moetui.routing import UsageError
from moetui.routing.interventions import Intervention, as_dict

GROUP = "interventions"


@command(GROUP)
def interventions(console: Context) -> Result:
    """List the interventions in force, in the order in which they are applied."""
    active = list(console.session.interventions)
    if not active:
        return Result((Text("no interventions: the model routes as it was trained to"),), [])
    rows = [(str(number), text(describe(item)), scope_words(item.scope)) for number, item in enumerate(active, 1)]
    return Result((table(("#", "what", "where"), rows, left=("what", "where")),), [as_dict(item) for item in active])


@command(GROUP, INTERVENE)
def undo(console: Context) -> Result:
    """Take the last change of the interventions back."""
    state = console.undo.undo(console.session.interventions)
    if state is None:
        raise UsageError("nothing to undo", "'interventions' lists what is in force")
    return restore(console, state, "undone")


@command(GROUP, INTERVENE)
def redo(console: Context) -> Result:
    """Make the change that was undone last again."""
    state = console.undo.redo(console.session.interventions)
    if state is None:
        raise UsageError("nothing to redo", "'undo' comes first")
    return restore(console, state, "redone")


@command(GROUP, INTERVENE)
def reset(console: Context, numbers: Annotated[tuple[int, ...] | None, NUMBERS] = None) -> Result:
    """Remove all interventions, or those of these numbers.

    Args:
        numbers: as 'interventions' lists them, from 1; all if left out.

    Examples:
        reset
        reset 2
    """
    active = list(console.session.interventions)
    if numbers is None:
        kept: list[Intervention] = []
    else:
        for number in numbers:
            if not 1 <= number <= len(active):
                valid = f"numbers 1 to {len(active)}" if active else "there are no interventions"
                raise UsageError(f"numbers: there is no intervention {number}", valid)
        kept = [item for number, item in enumerate(active, 1) if number not in numbers]
    if len(kept) == len(active):
        return Result((Text("no interventions were in force"),), [])
    return change(console, kept, f"removed {len(active) - len(kept)}")
