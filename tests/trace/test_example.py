import subprocess
import sys
from pathlib import Path

from moetui.trace import open_trace, trace_stats

EXAMPLE = Path(__file__).parents[2] / "examples" / "write_trace.py"


def test_the_example_writes_a_trace(tmp_path):
    path = tmp_path / "toy.msgpack"
    subprocess.run([sys.executable, str(EXAMPLE), str(path)], check=True, cwd=tmp_path)
    with open_trace(path) as trace:
        assert trace.complete
        assert trace.num_tokens == 40
        assert trace.timeline.text(2) == " sends"
    stats = trace_stats(path)
    assert (stats["tokens"], stats["sites"], stats["num_experts"], stats["top_k"]) == (40, 3, 8, 2)
    assert stats["complete"]
    assert sum(stats["per_site"][0]["loads"]) == 80
