"""Runs side by side."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import number, percent, table, text, token_text
from moetui.console.kinds import Flag, MaybeBranch, Rows
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.routing.branches import BranchTree, line_rows
from moetui.routing.compare import Comparison, SiteComparison
from moetui.routing.compare import compare as compare_views
from moetui.routing.events import Branch

GROUP = "runs"
_PAIRS = 6  # of tokens side by side


@command(GROUP)
def compare(
    console: Context, a: MaybeBranch = None, b: MaybeBranch = None, *, recording: Flag = False, rows: Rows = 4
) -> Result:
    """Compare two runs, position by position: where the text parts, and how far the routing agrees.

    The tokens stand side by side from just before the first other one, each with the probability that its run gave it.
    How much of the next token's probability moved is told as far as both runs' likeliest candidates tell: at least so.
    Overlap is the share of the experts that both chose among those that either chose, averaged over the tokens; KL is
    of the router's distributions, in nats. They are told over the tokens before the first difference, where both saw
    the same text, and the overlap over all. Branches are compared from where they part.

    Args:
        a: what ``b`` is held against; if left out, the branch that was promoted in its run, the one it was forked from,
            or the run before it.
        b: the branch; the one that the session stands on, if left out.
        recording: compare the recording that 'load' opened with this session; of it, or of run ``b``.
        rows: the most choices to list that differ for the same token, those against the largest margins.

    Examples:
        compare
        compare 0 2
    """
    if recording:
        return _with_recording(console, a, b, rows)
    known = list(console.session.branches)
    if len(known) < 2:
        raise UsageError("there is nothing to compare", "generate a prompt twice, or fork a run")
    tree = console.tree
    later = b or console.standing
    earlier = a or _before(tree, later)
    if earlier.id == later.id:
        raise UsageError("a and b are the same run", "'branches' lists them")
    view = console.view
    line_a, line_b = tree.line(earlier.id), tree.line(later.id)
    found = compare_views(view, view, line_a=line_a, line_b=line_b, top=rows, side_by_side=_PAIRS)
    columns = view.tokens(view.first, view.end)
    shared = int((line_rows(columns, line_a, view.stacks) & line_rows(columns, line_b, view.stacks)).sum())
    return _told(found, earlier.name, later.name, shared=shared)


def _before(tree: BranchTree, later: Branch) -> Branch:
    others = [branch for branch in tree.branches if branch.id != later.id]
    promoted = tree.find(tree.promoted.get(later.run, later.id))
    if promoted is not None and promoted.id != later.id:
        return promoted
    parent = tree.parent(later)
    if parent is not None:
        return parent
    earlier = [branch for branch in others if branch.id < later.id]
    same_run = [branch for branch in others if branch.run == later.run]
    return (same_run or earlier or others)[-1]


def _with_recording(console: Context, a: Branch | None, b: Branch | None, rows: int) -> Result:
    loaded = console.recording
    if loaded is None:
        raise UsageError("no recording is open", "load FILE opens one")
    if a is not None and b is None:
        a, b = None, a
    if a is not None:
        raise UsageError("a recording is compared with one run", "compare RUN --recording")
    theirs = loaded.tree.branches[-1].id if loaded.tree.branches else 0
    found = compare_views(
        loaded.timeline.snapshot(),
        console.view,
        line_a=None if b is None else loaded.tree.line(theirs),
        line_b=None if b is None else console.tree.line(b.id),
        top=rows,
        side_by_side=_PAIRS,
    )
    return _told(found, loaded.path, b.name if b is not None else console.session.name)


def _told(found: Comparison, a: str, b: str, *, shared: int = 0) -> Result:
    if not found.tokens:
        raise UsageError(f"{a} and {b} share no position that is still held", "'branches' lists their tokens")
    head = text(f"{a} and {b}: {found.tokens:,} position{'s' if found.tokens != 1 else ''}, ")
    parted = found.first_token
    if found.aligned == "position":
        head.append("which tokens they are is unknown")
    elif parted is None:
        head.append("the same tokens")
    else:
        head.append(f"first difference at position {parted.position}   ")
        head.append_text(Text.assemble(token_text(parted.text_a, "bold"), " → ", token_text(parted.text_b, "bold")))
    shown: list[RenderableType] = [head, *_side_by_side(found), _sites(found)]
    shown += _flips(found)
    if shared:
        shown.append(text(f"the {shared:,} tokens before they part are the same ones and left out", "dim"))
    if found.only_a or found.only_b:
        shown.append(
            text(f"{found.only_a:,} tokens of the first and {found.only_b:,} of the second have no partner", "dim")
        )
    return Result(tuple(shown), {"a": a, "b": b, "shared": shared, **found.to_dict()})


def _side_by_side(found: Comparison) -> list[RenderableType]:
    if found.first_token is None and found.first_routing is None:
        return []
    rows = [
        (
            str(pair.position),
            token_text(pair.text_a, "" if pair.same_token else "bold"),
            percent(pair.prob_a),
            token_text(pair.text_b, "" if pair.same_token else "bold"),
            percent(pair.prob_b),
            str(pair.sites) if pair.sites else "",
            percent(pair.moved),
        )
        for pair in found.side_by_side
    ]
    heads = ("position", "first", "p", "second", "p", "sites apart", "p of the next moved")
    shown: list[RenderableType] = [table(heads, rows, left=("first", "second"))]
    if found.probability_moved is not None:
        share = percent(found.probability_moved, 1)
        shown.append(text(f"while the text was the same, {share} of the next token's probability moved", "dim"))
    return shown


def _sites(found: Comparison) -> RenderableType:
    rows = []
    for same, every in zip(found.prefix_sites, found.sites):
        rows.append((text(every.site), *_agreement(same), *_agreement(every)[:2], percent(every.load_shift, 1)))
    heads = ("site", "same text: overlap", "first choice", "KL", "all: overlap", "first choice", "load moved")
    return table(heads, rows, left=("site",))


def _agreement(site: SiteComparison) -> tuple[str, str, str]:
    return percent(site.jaccard), percent(site.same_top1), number(site.kl, 3)


def _flips(found: Comparison) -> list[RenderableType]:
    others = found.other_token_flips
    told = f"{found.flips:,} choices differ" + (f", {others:,} of them where the tokens do" if others else "")
    if not found.top_flips:
        return [text(told, "dim")] if others else []
    rows = [
        (
            str(flip.position),
            token_text(flip.text, "bold"),
            text(flip.site),
            ", ".join(f"E{expert}" for expert in flip.lost),
            ", ".join(f"E{expert}" for expert in flip.gained),
            number(flip.margin),
        )
        for flip in found.top_flips
    ]
    heads = ("position", "token", "site", "lost", "gained", "against a margin of")
    note = text(f"{told}; {'the others, ' if others else ''}against the largest margins:", "dim")
    return [note, table(heads, rows, left=("token", "site", "lost", "gained"))]
