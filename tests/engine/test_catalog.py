"""What `moetui models` says of every architecture, against what is known of each kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moetui.engine import catalog as catalog_module
from moetui.engine.capture import Capture
from moetui.engine.catalog import catalog, examine
from moetui.engine.zoo import architectures, buildable


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def document(cache: Path) -> dict[str, Any]:
    return catalog(cache=cache)


def supported(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in document["architectures"] if row["supported"]]


def test_every_architecture_of_the_installed_transformers_is_listed(document: dict[str, Any]) -> None:
    assert [row["name"] for row in document["architectures"]] == [found.name for found in architectures()]
    assert tuple(row["name"] for row in supported(document)) == buildable()
    assert all(row["reason"] for row in document["architectures"] if not row["supported"])


def test_routing_can_be_changed_everywhere_but_where_transformers_ignores_it(document: dict[str, Any]) -> None:
    fixed = [row["name"] for row in supported(document) if row["interventions"]["force"] != "yes"]
    assert fixed == ["nllb_moe"]
    assert [row["name"] for row in supported(document) if row["interventions"]["ban"] != "yes"] == ["nllb_moe"]


def test_what_does_not_run_is_not_said_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capture, "set_functions", lambda self, functions: None)
    assert set(examine("mixtral").interventions.values()) == {"something else ran"}


def test_a_model_that_does_not_run_here_is_listed_with_what_it_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(name: str) -> None:
        raise RuntimeError(f"{name}: scatter():\n  Expected dtype int64")

    monkeypatch.setattr(catalog_module, "examine", fails)
    rows = catalog(cache=tmp_path)["architectures"]
    assert [row["name"] for row in rows] == [found.name for found in architectures()]
    row = next(row for row in rows if row["name"] == "mixtral")
    assert not row["supported"]
    assert row["reason"] == (
        "its small model does not run here: RuntimeError: mixtral: scatter(): Expected dtype int64"
    )


def test_the_number_of_slots_is_fixed_where_the_kind_fixes_it(document: dict[str, Any]) -> None:
    stiff = {row["name"] for row in supported(document) if row["interventions"]["more"] != "yes"}
    assert stiff == {"doge", "jetmoe", "nllb_moe", "switch_transformers"}
    assert "jetmoe" in {row["name"] for row in supported(document) if row["interventions"]["fewer"] != "yes"}


def test_the_models_own_rule_gives_the_weights_wherever_there_is_one(document: dict[str, Any]) -> None:
    kept = {row["name"] for row in supported(document) if "keep_mass" in row["weights"]}
    assert kept == {"inkling", "phimoe"}


def test_the_scoring_rule_is_found_or_said_to_be_unknown(document: dict[str, Any]) -> None:
    rules = {row["name"]: set(row["scoring"]) for row in supported(document)}
    assert rules["mixtral"] == {"softmax"}
    assert rules["deepseek_v3"] == {"sigmoid"}
    assert rules["deepseek_v4"] == {"sqrt_softplus"}
    assert {name for name, found in rules.items() if found == {"unknown"}} == {"doge", "nllb_moe", "phimoe"}


def test_recurrent_state_is_never_cut(document: dict[str, Any]) -> None:
    rewind = {row["name"]: row["rewind"] for row in supported(document)}
    for name in (
        "jamba",
        "granitemoehybrid",
        "nemotron_h",
        "qwen3_next",
        "minimax",
        "kimi_linear",
        "deepseek_v4",
        "zaya",
    ):
        assert rewind[name] == "snapshot", name
    assert rewind["mixtral"] == "crop"


def test_the_second_time_nothing_is_tried(
    document: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise AssertionError(f"tried {name} again")

    monkeypatch.setattr(catalog_module, "examine", fail)
    # Through JSON: tuples of the first time are lists of the second.
    assert catalog(cache=cache) == json.loads(json.dumps(document))


@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", '{"supported": 1}', "\x00"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    only = architectures()[:1]
    monkeypatch.setattr(catalog_module, "architectures", lambda: only)
    catalog(cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert catalog(cache=tmp_path)["architectures"][0]["name"] == only[0].name
    assert json.loads(file.read_text())[0]["supported"] is True
