"""``stats --json`` of a file: the contract's keys, and what is wrong with the file among the findings."""

import json
from dataclasses import replace

import pytest

from moetui.routing import Timeline
from moetui.routing.events import Branch, BranchAdded, Finding, FindingRaised, InterventionsChanged
from moetui.routing.interventions import BanExperts
from moetui.routing.stats import compute_stats, dead_text
from moetui.trace import TraceWriter, open_trace, trace_stats

KEYS = (
    "model architecture prompt text tokens steps sites num_experts top_k ids_only load_imbalance fairness_index "
    "coefficient_of_variation max_violation average_entropy avg_experts_per_token dead_experts tokens_per_second "
    "per_site findings interventions complete"
)


@pytest.fixture
def path(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info, prompt="first") as writer:
        writer.write_event(BranchAdded(Branch(0, 0, "main", prompt="Once")))
        writer.write_step(replace(steps[0], vocabulary={i: f" w{i}" for i in range(100)}))
        writer.write_event(InterventionsChanged((BanExperts((1,)),), 7))
        writer.write_event(FindingRaised(Finding("lost_steps", "warning", "two steps were lost", "wait")))
        writer.write_event(FindingRaised(Finding("dead_expert", "warning", "outdated: said before all was seen", "")))
        for step in steps[1:]:
            writer.write_step(step)
    return tmp_path / "x.msgpack"


def test_numbers_are_those_of_the_timeline(path, info, steps):
    timeline = Timeline(info)
    for step in steps:
        timeline.append(step)
    stats, live = trace_stats(path), compute_stats(timeline.snapshot(), info)
    assert list(stats) == KEYS.split()
    json.dumps(stats, allow_nan=False)
    for key in KEYS.split():
        if key not in ("prompt", "text", "findings", "interventions"):
            assert stats[key] == live[key], key
    assert stats["prompt"] == "Once"
    ids = timeline.snapshot().tokens(0, 12).token_id.tolist()
    assert stats["text"] == "".join(f" w{token_id}" for token_id in ids)
    assert [each["name"] for each in stats["interventions"]] == ["ban"]
    assert "lost_steps" in [each["kind"] for each in stats["findings"]]
    assert not any("outdated" in each["message"] for each in stats["findings"])


def test_damage_met_on_the_way_is_among_the_findings(path):
    data = bytearray(path.read_bytes())
    data[data.find(b"\xa6logits") + 40] ^= 1
    path.write_bytes(data)
    with open_trace(path) as trace:
        assert trace.complete  # not looked at yet
        stats = trace.stats()
    assert not stats["complete"]
    assert "trace_damaged" in [each["kind"] for each in stats["findings"]]


def test_a_site_that_damage_silenced_is_not_said_to_have_failed(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in steps:
            writer.write_step(step)
    data = bytearray((tmp_path / "x.msgpack").read_bytes())
    silent = [each for each in trace_stats(tmp_path / "x.msgpack")["findings"] if each["kind"] == "site_silent"]
    assert silent == []
    data[data.find(b"\xa6logits") + 40] ^= 1
    (tmp_path / "x.msgpack").write_bytes(data)
    stats = trace_stats(tmp_path / "x.msgpack")
    (damage,) = [each for each in stats["findings"] if each["kind"] == "trace_damaged"]
    silent = [each for each in stats["findings"] if each["kind"] == "site_silent"]
    assert len(silent) == len(info.sites)
    assert all(each["suggestion"].endswith(damage["suggestion"]) for each in silent)
    assert dead_text(stats) == "–"


def test_a_cut_off_recording_is_not_complete(path):
    path.write_bytes(path.read_bytes()[:-9])
    stats = trace_stats(path)
    assert not stats["complete"]
    assert stats["tokens"] == 12
    assert "trace_incomplete" in [each["kind"] for each in stats["findings"]]


def test_a_recording_without_weights_and_logits_is_ids_only(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info, has_logits=False, has_weights=False) as writer:
        for step in steps:
            writer.write_step(replace(step, logits=None, weights=None))
    stats = trace_stats(tmp_path / "x.msgpack")
    assert stats["ids_only"]
    assert stats["average_entropy"] is None
    assert stats["per_site"][0]["gate_mass"] is None
