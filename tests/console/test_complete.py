"""What Tab proposes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moetui.console import Console


def words(console: Console, line: str) -> list[str]:
    """The whole lines that Tab could make of one."""
    found = console.complete(line, len(line))
    return [line[: found.start] + word for word in found.words]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ban", ["ban_experts"]),
        ("  ban", ["  ban_experts"]),
        ("compare 0 --", ["compare 0 --a", "compare 0 --b", "compare 0 --json"]),
        ("ban_experts 1 --la", ["ban_experts 1 --layers"]),
        ("ban_experts 1 --layers 0,", [f"ban_experts 1 --layers 0,{i}" for i in range(3)]),
        ("ban_experts ", [f"ban_experts {i}" for i in range(6)]),
        ("ban_experts 1 2,", [f"ban_experts 1 2,{i}" for i in range(6)]),
        ("ban_experts --phase d", ["ban_experts --phase decode"]),
        ("ban_experts --phase=p", ["ban_experts --phase=prefill"]),
        ("expert ", ["expert L0", "expert L1", "expert L2"]),
        ("expert l", ["expert L0", "expert L1", "expert L2"]),
        ("expert L1 ", [f"expert L1 {i}" for i in range(6)]),
        ("why gar", ["why garden"]),
        ("help dead", ["help dead_experts"]),
        ("config te", ["config temperature"]),
        ("find flip vs ", ['find flip vs "run 0"', 'find flip vs "run 1"']),
        ("find branch:ru", ['find branch:"run 0"', 'find branch:"run 1"']),
        ("similarity L0 --by ", ["similarity L0 --by logits", "similarity L0 --by weights"]),
        ("compare 0", ["compare 0"]),
        ("find lay", ["find layer:"]),
        ("find layer:1 phase:", ["find layer:1 phase:prefill", "find layer:1 phase:decode"]),
        ("moe.ban", ["moe.ban_experts"]),
        ("moe.ban_experts(lay", ["moe.ban_experts(layers="]),
        ("x = moe.dead", ["x = moe.dead_experts"]),
        ("np.linal", ["np.linalg"]),
        ("model.lm", ["model.lm_head"]),
        ("model.model.layers[0].", ["model.model.layers[0].mlp"]),
    ],
)
def test_what_a_line_could_become(console: Console, line: str, expected: list[str]) -> None:
    assert set(expected) <= set(words(console, line)), words(console, line)
    if len(expected) > 1:
        assert [word for word in words(console, line) if word in expected] == expected


def test_nothing_is_proposed_where_nothing_fits(console: Console) -> None:
    assert words(console, "pause ") == []
    assert words(console, "swap_experts 1 2 ") == []
    assert words(console, "zzz") == []


def test_an_option_is_proposed_once(console: Console) -> None:
    assert "ban_experts 1 --layers 2 --layers" not in words(console, "ban_experts 1 --layers 2 --")


def test_own_names_are_proposed(console: Console) -> None:
    console.run("balanced_value = {'a': 1}")
    assert "balanced_value" in words(console, "balanced")
    assert "balanced_value.items" in words(console, "balanced_value.it")


def test_asking_for_members_runs_nothing(console: Console) -> None:
    console.run("class Trap:\n    @property\n    def secret(self):\n        raise SystemExit\n\ntrap = Trap()")
    assert words(console, "trap.s") == ["trap.secret"]


def test_files_are_proposed_by_their_folder(console: Console, tmp_path: Path) -> None:
    (tmp_path / "one.msgpack").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "two").mkdir()
    found = words(console, f"load {tmp_path}{os.sep}")
    assert found == [f"load {tmp_path}/one.msgpack", f"load {tmp_path}/two/"]
    assert words(console, f"load {tmp_path}/.h") == [f"load {tmp_path}/.hidden"]


def test_the_signature_is_shown_while_a_command_is_typed(console: Console) -> None:
    line = "ban_experts 1 "
    assert console.hint(line, len(line)).startswith("ban_experts EXPERTS ... [--layers LAYERS]")
    line = "moe.ban_experts([1], "
    assert console.hint(line, len(line)) == (
        "moe.ban_experts(experts, *, layers=None, sites=None, positions=None, phase=None)"
    )
    assert console.hint("x = 3", 5) == ""
