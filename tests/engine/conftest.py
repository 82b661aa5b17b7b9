from __future__ import annotations

from collections.abc import Callable

import pytest

from moetui.engine.zoo import BuiltModel, build

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
