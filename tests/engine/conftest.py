from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from moetui.engine.zoo import BuiltModel, build
from tests.engine.interception import hook_state


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


ZooModel = Callable[[str], BuiltModel]


@pytest.fixture(scope="session")
def zoo_model() -> ZooModel:
    """Small random models by architecture name, each built once a session. Leave them as you found them."""
    models: dict[str, BuiltModel] = {}

    def get(name: str) -> BuiltModel:
        if name not in models:
            models[name] = build(name)
        return models[name]

    return get


@pytest.fixture
def mixtral(zoo_model: ZooModel) -> BuiltModel:
    """A small random Mixtral, shared by the session."""
    return zoo_model("mixtral")


@pytest.fixture
def model(mixtral: BuiltModel) -> Iterator[Any]:
    """Its model, which every test leaves without a hook."""
    before = hook_state(mixtral.model)
    yield mixtral.model
    assert hook_state(mixtral.model) == before
