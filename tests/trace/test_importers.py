import base64
import io
import json
import math
import os
import resource
import warnings

import numpy as np
import pytest

from moetui.routing import TraceError
from moetui.routing.events import BranchAdded
from moetui.trace import TraceWriter, export, import_file, open_trace, recorded_stats, step_from_arrays
from tests.trace.trace_cases import make_info, make_steps


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.msgpack"


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def experts(tokens=5, layers=3, k=2, total=8, seed=0, dtype=np.int32):
    rng = np.random.default_rng(seed)
    return np.argsort(rng.random((tokens, layers, total)), -1)[..., :k].astype(dtype)


def routed(path):
    with open_trace(path) as trace:
        view = trace.timeline
        block = view.routing(0, view.end)
        return np.array(block.indices, np.int64), block.weights, trace.findings


def test_our_own_log_comes_back(tmp_path, out):
    info = make_info()
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in make_steps(info):
            writer.write_step(step)
    with open_trace(tmp_path / "x.msgpack") as original:
        with (tmp_path / "log.json").open("wb") as stream:
            export(original, "json", stream)
        imported = import_file(tmp_path / "log.json", out)
        assert str(imported) == (
            "out.msgpack: 12 tokens, 2 sites × 4 experts, top-2, from a router log; unknown: times"
        )
        with open_trace(out) as trace:
            mine, other = trace.timeline, original.timeline
            for name in ("indices", "weights", "logits"):
                ours, theirs = getattr(mine.routing(0, 12), name), getattr(other.routing(0, 12), name)
                assert ours.tobytes() == theirs.tobytes()
            assert mine.tokens(0, 12).token_id.tolist() == other.tokens(0, 12).token_id.tolist()
            assert mine.text(mine.tokens(0, 1).token_id[0]) == other.text(other.tokens(0, 1).token_id[0])
            np.testing.assert_allclose(mine.tokens(0, 12).entropy, other.tokens(0, 12).entropy, rtol=1e-5)
            assert trace.info.sites[0].scoring == "softmax"
            assert trace.info.sites[0].normalised is True
            assert math.isnan(mine.tokens(0, 1).started[0])
            assert not trace.has_timings
            assert trace.complete


def log(**changes):
    layer = {
        "layer": 1,
        "router_logits_shape": [2, 3],
        "router_logits_sample": [[1.0, 2.0, 0.5], [0.1, None, 3.0]],
        "selected_experts": [[1], [2]],
        "expert_weights": [[0.9], [0.8]],
    }
    layer.update(changes)
    return {"config": "org/model", "num_experts": 3, "top_k": 1, "samples": [{"loss": 1.5, "layers": [layer]}]}


def test_logits_past_the_experts_of_a_log_are_those_of_zero_experts(tmp_path, out):
    (tmp_path / "log.json").write_text(json.dumps(log() | {"num_experts": 2}))  # and one token went to class 2
    assert import_file(tmp_path / "log.json", out).num_experts == 2
    with open_trace(out) as trace:
        site = trace.info.sites[0]
        assert (site.num_experts, site.num_classes, site.zero_experts) == (2, 3, 1)
        assert recorded_stats(trace)["per_site"][0]["loads"] == [0, 1]


def test_routers_of_one_layer_are_said_to_be_told_apart_by_their_order(tmp_path, out):
    document = log()
    document["samples"][0]["layers"] *= 2
    (tmp_path / "log.json").write_text(json.dumps(document))
    assert [each.kind for each in import_file(tmp_path / "log.json", out).findings] == ["import_layers_repeated"]
    with open_trace(out) as trace:
        assert [site.name for site in trace.info.sites] == ["L1", "L1.1"]


def test_a_log_without_tokens_or_a_known_rule_leaves_them_unknown(tmp_path, out):
    (tmp_path / "log.json").write_text(json.dumps(log()))
    import_file(tmp_path / "log.json", out)
    with open_trace(out) as trace:
        tokens = trace.timeline.tokens(0, 2)
        assert tokens.token_id.tolist() == [-1, -1]
        assert np.isnan(tokens.entropy).all()  # the weights are not those of a softmax
        assert np.isnan(tokens.logprob).all()  # a loss is a mean, and no token's own
        assert trace.info.name == "org/model"
        assert trace.info.sites[0].name == "L1"
        assert np.isnan(trace.timeline.routing(1, 2).logits[0, 0, 1])


def test_a_long_log_comes_back_whose_layers_stand_far_behind_its_tokens(tmp_path, out):
    count = 12_000
    info = make_info()
    chosen = np.random.default_rng(0).permuted(np.tile(np.arange(4), (count, 2, 1)), axis=-1)[..., :2]
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        ids = np.arange(count)
        writer.write_step(
            step_from_arrays(chosen, index=0, token_id=ids, texts={each: f" {each}" for each in range(count)})
        )
    with open_trace(tmp_path / "x.msgpack") as trace, (tmp_path / "log.json").open("wb") as stream:
        export(trace, "json", stream)
    assert (tmp_path / "log.json").read_bytes().index(b'"layers"') > 1 << 17
    assert import_file(tmp_path / "log.json", out).tokens == count
    assert (routed(out)[0] == chosen).all()


def test_a_log_with_the_samples_first_and_many_of_them(tmp_path, out):
    sample = {"note": "x" * 3000, **log()["samples"][0]}  # so that elements lie across the blocks that are read
    (tmp_path / "log.json").write_text(
        " {\n" + '"samples": [' + ",\n ".join([json.dumps(sample)] * 700) + '], "num_experts": 7, "top_k": 2}'
    )
    import_file(tmp_path / "log.json", out)
    with open_trace(out) as trace:
        assert trace.num_tokens == 1_400
        assert trace.info.num_experts == 7
        assert trace.timeline.routing(0, 1).indices.tolist() == [[[1, 0xFFFF]]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selected_experts": [[1], [2, 3]]}, "no table"),
        ({"selected_experts": [["a"], ["b"]]}, "no table"),
        ({"selected_experts": [[0.5], [1]]}, "no whole numbers"),
        ({"selected_experts": None}, "no selected_experts"),
        ({"selected_experts": [[1e300], [1]]}, "no whole numbers"),
        ({"selected_experts": [[70000], [1]]}, "more than a trace can hold"),
        ({"router_logits_sample": [[1, 2, 3]]}, "different numbers of tokens"),
        ({"layer": "x"}, "no number"),
    ],
)
def test_logs_that_make_no_sense_say_where(tmp_path, out, changes, message):
    (tmp_path / "log.json").write_text(json.dumps(log(**changes)))
    with pytest.raises(TraceError, match=message):
        import_file(tmp_path / "log.json", out)
    assert [path.name for path in tmp_path.iterdir()] == ["log.json"]


@pytest.mark.parametrize(
    "text",
    [
        '{"samples": [{"layers": [',
        '{"samples": [{"layers": []}]}',
        '{"samples": ' + "[" * 100_000,
        '{"samples": [], "layers": 1}',
        '{"samples": {"layers": 1}}',
        '{"samples": 3, "layers" 5}',
        '{"samples": [1], "layers": 5}',
        b'{"samples": "\xff\xfe", "layers": 5}',
    ],
)
def test_broken_json_is_one_clear_error(tmp_path, out, text):
    (tmp_path / "log.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TraceError):
        import_file(tmp_path / "log.json", out)
    assert not out.exists()


def table(seed):
    return experts(3, 1, 2, seed=seed)[:, 0]


def test_megatron_ranks_are_sequences(tmp_path, out):
    for rank in range(2):
        lines = [
            {"rank": rank, "step": step, "layer": layer, "top_indices": table(10 * rank + step + layer).tolist()}
            for step in (1, 2)
            for layer in (1, 4)
        ]
        (tmp_path / f"router_trace_rank{rank}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    imported = import_file(tmp_path / "router_trace_rank0.jsonl", out)
    assert "2 ranks" in imported.source
    assert imported.unknown == ("weights", "entropy", "times")
    with open_trace(out) as trace:
        tokens = trace.timeline.tokens(0, 12)
        assert [site.name for site in trace.info.sites] == ["L1", "L4"]
        assert tokens.step.tolist() == [1] * 6 + [2] * 6
        assert tokens.sequence.tolist() == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3
        assert tokens.position.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
        assert (trace.timeline.routing(3, 6).indices[:, 1] == table(15)).all()
        assert trace.timeline.routing(0, 1).weights is None
        assert np.isnan(tokens.confidence).all()


def test_megatron_micro_batches_of_a_step_follow_each_other(tmp_path, out):
    order = [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (1, 2)]  # layer and micro-batch, as a pipeline may run them
    lines = [
        {"rank": 0, "step": 7, "layer": layer, "top_indices": table(10 * batch + layer).tolist()}
        for layer, batch in order
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    import_file(tmp_path / "t.jsonl", out)
    with open_trace(out) as trace:
        tokens, indices = trace.timeline.tokens(0, 9), trace.timeline.routing(0, 9).indices
        assert tokens.step.tolist() == [7] * 9
        assert tokens.position.tolist() == list(range(9))
        for layer in (0, 1):
            assert (indices[:, layer] == np.concatenate([table(10 * batch + layer) for batch in range(3)])).all()


def test_a_torn_megatron_line_is_named(tmp_path, out):
    line = json.dumps({"rank": 0, "step": 1, "layer": 0, "top_indices": [[1, 2]]})
    (tmp_path / "t.jsonl").write_text(line + "\n" + line[:-5])
    with pytest.raises(TraceError, match=r"t\.jsonl, line 2"):
        import_file(tmp_path / "t.jsonl", out)


def test_experts_that_were_only_counted_are_told_of(tmp_path, out):
    (tmp_path / "x.csv").write_text("position,layer,expert\n0,0,5\n1,0,2\n")
    (tmp_path / "t.jsonl").write_text(json.dumps({"rank": 0, "step": 1, "layer": 0, "top_indices": [[1, 2]]}))
    (tmp_path / "ids.json").write_text(json.dumps(ids_only_log()))
    (tmp_path / "said.json").write_text(json.dumps({"num_experts": 8, **ids_only_log()}))
    for name, told in (("x.csv", True), ("t.jsonl", True), ("ids.json", True), ("said.json", False)):
        kinds = [finding.kind for finding in import_file(tmp_path / name, out, overwrite=True).findings]
        assert kinds == ["import_experts_counted"] * told, name


def test_a_dump_may_say_how_many_experts_there_are(tmp_path, out):
    ids = experts(total=6).tolist()
    (tmp_path / "x.json").write_text(json.dumps({"num_experts": 8, "choices": [{"routed_experts": ids}]}))
    imported = import_file(tmp_path / "x.json", out)
    assert (imported.num_experts, imported.findings) == (8, ())
    (tmp_path / "x.json").write_text(json.dumps({"num_experts": 3, "choices": [{"routed_experts": ids}]}))
    with pytest.raises(TraceError, match="no expert 5 among 3"):
        import_file(tmp_path / "x.json", out, overwrite=True)


def ids_only_log():
    return {"samples": [{"layers": [{"layer": 0, "selected_experts": [[1, 2]], "expert_weights": None}]}]}


def test_a_bare_csv_is_one_expert_a_token(tmp_path, out):
    (tmp_path / "x.csv").write_text("layer,expert\n0,5\n0,2\n3,1\n")
    imported = import_file(tmp_path / "x.csv", out)
    indices, weights, findings = routed(out)
    assert indices.tolist() == [[[5], [1]], [[2], [0xFFFF]]]
    assert weights is None
    assert "import_rows_are_tokens" in {finding.kind for finding in findings}
    assert any("taken as a token of its own" in finding.message for finding in imported.findings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token,layer,expert,weight\n0,0,5,.6\n0,0,2,.4\n1,0,1,.7\n1,0,3,.3\n", [[[5, 2]], [[1, 3]]]),
        ("step,token,layer,expert\n0,0,0,5\n0,0,0,2\n0,1,0,4\n0,1,0,1\n", [[[5, 2]], [[4, 1]]]),
        ("token,position,layer,expert\n7,0,0,5\n7,0,0,2\n7,1,0,4\n7,1,0,1\n", [[[5, 2]], [[4, 1]]]),
        ("token,layer,expert\n7,0,5\nx,0,2\n7,0,4\n", [[[5]], [[2]], [[4]]]),
    ],
)
def test_a_csv_s_column_token_of_whole_numbers_is_the_index_where_nothing_else_is(tmp_path, out, text, expected):
    (tmp_path / "x.csv").write_text(text)
    imported = import_file(tmp_path / "x.csv", out)
    assert routed(out)[0].tolist() == expected
    told = any(finding.kind == "import_rows_are_tokens" for finding in imported.findings)
    assert told == (imported.top_k == 1)


def test_our_csv_comes_back(tmp_path, out):
    info = make_info()
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in make_steps(info):
            writer.write_step(step)
    with open_trace(tmp_path / "x.msgpack") as trace:
        with (tmp_path / "x.csv").open("wb") as stream:
            export(trace, "csv", stream)
        import_file(tmp_path / "x.csv", out)
        indices, weights, _ = routed(out)
        assert (indices == trace.timeline.routing(0, 12).indices).all()
        assert (weights == trace.timeline.routing(0, 12).weights).all()
        with open_trace(out) as again:
            mine, other = again.timeline.tokens(0, 12), trace.timeline.tokens(0, 12)
            for name in ("step", "phase", "position", "token_id"):
                assert getattr(mine, name).tolist() == getattr(other, name).tolist(), name
            assert [site.name for site in again.info.sites] == [site.name for site in trace.info.sites]


def test_a_csv_s_branches_are_branches_and_its_positions_stay(tmp_path, out):
    (tmp_path / "x.csv").write_text(
        "run,branch,step,position,layer,expert\n0,0,3,10,0,1\n0,0,4,11,0,2\n0,1,5,11,0,3\n1,2,6,0,0,0\n"
    )
    import_file(tmp_path / "x.csv", out)
    with open_trace(out) as trace:
        tokens = trace.timeline.tokens(0, 4)
        assert tokens.position.tolist() == [10, 11, 11, 0]
        assert tokens.step.tolist() == [3, 4, 5, 6]
        assert tokens.branch.tolist() == [0, 0, 1, 2]
        branches = [item.event.branch for item in trace.events if isinstance(item.event, BranchAdded)]
        assert [(branch.id, branch.run, branch.first_token) for branch in branches] == [(0, 0, 0), (1, 0, 2), (2, 2, 3)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["0,3", "5,7"], [(3, "branch 3"), (7, "branch 7")]),
        (["a,x", "a,y"], [(0, "branch x"), (1, "branch y")]),
        (["0,", "1,"], [(0, "branch 0"), (1, "branch 1")]),
        (["0,0", "1,0"], [(0, "branch 0"), (1, "branch 1 (in the CSV: run 1, branch 0)")]),
    ],
)
def test_the_number_of_a_csv_s_branch_is_that_of_its_name_and_of_its_tokens(tmp_path, out, rows, expected):
    (tmp_path / "x.csv").write_text("\n".join(["run,branch,layer,expert", *(f"{row},0,1" for row in rows)]))
    import_file(tmp_path / "x.csv", out)
    with open_trace(out) as trace:
        branches = [item.event.branch for item in trace.events if isinstance(item.event, BranchAdded)]
        assert [(branch.id, branch.name) for branch in branches] == expected
        assert trace.timeline.tokens(0, 2).branch.tolist() == [number for number, _ in expected]


def test_a_csv_s_sequences_of_equal_positions_are_told_apart_by_their_slots(tmp_path, out):
    rows = ["step,position,layer,slot,expert", "0,4,0,0,1", "0,4,0,1,2", "0,4,3,0,5", "0,4,3,1,0"]
    rows += ["0,4,0,0,3", "0,4,0,1,4", "0,4,3,0,2", "0,4,3,1,1"]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    import_file(tmp_path / "x.csv", out)
    assert routed(out)[0].tolist() == [[[1, 2], [5, 0]], [[3, 4], [2, 1]]]


def test_a_csv_s_routers_of_one_layer_are_told_apart_by_their_site(tmp_path, out):
    (tmp_path / "x.csv").write_text("position,site,layer,slot,expert\n0,encoder.L1,1,0,4\n0,L0,0,0,2\n1,L1,1,0,6\n")
    import_file(tmp_path / "x.csv", out)
    none = 0xFFFF
    assert routed(out)[0].tolist() == [[[2], [4], [none]], [[none], [none], [6]]]
    with open_trace(out) as trace:
        assert [site.name for site in trace.info.sites] == ["L0", "encoder.L1", "L1"]


def test_odd_but_valid_csvs_are_read(tmp_path, out):
    (tmp_path / "x.csv").write_text('"token, as text",Layer,expert,weight\na,0,5.0,1e9\nb,1.0,3,\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_file(tmp_path / "x.csv", out)
    indices, weights, _ = routed(out)
    assert indices.tolist() == [[[5], [3]]]
    assert weights[0, 0, 0] == np.inf
    assert np.isnan(weights[0, 1, 0])


@pytest.mark.parametrize(
    "text",
    [
        "layer,expert\n0\n",
        "layer,expert\n0,1.5\n",
        "layer,expert\n0,nan\n",
        "layer,expert\n0,inf\n",
        "layer,expert\nx,1\n",
        "layer,expert\n0,-1\n",
        "layer,expert\n",
        "layer,expert\n0,9999999\n",
    ],
)
def test_broken_csvs_are_one_clear_error(tmp_path, out, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(TraceError):
        import_file(tmp_path / "x.csv", out)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_vllm_arrays_as_file_as_base64_and_in_a_response(tmp_path, out, dtype):
    array = experts(dtype=dtype)
    text = base64.b64encode(npy(array)).decode()
    files = {
        "x.npy": npy(array),
        "x.b64": text.encode() + b"\n",
        "x.json": json.dumps({"id": 1, "choices": [{"text": "hi", "routed_experts": text}]}).encode(),
        "y.json": json.dumps({"choices": [{"routed_experts": array.tolist()}]}).encode(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        imported = import_file(tmp_path / name, out, overwrite=True)
        indices, weights, findings = routed(out)
        assert (indices == array).all(), name
        assert weights is None
        assert [finding.kind for finding in findings] == ["import_experts_counted"]
        assert imported.unknown == ("weights", "entropy", "times")


def test_a_dump_is_found_behind_long_texts_in_broken_lines_and_in_one_response_a_line(tmp_path, out):
    ids = experts(dtype=np.uint8)
    text = base64.b64encode(npy(ids)).decode()
    response = json.dumps({"choices": [{"text": "x" * 200_000, "routed_experts": text}]})
    for name, data in (
        ("long.json", response),
        ("wrapped.txt", base64.encodebytes(npy(ids)).decode()),
        ("lines.jsonl", response + "\n\n" + response + "\n"),
    ):
        (tmp_path / name).write_text(data)
        imported = import_file(tmp_path / name, out, overwrite=True)
        assert imported.tokens == len(ids) * (2 if name == "lines.jsonl" else 1)
        assert (routed(out)[0][: len(ids)] == ids).all()


def test_a_dump_of_no_tokens_is_not_said_to_be_zeros(tmp_path, out):
    np.save(tmp_path / "x.npy", np.zeros((0, 3, 2), np.uint8))
    with pytest.raises(TraceError, match="holds no tokens"):
        import_file(tmp_path / "x.npy", out)


def test_vllm_prompt_lists_stand_before_the_choice(tmp_path, out):
    prompt, generated = experts(4, seed=1), experts(2, seed=2)
    document = {"prompt_routed_experts": prompt.tolist(), "choices": [{"routed_experts": generated.tolist()}]}
    (tmp_path / "x.json").write_text(json.dumps(document))
    import_file(tmp_path / "x.json", out)
    assert (routed(out)[0] == np.concatenate([prompt, generated])).all()
    assert phases(out) == ([0] * 4 + [1] * 2, [0, 1, 2, 3, 4, 5], [0] * 4 + [1, 2])


def phases(path):
    with open_trace(path) as trace:
        tokens = trace.timeline.tokens(0, trace.num_tokens)
        return tokens.phase.tolist(), tokens.position.tolist(), tokens.step.tolist()


def test_what_was_generated_is_told_from_the_prompt_where_its_length_is_known(tmp_path, out):
    ids = experts(5).tolist()
    document = {"choices": [{"routed_experts": ids}], "usage": {"prompt_tokens": 3}}
    (tmp_path / "x.json").write_text(json.dumps(document))
    import_file(tmp_path / "x.json", out)
    assert (routed(out)[0] == experts(5)).all()
    assert phases(out) == ([0, 0, 0, 1, 1], [0, 1, 2, 3, 4], [0, 0, 0, 1, 2])
    meta = {"routed_experts": ids, "prompt_tokens": 3, "routed_experts_start_len": 2}
    (tmp_path / "x.json").write_text(json.dumps({"meta_info": meta}))
    import_file(tmp_path / "x.json", out, overwrite=True)
    assert phases(out) == ([0, 1, 1, 1, 1], [2, 3, 4, 5, 6], [0, 1, 2, 3, 4])
    meta["prompt_tokens"] = 2
    (tmp_path / "x.json").write_text(json.dumps({"meta_info": meta}))
    import_file(tmp_path / "x.json", out, overwrite=True)
    assert phases(out)[0] == [1] * 5


def test_sglang_s_shape_is_given_or_found(tmp_path, out):
    array = experts(9, 4, 3)
    array[:, 0] = 0  # a dense layer
    text = base64.b64encode(array.astype("<i4").tobytes()).decode()
    meta = {"routed_experts": text, "prompt_tokens": 7, "completion_tokens": 3}
    (tmp_path / "x.json").write_text(json.dumps({"text": "hi", "meta_info": meta}))
    import_file(tmp_path / "x.json", out)
    indices, _, findings = routed(out)
    assert (indices == array[:, 1:]).all()
    assert {finding.kind for finding in findings} == {
        "import_shape_guessed",
        "import_silent_layers",
        "import_experts_counted",
    }
    told = {"num_hidden_layers": 4, "top_k": 3, "sglext": {"routed_experts": text}}
    (tmp_path / "x.json").write_text(json.dumps(told))
    import_file(tmp_path / "x.json", out, overwrite=True)
    indices, _, findings = routed(out)
    assert (indices == array[:, 1:]).all()
    assert [finding.kind for finding in findings] == ["import_experts_counted", "import_silent_layers"]
    with open_trace(out) as trace:
        assert [site.layer for site in trace.info.sites] == [1, 2, 3]
    (tmp_path / "x.json").write_text(json.dumps({"routed_experts": text}))
    with pytest.raises(TraceError, match="without a shape"):
        import_file(tmp_path / "x.json", out, overwrite=True)
    (tmp_path / "x.json").write_text(json.dumps({"routed_experts": base64.b64encode(bytes(96)).decode()}))
    with pytest.raises(TraceError, match="capture failed"):
        import_file(tmp_path / "x.json", out, overwrite=True)


def test_zero_blocks_are_unknown_and_told_of(tmp_path, out):
    array = experts(6)
    array[2:4] = 0
    (tmp_path / "x.npy").write_bytes(npy(array))
    imported = import_file(tmp_path / "x.npy", out)
    indices, _, findings = routed(out)
    assert (indices[2:4] == 0xFFFF).all()
    assert (indices[4:] == array[4:]).all()
    kinds = [("import_experts_counted", "info"), ("import_zero_block", "warning")]
    assert [(finding.kind, finding.severity) for finding in findings] == kinds
    assert imported.findings == findings
    (tmp_path / "x.npy").write_bytes(npy(np.zeros((3, 2, 2), np.uint8)))
    with pytest.raises(TraceError, match="capture failed"):
        import_file(tmp_path / "x.npy", out, overwrite=True)


@pytest.mark.parametrize(
    "data",
    [
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': 'evil'}",
        npy(experts())[:-3],
        npy(np.zeros((2, 2))),
        npy(np.array([[[{"a": 1}]]], dtype=object)),
        npy(experts()).replace(b"(5, 3, 2)", b"(9**9,3,2"),
        npy(experts()).replace(b"(5, 3, 2)", b"(5000000000000000,3,2)"[:9]),
        base64.b64encode(npy(experts()))[:-3],
        b'{"routed_experts": "****"}',
        b'{"routed_experts": 5}',
        b'{"routed_experts": [[1, 2], [3]]}',
        b'{"routed_experts": [[[99999999]]]}',
        b'{"routed_experts": ',
        b'{"choices": [], "x": "\\"routed_experts\\""}',
        b"GIF89a...",
        b"hello",
        b'{"a": 1}',
        b"\xff\xfe\x00\x00",
        b"",
    ],
)
def test_damaged_and_foreign_files_are_one_clear_error(tmp_path, out, data):
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(TraceError) as caught:
        import_file(tmp_path / "x.bin", out)
    assert "\n" not in caught.value.message
    assert not out.exists()


def test_what_is_no_file_or_already_a_trace_or_in_the_way_is_said(tmp_path, out):
    with pytest.raises(TraceError, match="folder"):
        import_file(tmp_path, out)
    with pytest.raises(TraceError, match="cannot open"):
        import_file(tmp_path / "no", out)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="no regular file"):  # nobody writes into it: it is not waited for
        import_file(tmp_path / "pipe", out)
    (tmp_path / "x.npy").write_bytes(npy(experts()))
    import_file(tmp_path / "x.npy", out)
    with pytest.raises(TraceError, match="exists already"):
        import_file(tmp_path / "x.npy", out)
    with pytest.raises(TraceError, match="trace already"):
        import_file(out, tmp_path / "y.msgpack")


def test_a_disk_that_is_full_is_said_of_the_file_that_was_asked_for(tmp_path, out):
    (tmp_path / "x.csv").write_text("layer,expert\n" + "".join(f"0,{n * n % 97}\n" for n in range(5000)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(TraceError) as caught:
            import_file(tmp_path / "x.csv", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.message == "cannot write out.msgpack: file too large"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.csv"]
