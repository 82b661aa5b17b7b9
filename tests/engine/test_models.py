"""What a model's name means, and what is said when it means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moetui.engine.models import ALIASES, resolve
from moetui.routing import ModelError

PROMISED = [
    "demo",
    "mixtral-8x7b",
    "mixtral-8x22b",
    "qwen3-30b-a3b",
    "qwen1.5-moe",
    "deepseek-v2-lite",
    "olmoe",
    "gpt-oss-20b",
    "phi-3.5-moe",
    "granite-3-moe-1b-a400m",
    "granite-3-moe-3b-a800m",
    "jetmoe",
    "switch-base-8",
]


@pytest.mark.parametrize("name", PROMISED)
def test_promised_aliases_are_there(name: str) -> None:
    alias = ALIASES[name]
    assert alias.name == name
    if alias.hub:
        source = resolve(name.upper())
        assert (source.kind, source.location, source.name) == ("hub", alias.hub, name)


@pytest.mark.parametrize("alias", ALIASES.values(), ids=lambda alias: alias.name)
def test_the_table_is_plausible(alias) -> None:
    assert 0 < alias.active < alias.parameters
    assert 1 <= alias.top_k < alias.experts
    # Experts hold most of an MoE's weights, so a token passes at least its share of them and not many times more.
    share = alias.active / alias.parameters
    assert alias.top_k / alias.experts * 0.8 < share < 0.65
    assert alias.nbytes == pytest.approx(alias.parameters * 2e6)


def test_aliases_name_architectures_of_the_installed_transformers() -> None:
    from moetui.engine.zoo import buildable

    assert {alias.model_type for alias in ALIASES.values()} <= set(buildable())


def test_hub_ids_and_random_models_need_no_network() -> None:
    assert resolve("someone/some-model_2.5").kind == "hub"
    source = resolve("random:qwen3_moe")
    assert (source.kind, source.location, source.name) == ("random", "qwen3_moe", "random:qwen3_moe")


def test_a_folder_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "mixtral"}))
    assert resolve(str(folder)).name == "my model"
    monkeypatch.chdir(folder)
    assert resolve(".").name == "my model"


def test_an_alias_wins_over_a_folder_unless_written_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "olmoe"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "mixtral"}))
    monkeypatch.chdir(tmp_path)
    assert resolve("olmoe").kind == "hub"
    assert resolve("./olmoe").kind == "folder"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mixtrl-8x7b", "did you mean 'mixtral-8x7b'?"),
        ("qwen3-30b", "did you mean 'qwen3-30b-a3b'?"),
        ("./nowhere", "no such folder"),
        ("/no/such/folder", "no such folder"),
        ("zzz", "moetui models"),
        ("  ", "moetui run demo"),
    ],
)
def test_unknown_names_get_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(name)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_folders_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        resolve(str(tmp_path))
    assert "checkpoint-1" in caught.value.hint
    with pytest.raises(ModelError, match="names no model_type"):
        resolve(str(tmp_path / "checkpoint-1"))
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ModelError, match="cannot be read"):
        resolve(str(tmp_path))
    with pytest.raises(ModelError, match="is a file"):
        resolve(str(tmp_path / "config.json"))
    (tmp_path / "config.json").unlink()
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        resolve(str(tmp_path))
    assert "adapter" in caught.value.hint


def test_resolving_imports_no_torch() -> None:
    program = "import sys, moetui.engine.models as m; m.resolve('olmoe'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
