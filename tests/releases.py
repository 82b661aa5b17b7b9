"""Which transformers the tests run with: what holds from one release on says so."""

from __future__ import annotations

import pytest
import transformers

RELEASE = tuple(int(part) for part in transformers.__version__.split(".")[:2])

since_5_21 = pytest.mark.skipif(
    RELEASE < (5, 21),
    reason="there is no flint yet, and jamba's router is a bare linear: nothing that chooses could be run again, so"
    " that how it weighs is known only after the first pass",
)

since_5_24 = pytest.mark.skipif(RELEASE < (5, 24), reason="there is no inkling2_loop yet")
