"""Loading real folders with ``from_pretrained``, and what is said when that fails."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from moetui.engine import loading
from moetui.engine.libraries import overheard, reported
from moetui.engine.loading import load
from moetui.engine.models import LoadRequest
from moetui.engine.zoo import build, save
from moetui.routing import ModelError, UsageError


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(build("mixtral"), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


def failure(request: LoadRequest) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(request)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


class TestFolders:
    def test_loads_what_save_pretrained_wrote(self, pristine: Path) -> None:
        told: list[tuple[str, float | None]] = []
        loaded = load(LoadRequest(str(pristine)), lambda message, done: told.append((message, done)))
        original = build("mixtral").model
        for name, weight in original.state_dict().items():
            assert torch.equal(loaded.model.state_dict()[name], weight), name
        assert loaded.name == "tiny"
        assert loaded.notices == ()
        assert not loaded.model.training
        assert loaded.tokenizer.decode(loaded.tokenizer("some words").input_ids) == "some words"
        assert told[0] == ("loading tiny", None)
        assert told[-1][0].startswith("Loading weights")
        assert told[-1][1] == 1.0

    def test_follows_dtype_and_implementations(self, pristine: Path) -> None:
        request = LoadRequest(
            str(pristine), dtype="bfloat16", experts_implementation="batched_mm", attn_implementation="eager"
        )
        model = load(request).model
        assert model.dtype == torch.bfloat16
        assert model.config._experts_implementation == "batched_mm"
        assert model.config._attn_implementation == "eager"

    def test_changes_nothing_that_was_not_asked_for(self, pristine: Path) -> None:
        from transformers import AutoModelForCausalLM

        theirs = AutoModelForCausalLM.from_pretrained(pristine)
        ours = load(LoadRequest(str(pristine))).model
        assert ours.config._experts_implementation == theirs.config._experts_implementation
        assert ours.config._attn_implementation == theirs.config._attn_implementation
        assert ours.dtype == theirs.dtype
        assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()

    def test_encoder_decoder_models_get_their_class(self, tmp_path: Path) -> None:
        save(build("switch_transformers"), tmp_path)
        assert type(load(LoadRequest(str(tmp_path))).model).__name__ == "SwitchTransformersForConditionalGeneration"

    def test_a_folder_without_tokenizer_loads(self, folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        loaded = load(LoadRequest(str(folder)))
        assert loaded.tokenizer is None
        assert "token ids" in loaded.notices[0]

    def test_parameters_that_the_checkpoint_lacks_are_told(self, folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        del weights["model.norm.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        assert "1 parameters are not in the checkpoint" in load(LoadRequest(str(folder))).notices[0]


class TestDamage:
    def test_a_dense_model_is_refused_before_its_weights_are_read(self, tmp_path: Path) -> None:
        config = LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=16, num_hidden_layers=1)
        LlamaForCausalLM(config).save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"never read")
        assert "is no Mixture-of-Experts model" in failure(LoadRequest(str(tmp_path))).message

    def test_no_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        assert "holds no weights" in failure(LoadRequest(str(folder))).message

    @pytest.mark.parametrize("damage", [b"", b"not a safetensors file at all, not even close"])
    def test_garbage_weights(self, folder: Path, damage: bytes) -> None:
        (folder / "model.safetensors").write_bytes(damage)
        assert "damaged" in failure(LoadRequest(str(folder))).message

    def test_truncated_weights(self, folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        assert "damaged" in failure(LoadRequest(str(folder))).message

    def test_a_shard_is_missing(self, folder: Path) -> None:
        model = build("mixtral").model
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="100KB")
        sorted(folder.glob("model-*.safetensors"))[1].unlink()
        assert failure(LoadRequest(str(folder))).message

    def test_an_architecture_that_transformers_does_not_know(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "brand_new_moe"}))
        assert "does not know the architecture" in failure(LoadRequest(str(folder))).message

    def test_code_in_the_repository_never_runs_unasked(self, folder: Path, tmp_path: Path) -> None:
        witness = tmp_path / "it ran"
        (folder / "modeling_own.py").write_text(f"open({str(witness)!r}, 'w').close()\n")
        own = {"model_type": "own_moe", "auto_map": {"AutoConfig": "modeling_own.OwnConfig"}, "num_experts": 4}
        (folder / "config.json").write_text(json.dumps(own))
        error = failure(LoadRequest(str(folder)))
        assert "--trust-remote-code" in error.hint
        assert not witness.exists()

    def test_more_than_the_memory_holds(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        size = (folder / "model.safetensors").stat().st_size
        enough = type("Memory", (), {"available": size * 1.5, "free": 0})()
        monkeypatch.setattr(loading.psutil, "virtual_memory", lambda: enough)
        monkeypatch.setattr(loading.psutil, "swap_memory", lambda: type("Swap", (), {"free": 0})())
        assert load(LoadRequest(str(folder), device="cpu", dtype="bfloat16")).model is not None
        enough.available = size * 0.9
        error = failure(LoadRequest(str(folder), device="cpu", dtype="float32"))
        assert error.message.startswith("out of memory for tiny")
        assert error.hint == "--dtype bfloat16 halves it"

    def test_out_of_memory_while_loading(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def explode(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nlong\nstory")

        monkeypatch.setattr("transformers.MixtralForCausalLM.from_pretrained", explode)
        assert failure(LoadRequest(str(folder))).message == "out of memory for tiny"


class TestRequests:
    @pytest.mark.parametrize(
        ("change", "message", "hint"),
        [
            ({"device": "gpu"}, "unknown device: gpu", "cuda:0"),
            ({"device": "cuda:x"}, "unknown device: cuda:x", "cuda:0"),
            ({"experts_implementation": "groupd_mm"}, "unknown experts implementation", "did you mean grouped_mm?"),
            ({"attn_implementation": "sdpaa"}, "unknown attention implementation", "did you mean sdpa?"),
        ],
    )
    def test_options_are_checked_first(self, change: dict[str, str], message: str, hint: str) -> None:
        with pytest.raises(UsageError) as caught:
            load(replace(LoadRequest("owner/never-downloaded"), **change))
        assert message in caught.value.message
        assert hint in caught.value.hint

    @pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without CUDA says")
    def test_cuda_where_there_is_none(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="sees no CUDA device"):
            load(LoadRequest(str(folder), device="cuda"))

    def test_quantization_needs_bitsandbytes(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
        error = failure(LoadRequest(str(folder), quantization="4bit"))
        assert "bitsandbytes" in error.message

    def test_random_models(self) -> None:
        loaded = load(LoadRequest("random:qwen3_moe", dtype="bfloat16", experts_implementation="eager"))
        assert type(loaded.model).__name__ == "Qwen3MoeForCausalLM"
        assert loaded.model.dtype == torch.bfloat16
        assert loaded.model.config._experts_implementation == "eager"
        assert loaded.tokenizer("hello").input_ids
        assert "random weights" in loaded.notices[0]
        assert "qwen3_moe" in failure(LoadRequest("random:qwen3_mo")).hint
        with pytest.raises(UsageError):
            load(LoadRequest("random:mixtral", quantization="8bit"))


class TestVoices:
    def test_nothing_reaches_the_terminal_and_all_is_as_before(self, pristine: Path, capfd) -> None:
        logger = logging.getLogger("transformers")
        before = list(logger.handlers), logger.propagate, warnings.showwarning
        said: list[str] = []
        with overheard(said.append):
            load(LoadRequest(str(pristine)))
            transformers_logging.get_logger("transformers.models").warning("watch\nout")
            transformers_logging.get_logger("transformers.models").warning("watch\nout")
            warnings.warn("an old way", FutureWarning, stacklevel=1)
        assert said[-2] == "watch out"
        assert "an old way" in said[-1]
        assert (list(logger.handlers), logger.propagate, warnings.showwarning) == before
        assert capfd.readouterr() == ("", "")

    def test_progress_hook_is_taken_back(self) -> None:
        told: list[tuple[str, float | None]] = []

        def work() -> None:
            with reported(lambda message, done: told.append((message, done))):
                for number in transformers_logging.tqdm(range(4), desc="Working: "):
                    if number == 2:
                        raise RuntimeError

        with pytest.raises(RuntimeError):
            work()
        assert told[0] == ("Working", 0.0)
        count = len(told)
        list(transformers_logging.tqdm([1], disable=True))
        assert len(told) == count

    def test_bars_know_bytes_and_what_a_downloader_asks_of_them(self) -> None:
        told: list[tuple[str, float | None]] = []
        with reported(lambda message, done: told.append((message, done))) as bar:
            meter = bar(total=4e9, unit="B", unit_scale=True, desc="Downloading", name="some.group", disable=None)
            meter.update(1e9)
            meter.set_postfix_str("fast", refresh=False)
            meter.set_description("Done")
            meter.close()
        assert told[-2] == ("Downloading 1.00 GB of 4.00 GB", 0.25)


class _Hub(BaseHTTPRequestHandler):
    """A hub with one public model, one gated and nothing else."""

    folder: Path
    busy: list[int]  # what the next questions about a file are refused with

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models")
        parts = path.strip("/").split("/")
        if self.busy and self.command == "HEAD":
            self._refuse(self.busy.pop(), "")
            return
        name, revision = "/".join(parts[:2]), next((part for part in ("nope",) if part in parts), "main")
        if name == "owner/gated":
            self._refuse(403, "GatedRepo")
        elif name != "owner/tiny-moe":
            self._refuse(404, "RepoNotFound")
        elif revision != "main":
            self._refuse(404, "RevisionNotFound")
        elif "tree" in parts and parts[-1] == "additional_chat_templates":
            self._refuse(404, "EntryNotFound")
        elif "tree" in parts:
            tree = [
                {"type": "file", "path": each.name, "size": each.stat().st_size, "oid": "b" * 40}
                for each in self._files()
            ]
            self._send(json.dumps(tree).encode(), body=body)
        elif self.path.startswith("/api/"):
            files = [{"rfilename": each.name} for each in self._files()]
            self._send(json.dumps({"id": name, "sha": "a" * 40, "siblings": files}).encode(), body=body)
        else:
            file = self.folder / parts[-1]
            if file.is_file():
                self._send(file.read_bytes(), body=body)
            else:
                self._refuse(404, "EntryNotFound")

    def _files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def _send(self, data: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def busy() -> list[int]:
    return []


@pytest.fixture
def hub(pristine: Path, busy: list[int]) -> Iterator[str]:
    handler = type("Hub", (_Hub,), {"folder": pristine, "busy": busy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_hub_models(hub: str, tmp_path: Path) -> None:
    """In an interpreter of its own, as the hub client reads its address once."""
    program = """
import json, sys
from moetui.engine.libraries import overheard
from moetui.engine.loading import load
from moetui.engine.models import LoadRequest
from moetui.routing import ModelError
out = {}
with overheard(lambda line: None):
    for name, revision in (("owner/gated", None), ("owner/nothing", None), ("owner/tiny-moe", "nope")):
        try:
            load(LoadRequest(name, revision=revision))
        except ModelError as error:
            out[name] = [error.message, error.hint]
    told = []
    loaded = load(LoadRequest("owner/tiny-moe"), lambda message, done: told.append(message))
    out["loaded"] = [loaded.name, type(loaded.model).__name__, loaded.tokenizer is not None]
    out["told"] = told
print(json.dumps(out))
"""
    environment = {
        **os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_x",
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert "gated" in out["owner/gated"][0]
    assert "hf auth login" in out["owner/gated"][1]
    assert "no model owner/nothing on the hub" in out["owner/nothing"][0]
    assert "no revision nope" in out["owner/tiny-moe"][0]
    assert out["loaded"] == ["owner/tiny-moe", "MixtralForCausalLM", True]
    assert any(line.startswith("model.safetensors 0.") and line.endswith(" MB") for line in out["told"]), out["told"]
    assert done.stderr == ""


_ALONE = """
from moetui.engine.libraries import overheard
from moetui.engine.loading import load
from moetui.engine.models import LoadRequest
from moetui.routing import ModelError
again = []
with overheard(lambda line: print("said", line), again.append):
    try:
        loaded = load(LoadRequest("owner/tiny-moe"))
        print(loaded.name, *loaded.notices)
    except ModelError as error:
        print(error.message)
print(len(again), *again[:1])
"""


def alone(**environment: str) -> list[str]:
    """What an interpreter of its own prints, which reads the hub's address anew."""
    inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", _ALONE],
        env={**inherited, "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("how", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_no_network(tmp_path: Path, how: dict[str, str]) -> None:
    """Told to go without, or a port that nobody listens on; nothing is tried again, which takes half a minute."""
    told = alone(HF_HOME=str(tmp_path), no_proxy="127.0.0.1", **how)
    assert told == ["owner/tiny-moe is not on this machine and the hub cannot be reached", "0"]


def test_what_is_on_this_machine_needs_no_network(hub: str, tmp_path: Path) -> None:
    assert alone(HF_HOME=str(tmp_path), HF_ENDPOINT=hub) == ["owner/tiny-moe", "0"]
    without = alone(HF_HOME=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9", no_proxy="127.0.0.1")
    notice = "the hub cannot be reached: the copy on this machine is what was loaded"
    assert without == [f"owner/tiny-moe {notice}", "0"]


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub: str, busy: list[int], tmp_path: Path) -> None:
    busy.extend([503] * 3)
    name, asked = alone(HF_HOME=str(tmp_path), HF_ENDPOINT=hub)
    assert name == "owner/tiny-moe"
    assert asked.startswith("2 HTTP Error 503 thrown while requesting HEAD ")
    assert not busy
