"""What a session may offer besides: breakpoints, going back, analyses. Sessions that do are told apart by asking."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moetui.console import Console
from moetui.console.draw import likelier
from moetui.routing import UsageError
from moetui.routing.events import GenerationSettings
from moetui.session import Breakpoint, ReplaySession
from moetui.session.analyses import RouterDecomposition, TokenImpact
from tests.console.conftest import drawn


class Offering(ReplaySession):
    """A recording that keeps breakpoints, goes back, and computes its analyses from what it holds."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, start="end", paused=True)
        self.breakpoints: Sequence[Breakpoint] = ()
        self.asked: list[tuple[Any, ...]] = []
        self._numbers = iter(range(1, 100))

    def add_breakpoint(self, expression: str, **how: Any) -> Breakpoint:
        point = Breakpoint(next(self._numbers), expression, **how)
        self.breakpoints = (*self.breakpoints, point)
        return point

    def change_breakpoint(self, number: int, **changes: Any) -> Breakpoint:
        changes = {name: value for name, value in changes.items() if value is not None}
        self.breakpoints = tuple(
            replace(point, **changes) if point.id == number else point for point in self.breakpoints
        )
        return next(point for point in self.breakpoints if point.id == number)

    def remove_breakpoint(self, number: int) -> None:
        self.breakpoints = tuple(point for point in self.breakpoints if point.id != number)

    def rewind(self, token: int) -> None:
        self.asked.append(("rewind", token))

    def fork(
        self, token: int, settings: GenerationSettings | None = None, name: str = "", *, paused: bool = False
    ) -> None:
        self.asked.append(("fork", token, settings, name))

    analyses = ("token_impact", "router_decomposition", "expert_similarity")

    def analyze(self, name: str, **arguments: Any) -> Future[Any]:
        self.asked.append((name, arguments))
        future: Future[Any] = Future()
        try:
            future.set_result(getattr(self, "_" + name)(**arguments))
        except UsageError as error:
            future.set_exception(error)
        return future

    def _token_impact(self, branch: int, sequence: int, positions: list[int], replacement: str | None) -> TokenImpact:
        if replacement == "":
            raise UsageError("the replacement is empty", "give a text")
        block = self.snapshot().routing(0, len(positions))
        return TokenImpact(
            replacement=replacement or " the",
            indices=block.indices,
            weights=block.weights.astype(np.float32),
            changed=np.array([0.25, np.nan, 1.0], np.float32),
            logprob=-0.125,
            divergence=0.5,
            before=((" garden", 0.75), ("\x1b[2J", 0.125)),
            after=((" river", 0.5),),
        )

    def _router_decomposition(self, branch: int, sequence: int, position: int, site: int) -> RouterDecomposition:
        logits = self.snapshot().routing(position, position + 1).logits[0, site].astype(np.float32)
        return RouterDecomposition(("embedding", "L0 attention"), np.stack([logits * 0.75, logits * 0.25]), logits)

    def _expert_similarity(self, site: int) -> Any:
        matrix = np.full((6, 6), 0.1, np.float32)
        matrix[1, 4] = matrix[4, 1] = 0.9
        return matrix


@pytest.fixture
def offering(recording: Path) -> Iterator[Offering]:
    session = Offering(recording)
    session.open()
    assert session.wait(10)
    yield session
    session.close()


@pytest.fixture
def console(offering: Offering) -> Console:
    return Console(offering)


def test_a_breakpoint_is_changed_in_its_place(console: Console) -> None:
    console.run("break_when entropy < 0.5")
    console.run("log_when margin < 0.01")
    changed = console.run("change_breakpoint 1 entropy < 0.2 and layer == 1 --ignore 2")
    assert (changed.data["id"], changed.data["expression"]) == (1, "entropy < 0.2 and layer:1")
    assert (changed.data["ignore"], changed.data["log_only"]) == (2, False)
    assert console.run("moe.change_breakpoint(2, does='once')").data["temporary"]
    assert console.run("change_breakpoint 2 --does log").data["log_only"]
    listed = console.run("breakpoints").data
    assert [(point["id"], point["expression"]) for point in listed] == [
        (1, "entropy < 0.2 and layer:1"),
        (2, "margin < 0.01"),
    ]
    before = console.run("breakpoints --json").data
    for line, error in (
        ("change_breakpoint 3 entropy < 1", "number: there is no breakpoint 3"),
        ("change_breakpoint one", "number: one is no whole number"),
        ("change_breakpoint 1", "nothing is to change"),
        ("change_breakpoint 1 --ignore -1", "--ignore: -1 is outside its range"),
        ("change_breakpoint 1 --does sing", "--does: sing is none of them"),
    ):
        assert console.run(line).error == error
    assert console.run("change_breakpoint 1 entropy <").error
    assert console.run("breakpoints").data == before


def test_a_changed_condition_is_completed_behind_the_number(console: Console) -> None:
    console.run("break_when entropy < 0.5")
    console.run("break_when entropy < 0.6")
    assert console.complete("change_breakpoint ", 18).words == ("1", "2")
    assert console.complete("breakpoints --remove 1,", 23).words == ("1", "2")
    line = "change_breakpoint 1 entr"
    found = console.complete(line, len(line))
    assert (found.start, "entropy" in found.words) == (len(line) - 4, True)


def test_breakpoints_are_added_listed_switched_and_removed(console: Console) -> None:
    first = console.run("break_when entropy<0.3 layer:1 --ignore 2 --once")
    assert first.data["expression"] == "entropy < 0.3 and layer:1", "as the language writes it"
    assert drawn(first) == "1: stops once after 2 more when entropy < 0.3 and layer:1\n"
    assert console.run("moe.log_when('margin < 0.01')").data["log_only"] is True
    assert [point["id"] for point in console.run("breakpoints").data] == [1, 2]
    assert [point["enabled"] for point in console.run("breakpoints --disable 2").data] == [True, False]
    assert [point["enabled"] for point in console.run("breakpoints --enable 1,2").data] == [True, True]
    assert [point["id"] for point in console.run("breakpoints --remove 1").data] == [2]
    assert console.run("breakpoints --remove 1").error == "--remove: there is no breakpoint 1"
    wrong = console.run("break_when entropi<1")
    assert "entropi" in wrong.error
    for line in ("break_when layer == 99", "log_when 40 in topk", "change_breakpoint 2 site:L9", "watch layer:99"):
        assert re.match(r"(condition|query): there is no ", console.run(line).error), line
        assert console.run(line).hint, line
    assert console.run("find layer:99").hint == "layers: 0 to 2"
    assert len(console.run("breakpoints").data) == 1, "a condition that does not parse is no breakpoint"


def test_going_back_and_forking_reach_the_session(console: Console, offering: Offering) -> None:
    assert console.run("rewind -3").data == {"token": 27}
    console.run("fork 12 --name without-3")
    console.run("fork 12 --temperature 0.5 -n 3")
    assert offering.asked[:2] == [("rewind", 27), ("fork", 12, None, "without-3")]
    settings = offering.asked[2][2]
    assert (settings.temperature, settings.max_new_tokens) == (0.5, 3)


def test_token_impact_replaces_every_occurrence_shown(console: Console, offering: Offering) -> None:
    result = console.run('moe.analyze_token_impact("artificial", replacement=" human", rows=2)')
    assert [arguments for _, arguments in offering.asked] == [
        {"branch": 1, "sequence": 0, "positions": [3], "replacement": " human"},
        {"branch": 1, "sequence": 0, "positions": [13], "replacement": " human"},
    ]
    impact = result.data[0]["impact"]
    assert impact["divergence"] == 0.5
    assert impact["sites"][1]["changed"] is None, "unknown is null"
    text = drawn(result)
    assert 'replaced by "·human": next token KL 0.500 nats, later tokens 0.125 nats less likely' in text
    assert 'next "·garden" 75%  "␛[2J" 12%  →  "·river" 50%' in text
    assert "4 occurrences, the newest 2 shown" in text
    assert "\x1b" not in text
    assert console.run("analyze_token_impact artificial --replacement ''").error == "the replacement is empty"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ((-1.1449,), "1.145 nats less likely"),
        ((0.25,), "0.250 nats likelier"),
        ((-0.5, 0.125), "0.500 ± 0.125 nats less likely"),
    ],
)
def test_a_change_of_likelihood_has_one_sign(change: tuple[float, ...], told: str) -> None:
    assert likelier(*change) == told


def test_a_word_of_several_tokens_is_replaced_whole(console: Console, offering: Offering) -> None:
    console.run("analyze_token_impact riverartificial --branch 0")
    assert offering.asked[0][1]["positions"] == [4, 5, 6]


def test_why_shows_what_pushed_the_choice_where_the_session_can_tell(console: Console) -> None:
    text = drawn(console.run("why 3 --site L1"))
    assert "embedding" in text
    assert "L0 attention" in text
    assert "embedding" not in drawn(console.run("why 3")), "only for the site that was asked about"


def test_similarity_of_weights_asks_the_session(console: Console) -> None:
    data = console.run("similarity L2 --by weights").data
    assert data["pairs"][0] == {"expert": 1, "with": 4, "value": pytest.approx(0.9)}
    assert data["matrix"][0][0] is None
