"""Commands on the tree of runs and branches."""

from __future__ import annotations

from typing import Annotated

from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import table, text
from moetui.console.kinds import TEXT, OneBranch
from moetui.console.needs import BRANCH
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.routing.branches import BranchRow
from moetui.session import Branching

GROUP = "runs"


@command(GROUP)
def branches(console: Context) -> Result:
    """Show the runs and the branches forked from them as a tree.

    The one that the session stands on is marked, and so is the main one of a run that has several.
    """
    tree = console.tree
    if not tree.branches:
        return Result((Text("nothing has run yet"),), [])
    view = console.view
    own = view.tokens(view.first, view.end)
    rows, data = [], []
    for row in tree.rows():
        branch = row.branch
        count = int(((own.branch == branch.id) & ~own.pad).sum())
        parent = tree.parent(branch)
        main = tree.main(branch.run) == branch.id
        marks = [word for word, so in (("main", main and _has_several(console, branch.run)),) if so]
        if branch.id == tree.current:
            marks.append("here")
        name = Text(_stem(row, ascii_only=console.ascii), "dim").append_text(text(branch.name, "bold"))
        where = "" if parent is None else f"from {branch.fork_position}"
        rows.append(
            (str(branch.id), name, text(", ".join(marks)), f"{count:,}", text(where), text(_short(branch.prompt)))
        )
        data.append(
            {
                "id": branch.id,
                "name": branch.name,
                "run": branch.run,
                "parent": None if parent is None else parent.name,
                "fork_position": branch.fork_position,
                "tokens": count,
                "current": branch.id == tree.current,
                "main": main,
                "prompt": branch.prompt,
            }
        )
    heads = ("#", "branch", "", "tokens", "position", "prompt")
    return Result((table(heads, rows, left=("branch", "", "position", "prompt")),), data)


@command(GROUP)
def switch(console: Context, branch: OneBranch) -> Result:
    """Go to another branch: the session stands paused where that one was left, and 'continue' goes on exactly there.

    What runs now is left where it stands and can be gone back to, as can a run that was stopped or failed. Until
    something else begins, commands that are told of no branch look at this one alone, with all that it shares with the
    one that it was forked from. In a recording that is all that it does.

    Examples:
        switch 0
    """
    if not isinstance(console.session, Branching):
        console.looks_at = branch.id
        return Result((text(f"commands look at {branch.name}"),), {"branch": branch.id, "state": None, "reason": ""})
    _branching(console).switch_branch(branch.id)
    console.settle()
    state, reason = console.session.state.value, console.session.reason
    shown = f"on {branch.name}   {state}{': ' + reason if reason and not reason.startswith('on ') else ''}"
    return Result((text(shown),), {"branch": branch.id, "state": state, "reason": reason})


@command(GROUP, BRANCH)
def rename(console: Context, branch: OneBranch, name: Annotated[str, TEXT]) -> Result:
    """Give a branch another name.

    Args:
        branch: by its name of now, or its number.
        name: as shown and typed from now on.

    Examples:
        rename 0 plain
        moe.rename("run 0", "plain")
    """
    try:
        _branching(console).rename_branch(branch.id, name)
    except UsageError as error:
        raise UsageError(f"name: {error.message}", error.hint) from None
    return Result((text(f"{branch.name} is called {name.strip()} now"),), {"branch": branch.id, "name": name.strip()})


@command(GROUP, BRANCH)
def promote(console: Context, branch: OneBranch) -> Result:
    """Make a branch the main one of its run: 'branches' lists it first, 'compare' holds the others against it.

    Examples:
        promote without-3
    """
    _branching(console).promote_branch(branch.id)
    return Result((text(f"{branch.name} is the main branch of its run"),), {"branch": branch.id})


@command(GROUP, BRANCH)
def delete(console: Context, branch: OneBranch) -> Result:
    """Take a branch out of the tree, and free what it keeps for going back.

    Its tokens are shown and counted no more, but for those that branches forked from it share; these stay. A recording
    keeps what was written: 'moetui stats', 'diff' and 'export' pass over it unless --deleted asks for it.

    Examples:
        delete without-3
    """
    _branching(console).delete_branch(branch.id)
    left = [each.name for each in console.tree.branches]
    return Result((text(f"{branch.name} is deleted; there is {', '.join(left)}"),), {"branch": branch.id, "left": left})


def _branching(console: Context) -> Branching:
    assert isinstance(console.session, Branching)  # the registry has checked the need
    return console.session


def _has_several(console: Context, run: int) -> bool:
    return sum(branch.run == run for branch in console.tree.branches) > 1


def _stem(row: BranchRow, *, ascii_only: bool) -> str:
    """The lines that hang a branch into the tree."""
    if not row.last:
        return ""
    trunk, gap, fork_, end = ("|  ", "   ", "|- ", "`- ") if ascii_only else ("│  ", "   ", "├─ ", "└─ ")
    return "".join(gap if last else trunk for last in row.last[:-1]) + (end if row.last[-1] else fork_)


def _short(prompt: str, most: int = 48) -> str:
    return prompt if len(prompt) <= most else prompt[: most - 1] + "…"
