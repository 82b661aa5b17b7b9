from __future__ import annotations

import pytest

from tests.trace.trace_cases import make_info, make_steps


@pytest.fixture
def info():
    return make_info()


@pytest.fixture
def steps(info):
    return make_steps(info)
