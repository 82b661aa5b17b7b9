from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("routing", deadline=None)
settings.load_profile("routing")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
