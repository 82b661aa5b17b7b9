"""Commands over recordings: what they print, and how they fail."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moetui.routing.events import Branch, BranchAdded, BranchChanged, InterventionsChanged
from moetui.routing.interventions import BanExperts, Scope
from moetui.routing.model import ModelInfo, Site
from moetui.routing.phase import Phase
from moetui.trace import TraceWriter, open_trace, step_from_arrays, trace_stats
from tests.cli.conftest import Called, Write

Call = Callable[..., Called]

KEYS = {
    "model", "architecture", "prompt", "text", "tokens", "steps", "sites", "num_experts", "top_k", "ids_only",
    "load_imbalance", "fairness_index", "coefficient_of_variation", "max_violation", "average_entropy",
    "avg_experts_per_token", "dead_experts", "tokens_per_second", "per_site", "findings", "interventions", "complete",
}  # fmt: skip


def test_stats_json_has_the_contracts_keys_and_loads_that_sum_to_tokens_times_k(call: Call, trace: Write) -> None:
    done = call("stats", trace(), "--json")
    stats = json.loads(done.out)
    assert (done.status, done.err) == (0, "")
    assert set(stats) == KEYS
    assert [sum(site["loads"]) for site in stats["per_site"]] == [80, 80, 80]
    assert stats["prompt"] == "a [b]prompt"


def test_tokens_of_a_deleted_branch_count_when_asked_for(call: Call, trace: Write, tmp_path: Path) -> None:
    runs = [BranchAdded(Branch(number, number, f"run {number}")) for number in (0, 1)]
    path, whole = trace("x.msgpack", events=[*runs, BranchChanged(0, "deleted")]), trace("whole.msgpack")
    for flags, tokens, rows in (((), 0, 1), (("--deleted",), 40, 1 + 40 * 3 * 2)):
        assert json.loads(call("stats", path, "--json", *flags).out)["tokens"] == tokens
        out = tmp_path / f"{tokens}.csv"
        assert call("export", path, "--format", "csv", "-o", out, *flags).status == 0
        assert len(out.read_text().splitlines()) == rows
        assert json.loads(call("diff", path, whole, "--json", *flags).out)["tokens"] == tokens


def test_stats_for_a_person_names_the_busiest_experts(call: Call, trace: Write) -> None:
    done = call("stats", trace())
    assert done.status == 0
    assert "3 sites × 4 experts, top-2" in done.out
    assert re.search(r"40 tokens in 40 steps, [\d.–]+ tokens/s of the decode steps", done.out)


def test_stats_name_the_interventions_in_force(call: Call, trace: Write) -> None:
    made = InterventionsChanged((BanExperts((1,), Scope(layers=(0,))),))
    assert "\nunder interventions: ban, experts 1, layers 0\n" in call("stats", trace(events=[made])).out
    assert "interventions" not in call("stats", trace("plain.msgpack")).out


def test_a_rate_is_of_decode_steps_only_where_there_were_some(call: Call, tmp_path: Path) -> None:
    sites = (Site(0, "L0", 0, "", "", 4, 4, 2),)
    with TraceWriter(tmp_path / "x.msgpack", ModelInfo("toy", "", "", sites)) as writer:
        for index in range(3):
            experts = np.array([[[0, 1]], [[2, 3]]])
            writer.write_step(step_from_arrays(experts, index=index, phase=Phase.PREFILL, duration=8.0))
    assert "6 tokens in 3 steps, 250.0 tokens/s\n" in call("stats", tmp_path / "x.msgpack").out


def test_a_baseline_fails_only_what_got_worse(call: Call, trace: Write) -> None:
    good, bad = trace("good.msgpack"), trace("bad.msgpack", collapsed=True)
    same = call("stats", good, "--baseline", good, "--threshold", "5%")
    assert same.status == 0
    assert same.out.endswith("\n\nnot worse than the baseline by more than 5%\n")
    worse = call("stats", bad, "--baseline", good, "--json")
    assert worse.status == 1
    assert {"fairness_index", "load_imbalance"} <= {row["key"] for row in json.loads(worse.out)["regressions"]}
    assert call("stats", good, "--baseline", bad).status == 0
    lenient = call("stats", bad, "--baseline", good, "--threshold", "10000%", "--json")
    assert (lenient.status, json.loads(lenient.out)["regressions"]) == (
        1,
        [{"key": "dead_experts", "baseline": 0, "value": 6}],
    )
    assert call("stats", bad, "--baseline", bad).status == 0
    few = call("stats", trace("few.msgpack", tokens=4, collapsed=True), "--baseline", good, "--threshold", "10000%")
    assert (few.status, "dead" in few.out) == (0, True), "too few tokens to call an expert dead"


def test_a_site_that_got_worse_is_not_hidden_by_the_mean(call: Call, trace: Write) -> None:
    good, other = trace("good.msgpack", tokens=200), trace("other.msgpack", tokens=200, seed=1)
    assert call("stats", other, "--baseline", good).status == 0, "what chance makes of a site is no regression"
    uneven = trace("uneven.msgpack", tokens=200, uneven=1)
    stats = [json.loads(call("stats", path, "--json").out) for path in (good, uneven)]
    assert stats[1]["fairness_index"] > 0.85 * stats[0]["fairness_index"], "the mean hides it"
    told = call("stats", uneven, "--baseline", good, "--threshold", "15%", "--json")
    assert told.status == 1
    rows = [row for row in json.loads(told.out)["regressions"] if "site" in row]
    before, after = (each["per_site"][1]["fairness_index"] for each in stats)
    assert {"key": "fairness_index", "site": "L1", "baseline": before, "value": after} in rows
    assert {row["site"] for row in rows} == {"L1"}
    words = call("stats", uneven, "--baseline", good, "--threshold", "15%").out
    assert f"worse than the baseline: fairness_index at L1 {before:.4g} → {after:.4g}" in words
    assert call("stats", good, "--baseline", uneven, "--threshold", "15%").status == 0
    assert call("stats", uneven, "--baseline", good, "--threshold", "400%").status == 0


def test_a_baseline_is_not_met_by_what_tells_nothing(call: Call, trace: Write) -> None:
    good, empty, ids = trace(), trace("empty.msgpack", tokens=0), trace("ids.msgpack", has_logits=False)
    lost = call("stats", empty, "--baseline", good, "--json")
    assert lost.status == 1
    regressions = {row["key"]: row["value"] for row in json.loads(lost.out)["regressions"]}
    assert regressions["load_imbalance"] is regressions["fairness_index"] is None
    assert "worse than the baseline: fairness_index 0" in (text := call("stats", empty, "--baseline", good).out)
    assert re.search(r"dead experts +–", text)
    assert call("stats", ids, "--baseline", good).status == 0  # a recording without logits is no worse one
    nothing = call("stats", good, "--baseline", empty)
    assert (nothing.status, nothing.out) == (1, "")
    assert nothing.err.startswith("error: empty.msgpack has no routing to compare with\nhint: ")
    alone = call("stats", good, "--threshold", "5%")
    assert (alone.status, alone.out) == (2, "")
    assert alone.err.endswith("hint: name one: --baseline OLD\n")


@pytest.mark.parametrize("command", ["record", "export", "import", "run"])
def test_a_folder_that_there_is_not_is_no_file(call: Call, trace: Write, tmp_path: Path, command: str) -> None:
    missing, held = f"{tmp_path / 'missing'}{os.sep}", trace()
    arguments = {
        "record": ("random:mixtral", "-p", "x", "-o", missing),
        "export": (held, "--format", "csv", "-o", missing),
        "import": (held, "-o", missing),
        "run": ("random:mixtral", "--record", missing),
    }
    done = call(command, *arguments[command])
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"error: no such folder: {missing}\nhint: ")
    assert not (tmp_path / "missing").exists()


def test_fail_on_looks_at_the_severity(call: Call, trace: Write) -> None:
    long = trace("long.msgpack", tokens=200, collapsed=True)
    findings = json.loads(call("stats", long, "--json").out)["findings"]
    assert any(finding["severity"] == "warning" for finding in findings)
    assert call("stats", long, "--fail-on", "warning").status == 1
    assert call("stats", long, "--fail-on", "error").status == 0


@pytest.mark.parametrize("threshold", ["ten", "-5%", "nan", "inf", "", "50"])
def test_a_threshold_that_is_no_share_is_refused(call: Call, trace: Write, threshold: str) -> None:
    held = trace()
    done = call("stats", held, "--baseline", held, "--threshold", threshold)
    assert done.status == 2
    assert done.err.startswith("error: --threshold")
    if threshold == "50":
        assert done.err == "error: --threshold: 50 would be 5000%\nhint: write 50% or 0.5\n"


def test_diff_of_a_recording_with_itself_is_identical(call: Call, trace: Write) -> None:
    path = trace()
    assert call("diff", path, path).out.startswith("identical")
    assert json.loads(call("diff", path, path, "--json").out)["identical"] is True


def test_diff_says_when_the_same_routing_came_of_other_distributions(call: Call, tmp_path: Path) -> None:
    for name, far in (("a", 1.0), ("b", 3.0)):
        info = ModelInfo(
            "toy", "Toy", "toy", (Site(0, "L0", 0, "", "", 4, 4, 1, scoring="softmax", logits_form="logits"),)
        )
        with TraceWriter(tmp_path / name, info) as writer:
            logits = [[[far, 0.0, 0.0, -1.0]]] * 3
            writer.write_step(step_from_arrays([[[0]]] * 3, index=0, logits=logits, token_id=[1, 2, 3]))
    out = call("diff", str(tmp_path / "a"), str(tmp_path / "b")).out
    assert out.startswith(
        "identical: the same 3 tokens, each sent to the same experts; the routers' distributions differ"
    )
    kl = json.loads(call("diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json").out)["sites"][0]["kl"]
    assert kl > 0.1
    assert f"{kl:.4f}" in out


def test_diff_says_where_two_recordings_part(call: Call, trace: Write) -> None:
    done = call("diff", trace("a.msgpack"), trace("b.msgpack", seed=1))
    assert done.status == 0
    assert "first other experts: position" in done.out
    assert "L2" in done.out


def test_diff_claims_nothing_of_tokens_that_a_log_does_not_name(call: Call, tmp_path: Path) -> None:
    paths = []
    for name, experts in (("a", "0,5\n0,2\n"), ("b", "0,5\n0,3\n")):
        (tmp_path / f"{name}.csv").write_text("layer,expert\n" + experts)
        paths.append(tmp_path / f"{name}.msgpack")
        assert call("import", tmp_path / f"{name}.csv", "-o", paths[-1]).status == 0
    out = call("diff", *paths).out
    assert out.startswith("2 tokens compared by position, as their ids are unknown; 1 routing flipped\n")
    assert "first other token:   unknown" in out
    assert "before any token differs" not in out
    assert '"‹?›"' in out
    assert call("diff", paths[0], paths[0]).out == (
        "identical: all 2 positions sent to the same experts; their tokens are unknown\n"
    )


def test_diff_says_when_a_recording_is_not_whole(call: Call, trace: Write, tmp_path: Path) -> None:
    whole, torn = trace(), tmp_path / "torn.msgpack"
    torn.write_bytes(whole.read_bytes()[:-40])
    done = call("diff", str(whole), str(torn), "--json")
    assert json.loads(done.out)
    assert done.err.startswith(f"warning: {torn}: ")
    assert "cut off" in done.err
    assert not call("diff", str(whole), str(whole)).err


def test_diff_of_a_recording_whose_routing_is_damaged_finds_nothing_identical(
    call: Call, trace: Write, tmp_path: Path
) -> None:
    whole = Path(trace())
    data = bytearray(whole.read_bytes())
    data[data.index(b"moetui\xa7routing") + 60] ^= 0xFF
    torn = tmp_path / "torn.msgpack"
    torn.write_bytes(data)
    done = call("diff", str(whole), str(torn))
    assert "damaged" in done.err
    assert not done.out.startswith("identical")
    assert "of no token is the routing known in both" in done.out
    assert "first other experts: unknown" in done.out
    assert json.loads(call("diff", str(whole), str(torn), "--json").out)["identical"] is False
    done = call("export", str(torn), "--format", "svg", "-o", str(tmp_path / "x.svg"))
    assert "damaged" in done.err
    shown = (tmp_path / "x.svg").read_text()
    assert "no routing known" in shown.replace("&#160;", " ").replace("\xa0", " ")


def test_the_diff_screen_needs_a_terminal_and_two_recordings(call: Call, trace: Write, tmp_path: Path) -> None:
    bad = tmp_path / "bad.msgpack"
    bad.write_bytes(b"no trace")
    done = call("diff", trace(), bad, "--tui", "--ascii", "--color", "none")
    assert done.status == 1
    assert done.err.startswith("error: ")
    assert "bad.msgpack" in done.err
    done = call("diff", trace("b.msgpack"), trace("c.msgpack"), "--tui")
    assert (done.status, done.out) == (2, "")
    assert "needs a terminal" in done.err or "cannot show a screen" in done.err


@pytest.mark.parametrize("command", [["stats"], ["export", "--format", "csv", "-o", "-"], ["diff", "{path}"]])
@pytest.mark.parametrize("content", [None, b"", b"hello world", b"\x93NUMPY\x01\x00", bytes(range(256)) * 10])
def test_what_is_no_recording_is_one_clear_line(
    call: Call, tmp_path: Path, command: list[str], content: bytes | None
) -> None:
    path = tmp_path / "x.msgpack"
    if content is not None:
        path.write_bytes(content)
    done = call(*(part.format(path=path) for part in command), path)
    assert done.status == 1
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert "internal error" not in lines[0]


@pytest.mark.parametrize("args", [["stats"], ["export", "--format", "csv", "-o", "x.csv"]])
def test_a_file_that_may_not_be_read_is_no_mistake_in_the_call(
    call: Call, trace: Write, args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = trace(), os.open

    def refuse(name: Any, *rest: Any, **named: Any) -> int:
        if str(name) == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return opened(name, *rest, **named)

    # To root, which tests may run as, no mode of a file says no.
    monkeypatch.setattr(os, "access", lambda name, mode, **_: str(name) != str(path))
    monkeypatch.setattr(os, "open", refuse)
    done = call(args[0], path, *args[1:])
    assert done.status == 1
    assert "permission denied" in done.err.lower()


def test_a_folder_is_no_recording(call: Call, tmp_path: Path) -> None:
    done = call("stats", tmp_path)
    assert done.status == 1
    assert "error: " in done.err
    assert "internal" not in done.err


def test_a_cut_recording_is_read_as_far_as_it_goes(call: Call, trace: Write) -> None:
    path = trace(tokens=300)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    done = call("stats", path, "--json")
    stats = json.loads(done.out)
    assert done.status == 0
    assert stats["complete"] is False
    assert any(finding["kind"] == "trace_incomplete" for finding in stats["findings"])


def test_export_keeps_existing_files_unless_forced(call: Call, trace: Write, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious")
    done = call("export", trace(), "--format", "csv", "-o", out)
    assert done.status == 2
    assert "exists" in done.err
    assert "--force" in done.err
    assert out.read_text() == "precious"
    assert call("export", trace("b.msgpack"), "--format", "csv", "-o", out, "--force").status == 0
    assert out.read_text().startswith("run,branch,step,phase,position,token_id,token,site,layer,slot,expert,weight")


@pytest.mark.parametrize("format_", ["csv", "json", "svg"])
def test_an_export_says_when_a_recording_is_not_whole(call: Call, trace: Write, tmp_path: Path, format_: str) -> None:
    whole, torn = trace(), tmp_path / "torn.msgpack"
    torn.write_bytes(whole.read_bytes()[:-40])
    done = call("export", torn, "--format", format_, "-o", tmp_path / "out")
    assert done.status == 0
    assert done.err.startswith(f"warning: {torn}: ")
    assert "cut off" in done.err
    assert (tmp_path / "out").stat().st_size
    assert not call("export", whole, "--format", format_, "-o", tmp_path / "out", "--force").err


def test_export_to_standard_output_is_the_document_alone(call: Call, trace: Write) -> None:
    done = call("export", trace(), "--format", "json", "-o", "-")
    log = json.loads(done.out)
    assert done.status == 0
    assert log["num_layers"] == 3
    assert log["samples"][0]["num_tokens"] == 40


def test_export_as_a_picture_is_the_network_screen(call: Call, trace: Write, tmp_path: Path) -> None:
    out = tmp_path / "out.svg"
    done = call("export", trace(), "--format", "svg", "-o", out)
    assert (done.status, done.out, done.err) == (0, "", "")
    picture = out.read_text()
    assert picture.startswith("<svg")
    assert "40/40" in picture
    assert call("export", trace("b.msgpack"), "--format", "svg", "-o", "-").out.startswith("<svg")


def test_a_failed_export_leaves_nothing_behind(call: Call, tmp_path: Path) -> None:
    bad = tmp_path / "bad.msgpack"
    bad.write_bytes(b"no trace")
    assert call("export", bad, "--format", "csv", "-o", tmp_path / "out.csv").status == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.msgpack"]


def test_a_file_is_never_exported_or_imported_onto_itself(call: Call, trace: Write) -> None:
    path = trace()
    before = path.read_bytes()
    for args in (("export", path, "--format", "csv", "-o", path, "--force"), ("import", path, "-o", path, "--force")):
        done = call(*args)
        assert done.status == 2
        assert "the file that is read" in done.err
    assert path.read_bytes() == before


def test_an_import_says_what_its_log_lacks(call: Call, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("layer,expert\n0,5\n0,2\n")
    done = call("import", tmp_path / "x.csv", "-o", tmp_path / "x.msgpack")
    assert (done.status, done.out) == (0, "")
    first, second, third = done.err.splitlines()
    assert first.endswith(
        "2 tokens, 1 site × 6 experts, top-1, from a CSV of layers and experts; unknown: weights, entropy, times"
    )
    assert second.startswith("info: the log does not say how many experts there are")
    assert third.startswith("info: no column tells tokens apart")


def test_an_import_to_standard_output_is_the_recording_alone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("layer,expert\n0,5\n0,2\n")
    done = subprocess.run(
        [sys.executable, "-m", "moetui", "import", "x.csv", "-o", "-"], cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stderr.decode().startswith("standard output: 2 tokens, 1 site × 6 experts")
    (tmp_path / "y.msgpack").write_bytes(done.stdout)
    stats = trace_stats(tmp_path / "y.msgpack")
    assert (stats["tokens"], stats["complete"]) == (2, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.csv", "y.msgpack"]


def test_a_log_is_imported_from_a_pipe(tmp_path: Path) -> None:
    line = 'cd "$1" && printf "%s" | "$0" -m moetui import - -o x.msgpack'
    done = in_a_shell(line.replace("%s", "layer,expert\\n0,5\\n0,2\\n"), tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("x.msgpack: 2 tokens")
    with open_trace(tmp_path / "x.msgpack") as opened:
        assert opened.timeline.routing(0, 2).indices.ravel().tolist() == [5, 2]
    done = in_a_shell('cd "$1" && "$0" -m moetui import - -o y.msgpack < /dev/null', tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: standard input is empty\nhint: check what wrote it\n")
    assert [each.name for each in tmp_path.iterdir()] == ["x.msgpack"]


def test_a_file_that_a_recording_is_being_written_to_is_not_replaced(call: Call, trace: Write, tmp_path: Path) -> None:
    other, path = trace(), tmp_path / "x.msgpack"
    info = ModelInfo("toy", "Toy", "toy", (Site(0, "L0", 0, "", "", 4, 4, 1),))
    (tmp_path / "x.csv").write_text("layer,expert\n0,5\n")
    with TraceWriter(path, info) as writer:
        for args in (
            ("export", other, "--format", "csv", "-o", path, "--force"),
            ("import", tmp_path / "x.csv", "-o", path, "--force"),
            ("record", "demo", "-p", "Once", "-o", path, "--overwrite"),
        ):
            done = call(*args)
            assert done.status == 2
            assert "is being written" in done.err
        writer.write_step(step_from_arrays([[[0]]], index=0))
    assert not writer.problem


def test_a_name_as_long_as_names_may_be_is_written_and_replaced_and_none_longer(
    call: Call, trace: Write, tmp_path: Path
) -> None:
    recording = trace()
    log = tmp_path / "log.csv"
    log.write_text("layer,expert\n0,5\n")
    for what in (("export", recording, "--format", "csv"), ("import", log)):
        for _ in range(2):
            assert call(*what, "-o", tmp_path / ("a" * 255), "--force").err.startswith("error") is False
        done = call(*what, "-o", tmp_path / ("a" * 256))
        assert done.err.endswith("File name too long\nhint: choose a shorter name\n")
    assert call("record", "demo", "-p", "a", "-n", 1, "-o", tmp_path / ("a" * 255), "--overwrite").status == 0
    assert sorted(each.name[:5] for each in tmp_path.iterdir()) == ["a.msg", "aaaaa", "log.c"]


def test_a_device_is_no_place_for_an_export(call: Call, trace: Write) -> None:
    done = call("export", trace(), "--format", "csv", "-o", "/dev/null", "--force")
    assert done.status == 2
    assert "no regular file" in done.err


def in_a_shell(call: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a line in which ``"$0" -m moetui`` is moetui."""
    command = ["sh", "-c", call, sys.executable, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_a_closed_standard_error_is_no_error(trace: Write, closed: str) -> None:
    done = in_a_shell(f'"$0" -m moetui stats --json "$1" {closed}', trace())
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)


@pytest.mark.parametrize("args", ["stats --json", "stats", "export --format csv -o -", "--help"])
def test_what_standard_output_did_not_take_is_an_error(trace: Write, args: str) -> None:
    recording = trace()
    for where, why in ((">&-", "it is closed"), ("> /dev/full", "no space left on device")):
        done = in_a_shell(f'"$0" -m moetui {args} "$1" {where}', recording)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: cannot write standard output: {why}\n")
        assert len(done.stderr.splitlines()) <= 2


def test_a_closed_standard_output_matters_to_those_alone_who_write_there(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("layer,expert\n0,5\n0,2\n")
    done = in_a_shell('cd "$1" && "$0" -m moetui import x.csv -o x.msgpack >&-', tmp_path)
    assert done.returncode == 0
    for call in ("import x.csv", "record demo -p Once"):  # before the model is loaded
        done = in_a_shell(f'cd "$1" && "$0" -m moetui {call} -o - >&-', tmp_path)
        assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: standard output is closed")


def test_a_temporary_file_that_cannot_be_written_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("layer,expert\n" + "0,5\n" * 4000)
    call = 'cd "$1" && ulimit -f 1 && TMPDIR="$1" "$0" -m moetui import x.csv -o - | cat > /dev/null'
    done = in_a_shell(call, tmp_path)
    error, hint = done.stderr.splitlines()
    assert error == f"error: cannot write a temporary file in {tmp_path}: file too large"
    assert "TMPDIR" in hint
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.csv"]


def into_a_closed_pipe(*args: object) -> subprocess.CompletedProcess[bytes]:
    """Call moetui with nobody reading what it prints."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "moetui", *map(str, args)]
        return subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)


def test_a_reader_that_has_left_changes_no_verdict(trace: Write) -> None:
    good, bad = trace("a.msgpack"), trace("b.msgpack", collapsed=True)
    for args, status in (
        (["--help"], 0),
        (["record", "--help"], 0),
        (["--version"], 0),
        (["config"], 0),
        (["config", "--keys"], 0),
        (["config", "--json"], 0),
        (["doctor"], 0),
        (["stats", good], 0),
        (["stats", bad, "--baseline", good], 1),
        (["stats", bad, "--baseline", good, "--json"], 1),
        (["diff", good, bad], 0),
        (["export", good, "--format", "csv", "-o", "-"], 0),
    ):
        done = into_a_closed_pipe(*args)
        assert (done.returncode, done.stderr) == (status, b""), args


@pytest.mark.parametrize("verb", ["record", "import"])
def test_a_recording_that_nobody_took_is_an_error(tmp_path: Path, verb: str) -> None:
    (tmp_path / "x.csv").write_text("layer,expert\n0,5\n0,2\n")
    what = ["demo", "-p", "Once", "-n", 2] if verb == "record" else [tmp_path / "x.csv"]
    done = into_a_closed_pipe(verb, *what, "-o", "-")
    assert done.returncode == 1
    error, hint = done.stderr.decode().splitlines()
    assert error == "error: cannot write standard output: its reader has left"
    assert hint.startswith("hint: ")
