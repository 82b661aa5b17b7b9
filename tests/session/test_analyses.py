"""Analyses of a live session: between steps, unseen by the timeline, and without a trace in the run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from moetui.console import Console
from moetui.routing import UsageError
from moetui.routing.events import GenerationSettings, RunState
from moetui.routing.interventions import BanExperts
from moetui.session import Analysing
from moetui.session.analyses import AttentionPaid, Attribution, ExpertAblation, RouterDecomposition, TokenImpact
from tests.console.conftest import drawn
from tests.session.live_sessions import PATIENCE, Make

PROMPT = "some words to begin with"
SAMPLED = GenerationSettings(max_new_tokens=8, temperature=2.0, seed=3)


def test_a_paused_run_is_analysed_and_goes_on_as_it_would_have(live: Make) -> None:
    session = live(PROMPT, settings=SAMPLED)
    assert isinstance(session, Analysing)
    whole = session.ids(0)
    session.generate(PROMPT, SAMPLED)
    session.settle()
    session.rewind(len(whole) + len(whole) - 4)
    session.settle()
    assert session.state is RunState.PAUSED
    branch, end = session.branches[-1].id, session.timeline.snapshot().end
    impact = session.analyze("token_impact", branch=branch, sequence=0, positions=[2]).result(PATIENCE)
    assert isinstance(impact, TokenImpact)
    assert impact.replacement
    parts = session.analyze("router_decomposition", branch=branch, sequence=0, position=3, site=2).result(PATIENCE)
    assert isinstance(parts, RouterDecomposition)
    view = session.timeline.snapshot()
    held = view.routing(3, 4).logits
    assert held is not None
    np.testing.assert_allclose(parts.logits, held[0, 2], atol=5e-3)
    assert isinstance(session.analyze("ablation", branch=branch, site=1, expert=0).result(PATIENCE), ExpertAblation), (
        "a branch that has not run yet is the prefix it shares"
    )
    assert session.analyze("expert_similarity", site=0).result(PATIENCE).shape == (8, 8)
    paid = session.analyze("attention", branch=branch, position=2).result(PATIENCE)
    assert isinstance(paid, AttentionPaid)
    np.testing.assert_allclose(paid.shares.sum(-1), 1, rtol=1e-3)
    worth = session.analyze("attribution", branch=branch, position=2).result(PATIENCE)
    assert isinstance(worth, Attribution)
    assert (worth.output >= 0).all()
    assert session.timeline.snapshot().end == end, "an analysis' passes are not captured"
    session.resume()
    session.settle()
    assert session.ids(2) == whole[-4:]


def test_between_two_sites_of_a_step(live: Make) -> None:
    whole = live(PROMPT, 6).ids(0)
    session = live(PROMPT, 6, paused=True)
    session.log.wait_state(RunState.PAUSED)
    session.step(2)
    session.log.wait_state(RunState.PAUSED, 2)
    session.step_layer()
    session.log.wait_state(RunState.PAUSED, 3)
    session.step_layer()
    session.log.wait_state(RunState.PAUSED, 4)
    assert session.analyze("token_impact", branch=0, positions=[1]).result(PATIENCE).before
    assert session.analyze("router_decomposition", branch=0, position=2, site=3).result(PATIENCE).parts
    session.resume()
    session.settle()
    assert session.ids(0) == whole


def test_interventions_act_on_analyses(live: Make) -> None:
    session = live(PROMPT, 4)
    free = session.analyze("token_impact", branch=0, positions=[1]).result(PATIENCE)
    expert = int(free.indices[0, 1, 0])
    session.set_interventions([BanExperts((expert,))])
    banned = session.analyze("token_impact", branch=0, positions=[1]).result(PATIENCE)
    assert expert not in banned.indices
    found = session.analyze("ablation", branch=0, site=1, expert=expert).result(PATIENCE)
    assert found.positions.size == 0
    assert np.isnan(found.mean)


def test_what_is_wrong_is_said(live: Make) -> None:
    session = live(PROMPT, 2)
    with pytest.raises(UsageError, match="there is no analysis impact"):
        session.analyze("impact")
    with pytest.raises(UsageError, match="ablation takes no layer"):
        session.analyze("ablation", layer=1)
    with pytest.raises(UsageError, match="there is no site 9"):
        session.analyze("expert_similarity", site=9).result(PATIENCE)
    closed = live(opened=False)
    assert "token_impact" in closed.analyses, "known before torch is"
    closed.close()
    assert closed.analyze("expert_similarity", site=0).cancelled()


def test_console_commands_on_the_demo_model(live: Make) -> None:
    session = live("The garden by the river", 6, model="demo")
    console = Console(session)
    view = session.timeline.snapshot()
    token = next(row for row in range(view.end) if "ar" in view.text(int(view.tokens(row, row + 1).token_id[0])))
    found = console.run(f"analyze_token_impact {token} --replacement ' the'")
    assert not found.error
    (item,) = found.data
    assert item["impact"]["replacement"].strip() == "the"
    assert item["impact"]["divergence"] >= 0
    assert len(item["impact"]["sites"]) == len(view.sites)
    assert 0 < sum(share for _, share in item["impact"]["before"]) <= 1.0001
    result = console.run(f"why {token} --site L3")
    text, (item,) = drawn(result), result.data["sites"]
    chosen, other = item["experts"], item["runners_up"][0]["expert"]
    heads = next(line for line in text.splitlines() if " over E" in line)
    assert heads.split("part")[1].split() == " ".join(f"E{one} over E{other}" for one in chosen[::-1]).split()
    assert "cannot be taken apart" not in text
    for how in ("weights", "outputs"):
        alike = console.run(f"similarity L2 --by {how}")
        assert not alike.error
        assert np.isfinite([pair["value"] for pair in alike.data["pairs"]]).all()
    assert session.timeline.snapshot().end == view.end


def test_why_still_answers_where_logits_cannot_be_taken_apart(live: Make) -> None:
    session = live(PROMPT, 2, model="random:dbrx")
    result = Console(session).run("why 3 --site L1")
    assert not result.error
    assert result.data["sites"][0]["experts"]
    assert "cannot be taken apart: layer 0 does not just add" in drawn(result)


def test_what_an_expert_is_worth(live: Make) -> None:
    session = live("The garden by the river", 12, model="demo")
    console = Console(session)
    view = session.timeline.snapshot()
    columns, block = view.tokens(0, view.end), view.routing(0, view.end)
    busiest = int(np.bincount(block.indices[:-1, 2].ravel()).argmax())
    used = np.flatnonzero((block.indices[:-1, 2] == busiest).any(-1))
    result = console.run(f"ablation L2 {busiest} --rows 99")
    assert not result.error
    assert result.data["measured"] == len(used)
    assert sorted(item["token"] for item in result.data["tokens"]) == used.tolist()
    assert result.data["mean"] == pytest.approx(np.mean([item["change"] for item in result.data["tokens"]]), abs=1e-5)
    for item in result.data["tokens"]:
        assert item["text"] == view.text(int(columns.token_id[item["token"]]))
        assert item["followed_by"] == view.text(int(columns.token_id[item["token"] + 1]))
    assert f"E{busiest} at L2: {len(used)} " in drawn(result)
    assert console.run(f'moe.ablation("L2", {busiest}, rows=99)').data == result.data
    as_json = console.run(f"ablation L2 {busiest} --json")
    assert json.loads(drawn(as_json))["expert"] == busiest
    unused = [expert for expert in range(8) if not (block.indices[:, 2] == expert).any()]
    for expert in unused[:1]:
        nothing = console.run(f"ablation L2 {expert}")
        assert nothing.data["mean"] is None
        assert "nothing to measure" in drawn(nothing)
    last = int(block.indices[-1, 2, 0])
    counted = int((block.indices[:, 2] == last).any(-1).sum())
    told = console.run(f"ablation L2 {last}")
    assert (told.data["uses"], told.data["measured"]) == (counted, counted - 1)
    text = " ".join(drawn(told).split())
    assert f"{counted - 1} of {counted} uses in run 0 (the last token has none after it)" in text
    assert console.run("ablation L2 99").error == "expert: 99 is no expert of this model"
    assert session.timeline.snapshot().end == view.end


def test_where_the_time_of_a_step_goes(live: Make) -> None:
    session = live("The garden by the river", 12, model="demo")
    console = Console(session)
    end = session.timeline.snapshot().end
    result = console.run("profile --steps 2 --by-layer")
    assert not result.error
    data = result.data
    assert data["ms"] == pytest.approx(sum(data["parts"].values()))
    assert list(data["parts"].values()) == sorted(data["parts"].values(), reverse=True)
    assert {"attention", "router", "experts", "rest", "head"} == set(data["parts"])
    assert [layer["layer"] for layer in data["layers"]] == list(range(6))
    assert data["parts"]["experts"] == pytest.approx(sum(layer["experts"] for layer in data["layers"]))
    assert (data["steps"], data["context"], data["branch"], data["clock"]) == (2, end - 5, "run 0", "host")
    text = drawn(result)
    assert f"behind {end - 5} tokens: the middle of 2 steps" in text
    assert "L5" in text
    assert "without clocks around the parts" in text
    assert "L5" not in drawn(console.run("profile"))
    assert console.run("profile --steps 0").error
    assert session.timeline.snapshot().end == end
