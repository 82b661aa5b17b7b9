"""The console on a real, small, random model: one session for all."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.panel import Panel
from rich.text import Text

from moetui.console import Console, ScriptError
from moetui.console.outcome import outcome
from moetui.engine.models import LoadRequest
from moetui.routing.events import GenerationSettings, RunState
from moetui.session.live import LiveSession
from moetui.session.options import LiveOptions
from moetui.tui.widgets.token_painter import row_facts
from tests.console.conftest import drawn
from tests.session.live_sessions import held_forward

PROMPT = "Once there was a river"


@pytest.fixture(scope="module")
def session() -> Iterator[LiveSession]:
    live = LiveSession(LiveOptions(LoadRequest("random:mixtral"), settings=GenerationSettings(max_new_tokens=6)))
    live.open()
    assert live.wait(120)
    assert live.state is RunState.READY, live.reason
    yield live
    live.close(5)


@pytest.fixture
def live(session: LiveSession) -> Iterator[Console]:
    """A fresh console; the model routes by itself before and behind it."""
    console = Console(session)
    yield console
    session.stop()
    session.wait(30)
    session.set_interventions(())
    session.call(lambda model, tokenizer: None).result(30)


def script(console: Console, *lines: str) -> list[object]:
    """The data of each line of a script that must succeed."""
    out: list[object] = []
    console.run_script(lines, lambda line, result: out.append(result.data))
    return out


def test_a_script_waits_for_its_runs(live: Console) -> None:
    (done,) = script(live, f"generate {PROMPT} -n 4")
    assert done["state"] == "finished"
    assert done["text"].startswith(PROMPT)
    found = live.run("tokens --branch " + str(done["branch"])).data
    assert len(found) == done["tokens"]
    assert sum(row["phase"] == "decode" for row in found) == 3, "the last token has not gone through the model"


def plain(session: LiveSession, count: int) -> tuple[str, int]:
    """What the library itself writes behind the prompt: the text, and the last token."""

    def generate(model: Any, tokenizer: Any) -> tuple[str, int]:
        ids = tokenizer(PROMPT, return_tensors="pt").input_ids
        out = model.generate(ids, max_new_tokens=count, do_sample=False)[0]
        return tokenizer.decode(out), int(out[-1])

    return session.call(generate).result(30)


def test_a_runs_text_ends_with_the_token_that_no_step_has_passed(live: Console, session: LiveSession) -> None:
    text, _ = plain(session, 4)
    (done,) = script(live, f"generate {PROMPT} -n 4")
    assert done["text"] == text
    number = live.run(f"find branch:{done['branch']} phase:decode").data[-1]["token"]
    (forked,) = script(live, f"fork {number}")
    assert forked["text"] == text, "the fork's own last token, and not its parent's as well"
    session.switch_branch(forked["branch"])
    assert session.last_text(forked["branch"]), "it is over: nothing is to pass that token"


def test_a_token_that_only_says_that_the_text_ends_is_not_in_it(live: Console, session: LiveSession) -> None:
    text, last = plain(session, 4)

    def end_with(token: Any) -> None:
        session.call(lambda model, _: setattr(model.generation_config, "eos_token_id", token)).result(30)

    before = session.call(lambda model, _: model.generation_config.eos_token_id).result(30)
    end_with(last)
    try:
        (done,) = script(live, f"generate {PROMPT} -n 40")
    finally:
        end_with(before)
    assert done["reason"] == "end of text"
    assert text.startswith(done["text"])
    assert done["text"] != text


def test_a_run_that_was_stopped_and_goes_on_has_each_token_once(live: Console, session: LiveSession) -> None:
    text, _ = plain(session, 12)
    with held_forward(session) as hangs:
        session.generate(PROMPT, GenerationSettings(max_new_tokens=12))
        assert hangs.wait(30)
        session.pause()
    assert session.wait(30)
    branch = session.branches[-1].id
    session.stop()
    assert session.wait(30)
    session.switch_branch(branch)
    assert session.wait(30)
    assert not session.last_text(branch)
    (done,) = script(live, "continue")
    assert outcome(session, session.tree, session.branches[-1]).text == text
    assert done["state"] == "finished"


@pytest.mark.parametrize("line", ["continue", "step", "step_layer", "pause", "run_to 3", "finish", "stop"])
def test_commands_to_a_run_say_where_none_goes_on(live: Console, session: LiveSession, line: str) -> None:
    script(live, f"generate {PROMPT} -n 2")
    result = live.run(line)
    assert "nothing goes on: 'generate' begins a run" in drawn(result)
    assert result.data["state"] == session.state.value == "finished"


def test_hints_are_about_what_is_there(live: Console, session: LiveSession, tmp_path: Path) -> None:
    script(live, f"generate {PROMPT} -n 2", f"export {tmp_path}/x.csv", "config system 'be brief'")
    assert live.run("tokens 9000000-").hint == f"tokens 0 to {session.timeline.snapshot().end - 1} are held"
    assert live.run(f"export {tmp_path}/x.csv").hint == "--force replaces it"
    assert live.run("config system none").data["system"] == ""


def test_what_is_no_file_is_not_replaced_by_one(live: Console, tmp_path: Path) -> None:
    script(live, f"generate {PROMPT} -n 2")
    os.mkfifo(tmp_path / "pipe.csv")
    for command in ("save", "export"):
        assert "is no" in live.run(f"{command} {tmp_path}/pipe.csv --force").error
    assert (tmp_path / "pipe.csv").is_fifo()


def test_the_format_of_an_export_is_what_its_name_ends_in(live: Console, tmp_path: Path) -> None:
    script(live, f"generate {PROMPT} -n 3", f"export {tmp_path}/x.csv", f"export {tmp_path}/x.JSON")
    assert (tmp_path / "x.csv").read_text().startswith("run,branch,")
    assert (tmp_path / "x.JSON").read_text().startswith("{")
    for name in ("x.svg", "x"):
        assert live.run(f"export {tmp_path}/{name}").error == f"path: {tmp_path}/{name} does not tell the format"


@pytest.mark.parametrize("path", ["\ud800", "~nobody-of-this-name/x"])
@pytest.mark.parametrize("command", ["save", "load", "export --format csv", "replay_routing"])
def test_a_path_that_can_be_none_is_refused(live: Console, command: str, path: str) -> None:
    assert re.fullmatch(r"(path|source): .* is no path", live.run(f"{command} {path}").error)


def test_forcing_changes_the_routing_there_and_only_there(live: Console) -> None:
    first, _, second, agreement = script(
        live,
        f"generate {PROMPT}",
        "force_expert_selection 0 1 --layers 1 --positions 3-",
        f"generate {PROMPT}",
        "compare",
    )
    own = live.run(f"tokens --branch {second['branch']}").data
    assert any(row["forced"] for row in own)
    assert all(row["position"] >= 3 for row in own if row["forced"]), "a token that goes there anyway is not forced"
    assert {row["first_choices"][1] for row in own if row["position"] >= 3} <= {0, 1}
    same = [site["jaccard"] for site in agreement["prefix_sites"]]
    assert same[0] == 1, "nothing was forced before layer 1"
    assert same[1] < 1
    assert first["text"][: len(PROMPT)] == second["text"][: len(PROMPT)]
    forced = next(row["token"] for row in own if row["forced"])
    for line, told in (
        (f"why {forced}", "forced: H, margin and probabilities are the router's own, not of what ran"),
        (f"why {forced} --site L1", "forced: logits and probabilities are the router's own, not of what ran"),
    ):
        assert told in drawn(live.run(line))
    for line in (f"why {forced} --site L0", f"why {own[0]['token']}"):
        assert "the router's own" not in drawn(live.run(line)), line


def test_why_calls_that_a_near_tie_which_the_token_table_marks_as_one(live: Console, session: LiveSession) -> None:
    script(live, "force_expert_selection 0 1 --layers 1 --positions 3-", f"generate {PROMPT}")
    view = session.timeline.snapshot()
    rows = row_facts(view, 0, view.end)
    told = [drawn(live.run(f"why {token}")).count("near tie") for token in rows]
    assert told == [row.ties for row in rows.values()]
    assert any(told)


def test_undo_redo_and_reset_restore_what_was_in_force(live: Console, session: LiveSession) -> None:
    states = []
    for line in (
        "ban_experts 1",
        "moe.boost_experts([2, 3], bias=-0.5, layers=[0])",
        "set_top_k 1",
        "undo",
        "undo",
        "redo",
    ):
        assert not live.run(line).error
        states.append(live.run("interventions").data)
    ban = {"name": "ban", "experts": [1], "scope": {}}
    boost = {"name": "boost", "experts": [2, 3], "bias": -0.5, "scope": {"layers": [0]}}
    top = {"name": "top_k", "k": 1, "scope": {}}
    assert states == [[ban], [ban, boost], [ban, boost, top], [ban, boost], [ban], [ban, boost]]
    assert live.run("reset 1").data == [boost]
    assert live.run("reset").data == []
    assert live.run("undo").data == [boost]
    session.call(lambda model, tokenizer: None).result(30)
    assert [item.name for item in session.interventions] == ["boost"]
    assert live.run("redo").data == []
    assert live.run("redo").error == "nothing to redo"
    live.run("ban_experts 0 --layers 1")
    live.run("set_top_k 1")
    assert "undone; in force now: banned expert 0 (layer 1)\n" in drawn(live.run("undo")), "not what was undone"
    assert "undone: no interventions" in drawn(live.run("undo"))
    live.run("ban_experts 2")
    assert live.run("redo").error == "nothing to redo", "a new change forgets what was undone"


def test_changes_add_up_while_the_model_is_busy(live: Console, session: LiveSession) -> None:
    busy, let_go = threading.Event(), threading.Event()
    held = session.call(lambda model, tokenizer: (busy.set(), let_go.wait(30)))
    assert busy.wait(30)
    live.run("ban_experts 1")
    live.run("ban_experts 2")
    live.run("set_top_k 1")
    live.run("undo")
    let_go.set()
    held.result(30)
    session.call(lambda model, tokenizer: None).result(30)
    assert [item["experts"] for item in live.run("interventions").data] == [[1], [2]]


def test_setting_again_replaces_and_banning_again_adds(live: Console) -> None:
    for line in ("set_top_k 1", "set_top_k 2", "set_top_k 1 --layers 0", "ban_experts 1", "ban_experts 2"):
        assert not live.run(line).error
    names = [(item["name"], item.get("k"), item["scope"]) for item in live.run("interventions").data]
    assert names == [("top_k", 2, {}), ("top_k", 1, {"layers": [0]}), ("ban", None, {}), ("ban", None, {})]


@pytest.mark.parametrize(
    ("line", "name", "values"),
    [
        ("ablate_experts 3 --sites L2", "scale", {"experts": [3], "factor": 0.0, "scope": {"sites": ["L2"]}}),
        ("scale_experts 3 --factor 0.5", "scale", {"experts": [3], "factor": 0.5}),
        ("swap_experts 0 5 --layers 1", "swap", {"a": 0, "b": 5, "scope": {"layers": [1]}}),
        ("set_expert_capacity 1.25 --phase prefill", "capacity", {"factor": 1.25, "scope": {"phase": "prefill"}}),
        ("set_router_temperature 2", "temperature", {"temperature": 2.0}),
        ("set_router_noise 0.1 --seed 1", "noise", {"sigma": 0.1, "seed": 1}),
        ("uniform_routing --positions 2:9", "uniform", {"scope": {"positions": [2, 9]}}),
        ("random_routing --seed 3 --positions 4-", "random", {"seed": 3, "scope": {"positions": [4, None]}}),
        ("boost_experts 1 5 --bias 0.5", "boost", {"experts": [1, 5], "bias": 0.5}),
        ("moe.force_expert_selection(range(3))", "force", {"experts": [0, 1, 2]}),
    ],
)
def test_each_intervention_is_the_value_it_says(live: Console, line: str, name: str, values: dict[str, object]) -> None:
    (found,) = live.run(line).data
    assert found == {"name": name, "scope": {}, **values}


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("ban_experts 9", "experts: 9 is no expert of this model", "experts 0 to 7"),
        ("ban_experts 0-7", "", ""),
        ("ban_experts 1 --layers 0 --sites L1", "no site lies in both", "one of them"),
        ("set_top_k 99", "k: L0 has 8 experts, not 99", "k from 1 to 8"),
        ("set_expert_capacity 0", "factor: 0 will not do", "a number above 0"),
        ("set_router_temperature inf", "temperature: inf will not do", ""),
        ("swap_experts 1 1", "the same expert", ""),
        ("reset 4", "numbers: there is no intervention 4", "there are no interventions"),
        ("step -1", "count: a model does not run backwards", ""),
        ("generate", "prompt is missing", "usage: generate PROMPT"),
        ("generate x -n 0", "--max-new-tokens: 0 is outside its range", ""),
        ("generate x --greedy --temperature 1", "contradict each other", ""),
        ("replay_routing nowhere.msgpack", "nowhere.msgpack", ""),
    ],
)
def test_what_the_model_cannot_do_is_refused_and_nothing_changes(
    live: Console, session: LiveSession, line: str, error: str, hint: str
) -> None:
    result = live.run(line)
    assert result.error
    assert error in result.error
    assert hint in result.hint
    assert live.run("interventions").data == []
    assert live.run("undo").error == "nothing to undo"


def test_settings_change_the_runs_to_come(live: Console) -> None:
    data = script(
        live, "config max_new_tokens 2", f"generate {PROMPT}", "config max-new-tokens=3", f"generate {PROMPT}"
    )
    assert data[0]["max_new_tokens"] == 2
    assert data[3]["tokens"] == data[1]["tokens"] + 1
    assert live.run("config max_new_tokens").data == {"max_new_tokens": 3}
    for line in ("config temperature 0", "config chat maybe", "config nothing 1", "config max_new_tokens none"):
        assert live.run(line).error, line
    assert live.run("config temperature 0.5").data["temperature"] == 0.5
    assert live.run("config temperature none").data["temperature"] is None
    live.run("config max_new_tokens 6")


def test_a_sampled_run_repeats_with_its_seed(live: Console) -> None:
    line = f"generate {PROMPT} --temperature 1.5 --seed 5"
    one, two, greedy = script(live, line, line, f"generate {PROMPT} --greedy")
    assert one["text"] == two["text"] != greedy["text"]


def test_a_run_is_paused_stepped_and_ended(live: Console, session: LiveSession) -> None:
    def stepped() -> Iterator[str]:
        yield "stop"
        session.generate(PROMPT, GenerationSettings(max_new_tokens=480))
        yield from ("pause", "step", "step 2", "step_layer", "stop")

    data: list[dict[str, object]] = []

    def see(line: str, result: object) -> None:
        session.wait(30)
        data.append({"state": session.state.value, "reason": session.reason})

    live.run_script(stepped(), see)
    assert [item["state"] for item in data[1:]] == ["paused", "paused", "paused", "paused", "finished"]
    assert data[4]["reason"].startswith("before L")


def test_a_breakpoint_stops_where_it_says(live: Console, session: LiveSession) -> None:
    first, point, second, _, third = script(
        live,
        f"generate {PROMPT}",
        "break_when index >= 0 and position >= 23 and layer == 2",
        f"generate {PROMPT}",
        "breakpoints --remove 1",
        "continue",
    )
    assert point["id"] == 1
    assert second["state"] == "paused"
    assert "layer" in second["reason"]
    assert third["state"] == "finished"
    texts = [live.run(f"stats --branch {number}").data["text"] for number in (first["branch"], second["branch"])]
    assert texts[0] == texts[1], "stopping changes nothing"


def test_a_run_is_taken_back_and_forked(live: Console, session: LiveSession) -> None:
    (first,) = script(live, f"generate {PROMPT}")
    number = live.run(f"find branch:{first['branch']} phase:decode").data[0]["token"]
    back, again = script(live, f"rewind {number}", "continue")
    assert back["token"] == number
    assert again["state"] == "finished"
    forked = script(live, "ban_experts 0 1 2 --layers 1", f"fork {number} --name banned", "compare")
    assert session.branches[-1].name == "banned"
    assert session.branches[-1].parent is not None
    assert forked[2]["b"] == "banned"
    assert forked[2]["tokens"] > 0
    own = live.run("tokens --branch banned").data
    assert not {row["first_choices"][1] for row in own if row["forced"]} & {0, 1, 2}


def test_what_was_run_is_saved_and_opened_beside(live: Console, tmp_path: Path) -> None:
    script(live, f"generate {PROMPT}")
    held = live.run("stats").data["tokens"]
    saved, loaded, same = script(
        live, f"save {tmp_path / 'run.msgpack'}", f"load {tmp_path / 'run.msgpack'}", "compare --recording"
    )
    assert saved["bytes"] == (tmp_path / "run.msgpack").stat().st_size
    assert loaded["tokens"] == held
    assert same["identical"] is True
    assert "exists already" in live.run(f"save {tmp_path / 'run.msgpack'}").error
    assert not live.run(f"save {tmp_path / 'run.msgpack'} --force").error
    assert live.run(f"export {tmp_path / 'run.csv'} --format csv").data["bytes"] > 0


def test_python_reaches_the_model_in_its_own_thread(live: Console) -> None:
    assert live.run("import threading; threading.current_thread().name").data == "moetui-generation"
    assert "MixtralForCausalLM" in drawn(live.run("model"))
    assert drawn(live.run("model.lm_head.weight")).startswith("float32 512×64 cpu grad  ")
    assert live.run("sum(p.numel() for p in model.parameters()) > 1000").data is True
    assert live.run("tokenizer('river')['attention_mask']").data
    before = live.run("trace.end").data
    live.run("import torch\nwith torch.no_grad():\n    out = model(torch.tensor([[1, 2, 3]])).logits\n")
    assert drawn(live.run("out")).startswith("float32 1×3×512 cpu")
    assert live.run("trace.end").data == before, "an expression's passes are not captured"


def test_commands_work_within_python(live: Console) -> None:
    live.run("for expert in (1, 2):\n    moe.ban_experts([expert])\n")
    assert [item["experts"] for item in live.run("interventions").data] == [[1], [2]]
    result = live.run("moe.ban_experts([99])")
    assert result.error == "experts: 99 is no expert of this model"
    assert result.hint == "experts 0 to 7"


def test_a_run_cannot_be_awaited_by_the_thread_that_would_do_it(live: Console, session: LiveSession) -> None:
    with pytest.raises(ScriptError) as error:
        script(live, "x = 1", "[moe.generate('x') for _ in range(1)]")
    assert error.value.message.startswith("line 2: a run cannot be awaited from within the model's own thread")
    assert session.wait(30)


def test_commands_that_run_the_model_are_used_within_python(live: Console, session: LiveSession) -> None:
    script(live, "break_when phase:decode --once", f"generate {PROMPT} -n 4")
    assert session.state is RunState.PAUSED
    share = live.run('moe.profile()["parts"]["experts"]')
    assert not share.error
    assert share.data > 0
    alone = live.run('moe.ablation("L1", 3)').data
    block = "found = moe.ablation('L1', 3)\nmeans = []\nfor expert in range(3, 5):\n    means.append("
    assert not live.run(block + "moe.ablation('L1', expert)['mean'])").error
    assert live.run("found['mean']").data == alone["mean"]
    assert live.run("means").data == live.run("[moe.ablation('L1', e)['mean'] for e in range(3, 5)]").data
    assert live.run("session.call(lambda m, t: session.call(lambda m, t: 3).result()).result()").data == 3
    assert session.state is RunState.PAUSED
    session.resume()
    assert session.wait(30)
    assert session.state is RunState.FINISHED


def test_an_intervention_is_in_force_for_what_python_runs_behind_it(live: Console) -> None:
    script(live, f"generate {PROMPT} -n 4")
    apart = (live.run("ban_experts 0,1,2 --layers 1"), live.run("ablation L1 0"))[1].data["uses"]
    assert apart == 0
    script(live, "undo")
    assert live.run('moe.ablation("L1", 0)').data["uses"] > 0
    together = live.run('moe.ban_experts([0, 1, 2], layers=[1])\nmoe.ablation("L1", 0)["uses"]')
    assert (together.error, together.data) == ("", 0)


def test_an_interruption_waits_for_the_command_that_python_calls(live: Console, session: LiveSession) -> None:
    script(live, f"generate {PROMPT} -n 4", "finished = []")
    running = threading.Event()
    live._python.names.update(running=running)
    done: list[str] = []
    endless = "while True:\n    running.set()\n    moe.ablation('L1', 3)\n    finished.append(1)"
    thread = threading.Thread(target=lambda: done.append(live.run(endless).error), daemon=True)
    thread.start()
    assert running.wait(30)
    live.interrupt()
    thread.join(30)
    assert done == ["interrupted"]
    assert not live.run("moe.ablation('L1', 3)['mean']").error
    script(live, f"generate {PROMPT} -n 4")


def test_a_line_in_the_models_thread_can_be_given_up(live: Console, session: LiveSession) -> None:
    started = threading.Event()
    live.run("x = 0")
    session.call(lambda model, tokenizer: live._python.names.update(started=started)).result(30)
    done: list[str] = []
    endless = "started.set()\nwhile True: x += 1"
    thread = threading.Thread(target=lambda: done.append(live.run(endless).error), daemon=True)
    thread.start()
    assert started.wait(30)
    live.interrupt()
    thread.join(30)
    assert done == ["interrupted"]
    assert live.run("x >= 0").data is True


def test_a_line_that_waits_for_the_model_can_be_given_up(live: Console, session: LiveSession) -> None:
    busy, let_go = threading.Event(), threading.Event()
    held = session.call(lambda model, tokenizer: (busy.set(), let_go.wait(30)))
    assert busy.wait(30)
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(live.run("y = 1").error), daemon=True)
    thread.start()
    while thread.is_alive():
        live.interrupt()
        thread.join(0.02)
    assert done == ["interrupted"]
    let_go.set()
    held.result(30)
    assert "NameError" in live.run("y").error, "what was given up is not run later"


def test_a_script_stops_at_its_first_error_with_the_line(live: Console) -> None:
    seen: list[str] = []
    lines = [
        "# a comment",
        "",
        "x = [",
        "    1,",
        "]",
        "",
        "for i in range(2):",
        "    x.append(i)",
        "else:",
        "    pass",
    ]
    lines += ["x", "nonsense here", "y = 1"]
    with pytest.raises(ScriptError) as error:
        live.run_script(lines, lambda line, result: seen.append(line))
    assert error.value.message.startswith("line 12: no such command: nonsense")
    assert seen == ["x = [\n    1,\n]", "for i in range(2):\n    x.append(i)\nelse:\n    pass", "x", "nonsense here"]
    assert live.run("x").data == [1, 0, 1]
    assert live.history.lines[-1] == "x", "a script is no history"
    assert len(live.history.lines) == 1


def test_a_word_of_a_run_can_be_completed_and_explained(live: Console) -> None:
    (done,) = script(live, f"generate {PROMPT} -n 2")
    word = live.run(f"tokens --branch {done['branch']}").data[-1]["text"].strip()
    assert word in live.complete(f"why {word[:2]}", 6).words
    choice = live.run("why river").data["sites"][0]
    assert len(choice["experts"]) == 2
    assert np.sum(choice["weights"]) == pytest.approx(1, abs=2e-3)
    assert choice["margin"] >= 0


def test_a_run_is_sent_to_a_token_to_its_end_and_through_all_of_it_again(live: Console, session: LiveSession) -> None:
    point = live.run("break_when phase:decode").data["id"]
    live.run(f"generate {PROMPT} -n 5")
    assert session.wait(30)
    session.flush()
    first = int(live.run("tokens --rows 1").data[0]["position"])
    live.run(f"breakpoints --disable {point}")
    assert live.run(f"run_to {first + 2}").data["state"] == "paused"
    session.flush()
    assert live.run("tokens --rows 1").data[0]["position"] == first + 1
    live.run(f"breakpoints --enable {point}")
    script(live, "finish")
    assert session.state is RunState.FINISHED
    branches = len(live.run("branches").data)
    script(live, f"breakpoints --remove {point}", "restart")
    again = live.run("branches").data
    assert len(again) == branches + 1
    assert (again[-1]["prompt"], again[-1]["tokens"]) == (again[-2]["prompt"], again[-2]["tokens"])
    assert live.run("run_to -1").error == "position: -1 is outside its range"


def test_why_tells_of_the_step_that_the_run_stands_within(live: Console, session: LiveSession) -> None:
    script(live, f"generate {PROMPT} -n 4")
    newest = session.timeline.snapshot().end
    *_, within = script(live, f"rewind {newest - 2}", "step_layer", "step_layer", "why")
    assert (within["token"], within["before"]) == (newest, "L1")
    assert [site["site"] for site in within["sites"]] == ["L0", "L1"]
    told = drawn(live.run("why"))
    assert f"token {newest}" in told
    assert "under way, before L1" in told
    assert live.run("why --site L1").data["sites"] == within["sites"][1:]
    assert "has not come there yet" in live.run("why --site L2").error
    assert live.run(f"why {newest - 1}").data["before"] is None
    script(live, "step")
    assert live.run("why").data["before"] is None
    assert live.run(f"why {newest}").data["sites"][:2] == within["sites"]


class TestWhatUsersAdd:
    @pytest.fixture
    def told(self, session: LiveSession, live: Console) -> Iterator[Console]:
        plugins = session.plugins
        before = {name: table.copy() for name, table in vars(plugins).items()}
        plugins.metric("held")(lambda view: view.end - view.first)
        plugins.metric("broken")(lambda view: 1 / 0)
        plugins.register_viz("line")(lambda view: "a\x1b[31mb")
        plugins.register_viz("panel")(lambda view: Panel(Text("c\x1b[31md")))
        plugins.inspector(lambda module, path: {"numbers": next(module.parameters()).numel(), "path": path})
        live.run(f"generate {PROMPT}")
        session.wait(30)
        session.flush()
        yield live
        vars(plugins).update(before)

    def test_measures(self, told: Console, session: LiveSession) -> None:
        answer = told.run("metrics")
        view = session.timeline.snapshot()
        assert answer.data == {"held": view.end - view.first, "broken": None}
        assert "does not work: ZeroDivisionError" in drawn(answer)

    def test_pictures_cannot_reach_the_terminal_raw(self, told: Console) -> None:
        for name in ("line", "panel"):
            answer = told.run(f"viz {name}")
            assert not answer.error
            assert "\x1b" not in drawn(answer)
        assert "╭" in drawn(answer)
        assert told.run("viz dots").error == "there is no picture called dots"

    def test_modules(self, told: Console, session: LiveSession) -> None:
        answer = told.run("inspect model.layers.1.mlp.gate")
        assert answer.data == {"numbers": answer.data["numbers"], "path": "model.layers.1.mlp.gate"}
        assert answer.data["numbers"] > 0
        assert re.search(r"path +model\.layers\.1\.mlp\.gate$", drawn(answer).rstrip())
        session.plugins.inspector(lambda module, path: {}[path])
        answer = told.run("inspect model.layers.1.mlp.gate")
        assert list(answer.data) == ["numbers", "path", "<lambda>"]
        assert "does not work: KeyError: 'model.layers.1.mlp.gate'" in drawn(answer)
        assert told.run("inspect model.layers.99").error == "there is no module model.layers.99"

    def test_without_any(self, live: Console, session: LiveSession) -> None:
        if session.plugins.metrics or session.plugins.inspectors:
            pytest.skip("a plugin is installed")
        live.run(f"generate {PROMPT}")
        session.wait(30)
        assert live.run("metrics").error == "no measure was added"
        assert live.run("inspect model").error == "no inspector was added"
