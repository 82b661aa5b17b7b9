"""The documentation's reader reads what the writer writes, with MessagePack and NumPy alone."""

import re
import subprocess
import sys
import zlib
from pathlib import Path

import msgpack
import numpy as np
import zstandard

from moetui.trace import TraceWriter
from moetui.trace.layout import CHUNK_KINDS
from tests.trace.trace_cases import make_steps

DOC = Path(__file__).parents[2] / "docs" / "trace-format.md"


def ten_lines():
    return re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[1]


def test_ten_lines_read_a_trace(tmp_path, info):
    path = tmp_path / "x.msgpack"
    steps = make_steps(info, prefill=5000)
    with TraceWriter(path, info) as writer:
        for step in steps:
            writer.write_step(step)
    code = ten_lines()
    assert len(code.strip().splitlines()) == 10
    # A fresh interpreter without our package, as a stranger has it.
    script = f"path = {str(path)!r}\n{code}\nimport sys\nassert 'moetui' not in sys.modules\n"
    script += f"np.savez({str(tmp_path / 'x.npz')!r}, logits=logits, "
    script += "indices=np.concatenate([chunk['indices'] for chunk in tables['routing']]), "
    script += "entropy=np.concatenate([chunk['entropy'] for chunk in tables['tokens']]))"
    subprocess.run([sys.executable, "-I", "-c", script], check=True, cwd=tmp_path)
    read = np.load(tmp_path / "x.npz")
    assert read["logits"].tobytes() == np.concatenate([step.logits for step in steps]).tobytes()
    assert read["indices"].tobytes() == np.concatenate([step.indices for step in steps]).tobytes()
    assert read["entropy"].shape == (5005,)


def test_the_file_is_as_the_documentation_says(tmp_path, info, steps):
    path = tmp_path / "x.msgpack"
    with TraceWriter(path, info) as writer:
        for step in steps:
            writer.write_step(step)
    data = path.read_bytes()
    assert data.startswith(bytes.fromhex("97 A6 6D 6F 65 74 75 69"))
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    starts, records = [], []
    while unpacker.tell() < len(data):
        starts.append(unpacker.tell())
        records.append(unpacker.unpack())
    for magic, kind, codec, first, count, crc, body in records:
        assert magic == "moetui"
        assert crc == zlib.crc32(f"{kind},{codec},{first},{count}".encode() + body)
    kinds = [record[1] for record in records]
    assert kinds[0] == "header"
    assert kinds[-2:] == ["index", "end"]
    assert kinds[-6:-2] == ["logits", "routing", "steps", "tokens"]
    end = msgpack.unpackb(records[-1][6])
    assert end == {"complete": True, "tokens": 12, "steps": 6, "index": starts[-2]}
    index = msgpack.unpackb(zstandard.decompress(records[-2][6]) if records[-2][2] else records[-2][6])
    place = np.frombuffer(index["start"]["data"], "u1").reshape(8, -1).T.copy().view("<i8")[:, 0]
    assert place.tolist() == starts[:-2]


def test_the_documentation_names_every_column_and_kind():
    text = DOC.read_text()
    for kind, columns in CHUNK_KINDS.items():
        assert f"`{kind}`" in text
        for column in columns:
            assert f"`{column.name}`" in text, column
            assert f"`{column.dtype.replace('|', chr(92) + '|')}`" in text or f"`{column.dtype}`" in text
