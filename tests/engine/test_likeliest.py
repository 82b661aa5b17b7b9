"""The largest logits, found by blocks, are those of a sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.engine.likeliest import likeliest


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), size=st.integers(1, 5000), count=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_against_a_sort(rows: int, size: int, count: int, seed: int) -> None:
    # A shuffle of distinct numbers has no ties, which may come in any order.
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([torch.randperm(size, generator=generator) for _ in range(rows)]) * 8.0 / size
    ids, values, total = likeliest(logits, count)
    expected = logits.topk(min(count, size), -1)
    assert torch.equal(ids, expected.indices)
    assert torch.equal(values, expected.values)
    torch.testing.assert_close(total, logits.logsumexp(-1))


@pytest.mark.parametrize("size", [10, 4096])
def test_logits_that_are_not_finite(size: int) -> None:
    logits = torch.zeros(3, size)
    logits[0, 1:], logits[1, 5], logits[2, :] = -torch.inf, torch.nan, -torch.inf
    ids, _, total = likeliest(logits, 4)
    assert ids.shape == (3, 4)
    assert ids[0, 0] == 0
    assert total[0] == pytest.approx(0.0)
    assert total[1].isnan()
