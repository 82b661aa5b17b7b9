"""The documentation's reader reads what the writer writes, with MessagePack and NumPy alone."""

import re
import subprocess
import sys
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zstandard

from moetui.trace import TraceWriter, open_trace
from moetui.trace.arrays import widen
from moetui.trace.layout import CHUNK_KINDS
from tests.trace.trace_cases import make_steps, same_array

DOC = Path(__file__).parents[2] / "docs" / "trace-format.md"


def ten_lines():
    return re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[1]


def as_documented(path, folder):
    """The tables of a trace by the documentation's reader: a list of chunks for each kind."""
    code = ten_lines()
    assert len(code.strip().splitlines()) == 10
    # A fresh interpreter without our package, as a stranger has it.
    script = f"path = {str(path)!r}\n{code}\nimport sys\nassert 'moetui' not in sys.modules\n"
    script += f"np.savez({str(folder / 'x.npz')!r}, **{{f'{{kind}} {{number}} {{name}}': array for kind in tables "
    script += "for number, chunk in enumerate(tables[kind]) for name, array in chunk.items()})"
    subprocess.run([sys.executable, "-I", "-c", script], check=True, cwd=folder)
    tables = {}
    for key, array in np.load(folder / "x.npz").items():
        kind, number, name = key.split()
        chunks = tables.setdefault(kind, [])
        chunks.extend({} for _ in range(int(number) + 1 - len(chunks)))
        chunks[int(number)][name] = array
    return tables


def test_ten_lines_read_a_trace(tmp_path, info):
    path = tmp_path / "x.msgpack"
    steps = make_steps(info, prefill=5000)
    steps[0].indices[::7, 0] = 3, 0  # here and there somebody forced other experts
    steps[0].weights[::7, 0] = 0.625, 0.375
    with TraceWriter(path, info) as writer:
        for step in steps:
            writer.write_step(step)
    tables = as_documented(path, tmp_path)
    homes = {"logits": "logits", "indices": "routing", "weights": "routing", "position": "tokens", "logprob": "tokens"}
    for name, kind in homes.items():
        want = np.concatenate([getattr(step, name) for step in steps])
        assert np.concatenate([chunk[name] for chunk in tables[kind]]).tobytes() == want.tobytes(), name
    assert sum(len(chunk["entropy"]) for chunk in tables["tokens"]) == 5005
    assert [chunk["first_token"].tolist() for chunk in tables["steps"]][1:] == [[5000, 5001, 5002, 5003, 5004]]
    bodies = [msgpack.unpackb(zstandard.decompress(each[6])) for each in records_of(path) if each[1] == "routing"]
    assert all(body["indices"]["layout"] == "top_k" and body["weights"]["layout"] == "softmax" for body in bodies)


@pytest.mark.parametrize(
    "name", ["v1.zstd.msgpack", "v2.zstd.msgpack", "v2.schema.zstd.msgpack", "v2.times.zstd.msgpack"]
)
def test_ten_lines_read_every_column_of_every_version(tmp_path, name):
    path = Path(__file__).parent / "golden" / name
    tables = as_documented(path, tmp_path)
    with open_trace(path) as trace:
        view = trace.timeline
        block = view.routing(0, view.end)
        sources = {"tokens": view.tokens(0, view.end), "steps": view.steps(), "routing": block, "logits": block}
        for kind, chunks in tables.items():
            at = 0
            for chunk in chunks:
                for column, array in chunk.items():
                    want = getattr(sources[kind], column)[at : at + len(array)]
                    same_array(want, widen(array, want.shape[-1], want.flat[-1]) if array.ndim > 1 else array, column)
                at += len(next(iter(chunk.values())))


def records_of(path):
    return list(msgpack.Unpacker(path.open("rb")))


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
