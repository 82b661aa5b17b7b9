import numpy as np
import pytest

from moetui.routing import ModelInfo, Phase, Site
from moetui.trace import TraceWriter, open_trace, step_from_arrays, trace_stats

SITES = tuple(Site(number, f"L{number}", number, "", "", 8, 8, 2) for number in range(2))
EXPERTS = [[[7, 1], [0, -1]], [[3, 2], [5, 6]], [[0, 1], [2, 3]]]


def test_experts_alone_make_a_trace_in_which_all_else_is_unknown(tmp_path):
    path = tmp_path / "x.msgpack"
    with TraceWriter(
        path, ModelInfo("x", "", "", SITES), has_weights=False, has_logits=False, has_timings=False
    ) as out:
        out.write_step(step_from_arrays(EXPERTS, index=0))
    with open_trace(path) as trace:
        tokens, block = trace.timeline.tokens(0, 3), trace.timeline.routing(0, 3)
        assert block.indices.tolist() == [[[7, 1], [0, 0xFFFF]], [[3, 2], [5, 6]], [[0, 1], [2, 3]]]
        assert (block.weights, block.logits) == (None, None)
        assert tokens.token_id.tolist() == [-1] * 3
        assert tokens.position.tolist() == [0, 1, 2]
        assert np.isnan([tokens.logprob, tokens.entropy, tokens.ms, tokens.started]).all()
    stats = trace_stats(path)
    assert (stats["tokens"], stats["ids_only"], stats["average_entropy"], stats["tokens_per_second"]) == (
        3,
        True,
        None,
        None,
    )
    assert stats["per_site"][0]["gate_mass"] is None


def test_what_is_given_comes_back_in_the_format_s_precision(tmp_path):
    rng = np.random.default_rng(0)
    weights, logits = rng.random((3, 2, 2)), rng.normal(size=(3, 2, 8))
    step = step_from_arrays(
        EXPERTS,
        index=4,
        weights=weights,
        logits=logits,
        token_id=[5, 6, 5],
        texts={5: "a", 6: "b"},
        sequence=[0, 1, 2],
        logprob=-0.5,
        started=1.5,
        duration=6.0,
        branch=0,
    )
    assert step.phase is Phase.DECODE
    with TraceWriter(tmp_path / "x.msgpack", ModelInfo("x", "", "", SITES)) as out:
        out.write_step(step)
    with open_trace(tmp_path / "x.msgpack") as trace:
        tokens, block = trace.timeline.tokens(0, 3), trace.timeline.routing(0, 3)
        assert block.weights.tobytes() == weights.astype(np.float16).tobytes()
        assert block.logits.tobytes() == logits.astype(np.float16).tobytes()
        assert [trace.timeline.text(each) for each in tokens.token_id.tolist()] == ["a", "b", "a"]
        assert tokens.sequence.tolist() == [0, 1, 2]
        assert tokens.step.tolist() == [4] * 3
        assert tokens.ms.tolist() == [2.0] * 3
        assert tokens.logprob.tolist() == [-0.5] * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"indices": [[1, 2]]}, "indices are whole numbers"),
        ({"indices": [[[0.5, 1.0]]]}, "indices are whole numbers"),
        ({"indices": [[[70_000, 1]]]}, "no expert 70000"),
        ({"weights": [[[0.5]]]}, "weights of"),
        ({"logits": np.zeros((2, 2, 8))}, "logits of"),
        ({"token_id": [1, 2]}, "token_id of"),
        ({"token_id": 2**33 + 5}, "token_id: whole numbers"),
        ({"token_id": 1.7}, "token_id: whole numbers"),
        ({"position": np.nan}, "position: whole numbers"),
        ({"position": 2**31}, "position: whole numbers"),
        ({"sequence": 70_000}, "sequence: whole numbers from -32768 to 32767"),
        ({"index": 2**31}, "index: whole numbers"),
        ({"branch": 2**15}, "branch: whole numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        step_from_arrays(**{"indices": EXPERTS, "index": 0, **changes})


def test_experts_that_the_model_lacks_are_refused(tmp_path):
    with TraceWriter(tmp_path / "x.msgpack", ModelInfo("x", "", "", SITES)) as out:
        out.write_step(step_from_arrays(EXPERTS, index=0))
        with pytest.raises(ValueError, match="token 1 went to expert 8 of L0, which has 8"):
            out.write_step(step_from_arrays([[[7, 1], [0, -1]], [[3, 8], [9, 6]]], index=1))
        out.write_step(step_from_arrays(EXPERTS, index=2))
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.timeline.tokens(0, 6).step.tolist() == [0] * 3 + [2] * 3
        assert not trace.findings
