"""Parquet: the rows of the CSV, typed and compressed."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from moetui.routing.errors import UnsupportedError
from moetui.routing.step import join_texts
from moetui.trace.arrays import Array
from moetui.trace.exporters.table import COLUMNS, phase_names, table_blocks
from moetui.trace.recorded import Recorded

_WORDS = ("phase", "token", "site")


def export(recorded: Recorded, stream: BinaryIO) -> None:
    """Write the rows; an unknown token id, text or weight is null.

    Raises:
        UnsupportedError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UnsupportedError("writing Parquet needs pyarrow", "pip install 'moetui[parquet]'") from None

    view = recorded.timeline
    sites = [site.name for site in view.sites]
    types = {name: pyarrow.dictionary(pyarrow.int32(), pyarrow.string()) for name in _WORDS}
    types["weight"] = pyarrow.float32()
    schema = pyarrow.schema([(name, types.get(name, pyarrow.int32())) for name in COLUMNS])
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        for block in table_blocks(recorded):
            ids, inverse = np.unique(block["token_id"], return_inverse=True)
            texts = [join_texts([view.text(token_id)]) if token_id >= 0 else None for token_id in ids.tolist()]
            phases = phase_names()
            columns: dict[str, Any] = {
                "phase": _words(pyarrow, block["phase"], [phases.get(code) for code in range(max(phases) + 1)]),
                "token": _words(pyarrow, inverse.reshape(-1), texts),
                "site": _words(pyarrow, block["site"], list(sites)),
                "weight": pyarrow.array(block["weight"], mask=np.isnan(block["weight"])),
                "token_id": pyarrow.array(block["token_id"], mask=block["token_id"] < 0),
            }
            for name in COLUMNS:
                if name not in columns:
                    columns[name] = pyarrow.array(block[name].astype(np.int32, copy=False))
            writer.write_table(pyarrow.table([columns[name] for name in COLUMNS], schema=schema))


def _words(pyarrow: Any, codes: Array, words: list[str | None]) -> Any:
    known = codes < len(words)
    null = np.array([word is None for word in words], np.bool_)
    masked = ~known | null[np.where(known, codes, 0)]
    indices = pyarrow.array(codes.astype(np.int32), mask=masked)
    return pyarrow.DictionaryArray.from_arrays(indices, [word or "" for word in words])
