"""Bare, called, and Python: which line is what, and that both forms of a command mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from moetui.console import Console
from moetui.console.bare import parse_bare, split
from moetui.console.commands import registry
from moetui.console.registry import Command
from moetui.session import ReplaySession
from tests.console.conftest import drawn

BOTH = [
    ("stats --last 5", "moe.stats(last=5)"),
    ("expert L1 2 --rows 2", 'moe.expert("L1", 2, rows=2)'),
    ("experts --layers 0,2", "moe.experts(layers=[0, 2])"),
    ("experts --layers 0-1", "experts(layers=(0, 1))"),
    ("tokens 3-5", "moe.tokens((3, 6))"),
    ('find token:"art" phase:decode', """moe.find('token:"art" phase:decode')"""),
    ("why 3 --site L1", "moe.why(3, site='L1')"),
    ("coactivation L0", "moe.coactivation(0)"),
    ("compare 0 1", "moe.compare('run 0', 'run 1')"),
    ("seek 12", "moe.seek(12)"),
]


@pytest.mark.parametrize(("bare", "call"), BOTH)
def test_both_forms_answer_the_same(console: Console, bare: str, call: str) -> None:
    first, second = console.run(bare), console.run(call)
    assert not first.error
    assert not second.error
    assert first.data == second.data
    assert first.data is not None


@pytest.mark.parametrize("command", list(registry()), ids=lambda command: command.name)
def test_every_command_has_both_forms(
    replay: ReplaySession, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an example says with words, said as a call: the same answer, or the same refusal."""
    bare = next((each for each in command.doc.examples if not each.startswith("moe.")), command.name)
    words = parse_bare(command, bare, split(bare)[1:]).values
    call = f"moe.{command.attribute}({', '.join(f'{name}={value!r}' for name, value in words.items())})"
    if command.name == "history":
        call = f" {call}"  # remembered neither way, so that both see the same
        bare = f" {bare}"
    answers = []
    for line in (bare, call):
        folder = tmp_path / str(len(answers))
        folder.mkdir()
        monkeypatch.chdir(folder)
        replay.seek(20)
        replay.pause()
        answers.append(Console(replay).run(line))
    first, second = answers
    assert (first.error, first.hint) == (second.error, second.hint), call
    assert first.data == second.data, call


@pytest.mark.parametrize(("bare", "call"), BOTH)
def test_calls_need_no_python(replay: ReplaySession, bare: str, call: str) -> None:
    assert Console(replay, python=False).run(call).data == Console(replay).run(bare).data


def test_without_python_only_literals_are_read(replay: ReplaySession) -> None:
    console = Console(replay, python=False)
    assert console.run("moe.stats(last=1+1)").error == "the arguments of stats must be literals here"
    assert console.run("__import__('os').getpid()").error.startswith("no such command")
    found = console.run("statss")
    assert (found.error, found.hint) == ("no such command: statss", "did you mean 'stats'?")
    found = console.run("force 0 3 7")
    assert found.hint == "did you mean 'force_expert_selection'?"


def test_a_line_that_assigns_to_a_commands_name_is_python(console: Console) -> None:
    assert console.run("tokens = 3; tokens + 1").data == 4
    assert console.run("tokens").data == 3, "what was assigned is what is meant"
    assert len(console.run("tokens --rows 2").data) == 2, "with words it is the command all the same"
    assert console.run("del tokens; tokens --rows 2").error
    assert len(console.run("tokens --rows 3").data) == 3


def test_a_bracket_makes_a_call_only_where_it_reads_as_one(console: Console) -> None:
    assert console.run("stats()").data == console.run("stats").data
    assert console.run("find (layer:1 entropy>99)").data == []


def test_where_python_is_switched_off_help_says_so(replay: ReplaySession) -> None:
    assert "it was switched off" in drawn(Console(replay, python=False).run("help"))


def test_what_follows_a_list_is_not_taken_for_more_of_it(console: Console) -> None:
    wrong = console.run("moe.breakpoints([1], 2)")
    assert wrong.error
    wrong = console.run("moe.ban_experts([2], 4)")
    assert wrong.error.startswith("ban_experts takes 1 positional arguments (experts), not 2")


def test_answers_are_used_as_data_in_python(console: Console) -> None:
    fairness = console.run("stats").data["fairness_index"]
    assert console.run("moe.stats()['fairness_index']").data == fairness
    whole = console.run("stats").data
    assert console.run("dict(moe.stats())").data == console.run("dict(**moe.stats())").data == whole
    assert console.run("moe.stats().get('fairness_index'), moe.stats().get('no such', 3)").data == [fairness, 3]
    assert console.run("list(moe.stats().keys()) == [key for key, _ in moe.stats().items()]").data is True
    assert console.run("len(moe.stats().values())").data == len(whole)
    assert "AttributeError" in console.run("moe.tokens().keys()").error
    assert console.run("[len(moe.find(f'layer:{i} index:0-4')) for i in range(3)]").data == [5, 5, 5]
    assert console.run("bool(moe.stats()), len(moe.tokens(rows=3))").data == [True, 3]


@pytest.mark.parametrize("line", ["help find", "find?", "?find", "moe.find?", "? moe.find()", "moe.help('find')"])
def test_help_is_asked_for_in_many_ways(console: Console, line: str) -> None:
    assert console.run(line).data["name"] == "find"


@pytest.mark.parametrize("line", ["", "   ", "# a comment", "\n\n"])
def test_nothing_comes_of_nothing(console: Console, line: str) -> None:
    result = console.run(line)
    assert (result.renderables, result.data, result.error) == ((), None, "")


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("expert L1 66", "expert: 66 is no expert of this model", "experts 0 to 5"),
        ("expert L9 1", "site: there is no site L9", "sites L0, L1, L2"),
        ("expert L1", "expert is missing: an expert id", "usage: expert SITE EXPERT"),
        ("experts --layers 7", "--layers: layer 7 has no router", "layers with routers: 0-2"),
        ("experts --layers 2-1", "--layers: 2-1 runs backwards", "layers: 3"),
        ("experts --sites L1,Q", "--sites: there is no site Q", "sites L0, L1, L2"),
        ("moe.experts(layer=1)", "experts has no argument layer", "did you mean 'layers'?"),
        ("moe.experts(1)", "experts takes 0 positional arguments", "experts(*, layers=None"),
        ("moe.expert('L1', 2, expert=3)", "expert is given twice", "expert(site, expert"),
        ("why 999", "token: there is no token 999", "tokens 0 to 29 are held"),
        ("why nowhere", "token: no token reads 'nowhere'", "find"),
        ("stats --branch run9", "--branch: there is no branch run9", "branches: run 0, run 1"),
        ("stats --last 0", "--last: 0 is outside its range", "from 1"),
        ("stats --last many", "--last: many is no whole number", "a whole number from 1"),
        ("speed 100", "times: 100 will not do", "a number from 0.25 to 64"),
        ("similarity L0 --by colour", "--by: colour is none of them", "one of logits, weights"),
        ("find entropy>", "", ""),
        ("help statistics", "no such command: statistics", "did you mean"),
        ("moe.stat()", "AttributeError: moe has no command stat", ""),
        ("generate x", "a recording cannot generate", "moetui run"),
        ("ban_experts 1", "a recording cannot change the routing", "moetui run"),
        ("break_when entropy<1", "a recording cannot stop at breakpoints", "find"),
        ("fork 3", "a recording cannot branch off", "moetui run MODEL"),
    ],
)
def test_errors_name_the_argument_and_what_is_valid(console: Console, line: str, error: str, hint: str) -> None:
    result = console.run(line)
    assert result.error
    assert error in result.error
    assert hint in result.hint
    assert result.data is None
