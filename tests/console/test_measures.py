"""What the commands say of a recording is what its arrays hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from moetui.console import Console
from moetui.console.choices import choices
from moetui.routing import NO_EXPERT
from moetui.routing.metrics import probabilities, site_margin
from moetui.routing.stats import compute_stats
from moetui.session import ReplaySession
from tests.console.conftest import drawn

Read = Callable[[str], str]


def test_stats_are_those_of_the_command_line(console: Console, replay: ReplaySession) -> None:
    data = console.run("stats").data
    mine = compute_stats(
        replay.snapshot(),
        replay.info,
        prompt="once was a",
        text=data["text"],
        interventions=replay.interventions,
        findings=replay.findings,
    )
    assert data == mine
    assert data["text"].startswith(" once was a artificial riverartificial the garden.")


def test_json_is_one_document_without_a_control_character(console: Console) -> None:
    text = drawn(console.run("stats --json"), width=10_000)
    assert json.loads(text) == console.run("stats").data
    assert text.isascii()
    assert "\x1b" not in text


def test_last_and_branch_narrow_what_is_counted(console: Console) -> None:
    assert console.run("stats --last 4").data["tokens"] == 4
    one, two = (console.run(f"stats --branch {number}").data for number in (0, 1))
    assert one["tokens"] == two["tokens"] == 15
    assert one["text"] != two["text"]
    whole = console.run("balance").data
    parts = [console.run(f"balance --branch {number}").data for number in (0, 1)]
    for row, site in enumerate(whole):
        assert site["loads"] == [a + b for a, b in zip(parts[0][row]["loads"], parts[1][row]["loads"])]


def test_dead_experts_are_called_dead_only_after_enough_tokens(console: Console, replay: ReplaySession) -> None:
    found = console.run("dead_experts").data
    assert [(row["site"], row["experts"], row["enough"]) for row in found] == [(f"L{i}", [5], True) for i in range(3)]
    replay.seek(3)
    assert not any(row["enough"] for row in console.run("dead_experts").data)


def test_tokens_by_a_measure_begin_with_the_most_striking(console: Console, replay: ReplaySession) -> None:
    view = replay.snapshot()
    margins = site_margin(view.routing(0, view.end).logits, view.sites, view.end)
    token, site = np.unravel_index(np.nanargmin(margins), margins.shape)
    first, *others = console.run("tokens --by margin --branch all").data
    assert (first["token"], first["site"]) == (token, f"L{site}")
    assert first["value"] == pytest.approx(margins[token, site])
    assert [row["value"] for row in others] == sorted(row["value"] for row in others)
    assert len(others) == view.end - 1
    entropies = [row["value"] for row in console.run("find layer:1 --by entropy --rows 3").data]
    assert entropies == sorted(entropies, reverse=True)
    assert len(entropies) == 3
    slow = console.run("tokens --by ms --rows 1").data[0]
    assert (slow["value"], slow["site"]) == (slow["ms"], None)
    assert console.run("tokens --by size").hint == "one of margin, entropy, conf, logp, ms"
    assert "the least margin first" in drawn(console.run("tokens --by margin"))


def test_a_window_says_so_when_there_is_nothing_in_it(console: Console, replay: ReplaySession) -> None:
    replay.seek(-1)
    assert replay.snapshot().end == 0
    for line in ("stats", "balance", "experts", "tokens", "find layer:1", "entropy", "repetition", "coactivation L0"):
        result = console.run(line)
        assert result.error == "no tokens yet", line
        assert result.hint
    assert console.run("tokens 3-9").error == "no tokens yet"
    assert console.run("watch entropy<9").data[0]["values"] == "no tokens yet"


def test_expert_counts_usage_favourites_and_company(console: Console, replay: ReplaySession) -> None:
    view = replay.snapshot()
    block, columns = view.routing(0, view.end), view.tokens(0, view.end)
    here = (block.indices[:, 1] == 2).any(1)
    data = console.run("expert L1 2").data
    assert data["tokens"] == int(here.sum())
    assert data["share"] == pytest.approx(here.mean())
    weights = np.where(block.indices[:, 1] == 2, block.weights[:, 1].astype(float), 0).sum()
    assert data["gate_mass"] == pytest.approx(weights)
    best = data["favourite_tokens"][0]
    rows = [view.text(int(token)) == best["token"] for token in columns.token_id]
    assert best["of"] == sum(rows) >= 2
    assert best["share"] == pytest.approx(here[rows].mean())
    other = data["co_activated"][0]
    both = here & (block.indices[:, 1] == other["expert"]).any(1)
    assert other["share"] == pytest.approx(both.sum() / here.sum())


def test_why_tells_probabilities_and_the_runner_up(console: Console, replay: ReplaySession) -> None:
    view = replay.snapshot()
    choice = console.run("why 8").data["sites"][2]
    share = probabilities(view.routing(8, 9).logits[0, 2][None], view.sites[2])[0]
    order = np.argsort(-share)
    assert set(choice["experts"]) == set(order[:2].tolist())
    assert choice["runners_up"][0] == {"expert": int(order[2]), "probability": pytest.approx(float(share[order[2]]))}
    assert choice["probabilities"] == pytest.approx([float(share[expert]) for expert in choice["experts"]])
    assert console.run("why garden").data["token"] == 8


def test_compare_finds_the_first_difference_and_the_agreement(console: Console, replay: ReplaySession) -> None:
    view = replay.snapshot()
    result = console.run("compare")
    data = result.data
    assert (data["a"], data["b"], data["tokens"]) == ("run 0", "run 1", 15)
    assert data["first_token"]["position"] == data["common_prefix"] == 8
    assert "first difference at position 8   ·garden → ·river" in drawn(result)
    block = view.routing(0, 30)
    for row, (same, every) in enumerate(zip(data["prefix_sites"], data["sites"])):
        chosen = [set(block.indices[token, row].tolist()) for token in range(30)]
        shares = [len(one & two) / len(one | two) for one, two in zip(chosen[:15], chosen[15:])]
        assert same["jaccard"] == pytest.approx(np.mean(shares[:8]))
        assert every["jaccard"] == pytest.approx(np.mean(shares))
    assert len(console.run("compare 1 0 --rows 1").data["top_flips"]) == 1
    same = view.tokens(0, 15).token_id == view.tokens(15, 30).token_id
    flipped = [
        token for token in range(15) for site in range(len(view.sites))
        if set(block.indices[token, site].tolist()) != set(block.indices[token + 15, site].tolist())
    ]  # fmt: skip
    others = sum(not same[token] for token in flipped)
    assert 0 < others < len(flipped)
    assert f"{len(flipped)} choices differ, {others} of them where the tokens do; the others" in drawn(result)
    listed = console.run("compare --rows 10000").data["top_flips"]
    assert sorted(flip["position"] for flip in listed) == [token for token in flipped if same[token]]


def test_a_recording_is_compared_with_this_session(console: Console, recording: Path) -> None:
    assert console.run("compare --recording").error == "no recording is open"
    assert console.run(f"load {recording}").data["tokens"] == 30
    assert console.run("compare --recording").data["identical"] is True
    data = console.run("compare 0 --recording").data
    assert data["first_token"]["position"] == 8, "the recording's newest run is the second"
    assert console.run("recording.timeline.snapshot().end").data == 30
    assert console.run("compare 0 1 --recording").error == "a recording is compared with one run"


def test_find_asks_the_query_language(console: Console) -> None:
    found = console.run("find phase:prefill token:art").data
    assert {row["text"] for row in found} == {" artificial", "art"}
    assert all(row["phase"] == "prefill" for row in found)
    assert [row["branch"] for row in console.run("find token:garden --branch 0").data] == [0]
    assert console.run("find token:garden --branch 1").data == []
    wrong = console.run("find entropi>1")
    assert "entropi" in wrong.error
    assert "entropy" in wrong.hint


def test_similarity_is_the_correlation_of_the_logits(console: Console, replay: ReplaySession) -> None:
    view = replay.snapshot()
    logits = view.routing(0, view.end).logits[:, 1].astype(float)
    expected = np.corrcoef(logits.T)
    matrix = console.run("similarity L1").data["matrix"]
    for i in range(6):
        for j in range(6):
            assert matrix[i][j] is None if i == j else matrix[i][j] == pytest.approx(expected[i, j])


def test_coactivation_and_repetition_count_pairs(console: Console, replay: ReplaySession) -> None:
    view = replay.snapshot()
    block = view.routing(0, view.end)
    chosen = [set(row.tolist()) for row in block.indices[:, 0]]
    best = console.run("coactivation L0").data["pairs"][0]
    together = sum({best["expert"], best["with"]} <= each for each in chosen)
    assert best["value"] == pytest.approx(together / sum(best["expert"] in each for each in chosen))
    first = [int(row[np.argmax(weight)]) for row, weight in zip(block.indices[:, 2], block.weights[:, 2])]
    again = [first[token] == first[token - 1] for token in range(1, 30) if token != 15]
    assert console.run("repetition").data[2]["first"] == pytest.approx(np.mean(again))


def test_entropy_is_of_the_full_distribution(console: Console, replay: ReplaySession) -> None:
    view = replay.snapshot()
    share = probabilities(view.routing(0, view.end).logits[:, 0], view.sites[0])
    assert console.run("entropy").data[0]["mean"] == pytest.approx(
        float(-(share * np.log(share)).sum(1).mean()), rel=1e-5
    )


def test_token_impact_lists_every_occurrence_and_layer(console: Console, read: Read, replay: ReplaySession) -> None:
    view = replay.snapshot()
    text = read("analyze_token_impact artificial")
    block = view.routing(3, 4)
    order = np.argsort(-block.weights[0, 0].astype(float))
    experts = block.indices[0, 0][order].tolist()
    weights = ", ".join(f"{weight:.2f}" for weight in block.weights[0, 0][order].astype(float))
    first = text.splitlines()[0]
    assert first.startswith(f'Token "artificial" routes to experts: {experts} with weights [{weights}]')
    assert text.count("routes to experts") == 4
    assert "a recording cannot analyse its model" in text
    assert "cannot analyse" not in read("analyze_token_impact artificial --routing-only")


def test_a_word_of_several_tokens_is_found_as_one(console: Console) -> None:
    found = console.run("analyze_token_impact riverartificial").data
    assert [(item["text"], item["token"]) for item in found] == [(" riverartificial", 6), (" riverartificial", 21)]
    assert console.run("analyze_token_impact rivergarden").error


def test_watch_shows_values_whether_it_holds_or_not(console: Console, read: Read) -> None:
    console.run("watch entropy < 0.1 and layer:1")
    console.run("watch position:14")
    rows = console.run("watch").data
    assert [row["holds"] for row in rows] == [False, True]
    assert rows[0]["values"].startswith("entropy = ")
    assert drawn(console.watched()) == read("watch")
    console.run("watch mean_margin")
    value = console.run("watch").data[2]
    assert (value["query"], value["holds"]) == ("mean_margin", None)
    assert value["values"].startswith("mean_margin = ")
    assert console.run("watch --remove 4").error == "--remove: there is no watch 4"
    assert [row["query"] for row in console.run("watch --remove 1").data] == ["position:14", "mean_margin"]


def test_nothing_of_the_recording_reaches_the_screen_raw(console: Console, read: Read) -> None:
    for line in (
        "tokens",
        "find pad or not pad",
        "why 10",
        "analyze_token_impact 10",
        "stats",
        "expert L0 1",
        "branches",
    ):
        text = read(line)
        assert "\x1b" not in text, line
        assert "\u202e" not in text, line
    assert "[bold]markup[/bold]" in read("tokens"), "shown as it is, not as markup"
    assert "␛[31mred" in read("tokens")


def test_wide_tables_fit_a_narrow_screen(console: Console) -> None:
    for line in ("tokens", "balance", "experts", "layers", "help", "findings", "stats"):
        assert all(len(row) <= 60 for row in drawn(console.run(line), width=60).splitlines()), line


def test_ascii_draws_with_ascii_alone(replay: ReplaySession) -> None:
    console = Console(replay, ascii_only=True)
    for line in ("experts", "coactivation L0", "entropy", "balance"):
        assert drawn(console.run(line)).replace("–", "").replace("×", "").isascii(), line


def test_a_weight_stays_with_its_expert_where_a_slot_before_it_is_empty() -> None:
    indices = np.array([NO_EXPERT, 5, 1], np.uint16)
    assert choices(indices, np.array([np.nan, 0.25, 0.5], np.float32)) == ([1, 5], [0.5, 0.25])
    assert choices(indices, None) == ([5, 1], None)
    assert choices(np.full(2, NO_EXPERT, np.uint16), np.full(2, np.nan, np.float32)) == ([], [])
