"""The tree of branches, from events alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moetui.routing import UsageError
from moetui.routing.branches import BranchTree, line_rows
from moetui.routing.events import Branch, BranchAdded, BranchChange, BranchChanged, Notice


def tree(*branches: Branch) -> BranchTree:
    out = BranchTree()
    for branch in branches:
        out = out.after(BranchAdded(branch))
    return out


FAMILY = tree(
    Branch(0, 0, "run 0"),
    Branch(1, 0, "left", 0, 10),
    Branch(2, 2, "run 2"),
    Branch(3, 0, "right", 0, 12),
    Branch(4, 0, "deep", 1, 15),
    Branch(5, 0, "early", 4, 12),
)


def drawn(found: BranchTree) -> list[str]:
    return ["  " * row.depth + row.branch.name for row in found.rows()]


def test_rows_are_the_tree_from_the_top() -> None:
    assert drawn(FAMILY) == ["run 0", "  left", "    deep", "      early", "  right", "run 2"]
    assert [row.last for row in FAMILY.rows()][1:5] == [(False,), (False, True), (False, True, True), (True,)]


def test_a_main_branch_comes_first_and_deleted_ones_hand_theirs_up() -> None:
    changed = FAMILY.after(BranchChanged(3, "promoted"))
    assert changed.main(0) == 3
    assert drawn(changed)[:3] == ["run 0", "  right", "  left"]
    changed = changed.after(BranchChanged(1, "deleted")).after(BranchChanged(3, "deleted"))
    assert changed.main(0) == 0
    assert drawn(changed) == ["run 0", "  deep", "    early", "run 2"]
    assert [branch.id for branch in changed.every] == list(range(6)), "what they share stays"
    with pytest.raises(UsageError, match="branch 1 was deleted") as error:
        changed.get(1)
    assert error.value.hint == "branches: run 0, run 2, deep, early"


def test_a_sequence_is_made_of_what_is_shared_and_what_is_its_own() -> None:
    assert FAMILY.line(2) == ((2, None),)
    assert FAMILY.line(4) == ((0, 10), (1, 15), (4, None))
    assert FAMILY.line(5) == ((0, 10), (1, 12), (4, 12), (5, None))

    class Columns:
        branch = np.array([0, 0, 0, 1, 1, 4, 4, 2, 5])
        position = np.array([9, 10, 11, 10, 14, 15, 16, 0, 12])
        pad = np.array([False] * 8 + [True])

    keep = line_rows(Columns(), FAMILY.line(4))  # type: ignore[arg-type]
    assert keep.tolist() == [True, False, False, True, True, True, True, False, False]


def test_where_the_session_stands() -> None:
    assert (FAMILY.current, FAMILY.chosen) == (5, False)
    back = FAMILY.after(BranchChanged(0, "switched"))
    assert (back.current, back.chosen) == (0, True)
    again = back.after(BranchAdded(Branch(6, 6, "run 6")))
    assert (again.current, again.chosen) == (6, False)
    assert back.after(Notice("nothing")) == back


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (" ", "empty"),
        ("12", "12 is a number"),
        ("-1", "is a number"),
        ("LEFT", "called left"),
        ("x" * 61, "61 letters"),
        ("a\x1b[2J", "cannot be typed"),
        ("Run 9", "what branch 9 is called"),
    ],
)
def test_names_that_will_not_do(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FAMILY.check_name(name)
    assert FAMILY.check_name(" Left ", renamed=1) == "Left"
    assert FAMILY.check_name("run 1", renamed=1) == "run 1"


CHANGES = st.sampled_from(BranchChange.__args__)  # type: ignore[attr-defined]
EVENTS = st.one_of(
    st.builds(BranchChanged, st.integers(-1, 9), CHANGES, st.text(max_size=3)),
    st.builds(
        lambda number, run, parent, at: BranchAdded(Branch(number, run, str(number), parent, at)),
        st.integers(0, 8),
        st.integers(0, 2),
        st.none() | st.integers(-2, 9),
        st.integers(0, 5),
    ),
)


@given(st.lists(EVENTS, max_size=12))
def test_no_events_however_odd_break_it(events: list[BranchAdded | BranchChanged]) -> None:
    found = BranchTree()
    for event in events:
        found = found.after(event)
        for branch in found.branches:
            assert found.line(branch.id)[-1][0] == branch.id
            found.parent(branch)
            assert found.main(branch.run) is not None
        assert len(found.rows()) <= len(found.every)
