from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto import configuration_auto, modeling_auto

from moetui.engine.zoo import (
    Architecture,
    architectures,
    auto_class,
    build,
    buildable,
    save,
    tokenizer,
    unaccounted,
)
from moetui.engine.zoo.autos import config_class
from moetui.engine.zoo.exclusions import EXCLUDED
from moetui.engine.zoo.overrides import MODEL_TYPES, NOTES, OVERRIDES
from moetui.engine.zoo.scan import is_buildable
from moetui.engine.zoo.shrink import representatives
from moetui.engine.zoo.words import SMALLEST_VOCABULARY, words
from moetui.routing import ModelError, UnsupportedError
from tests.releases import RELEASE

MODELS_FOLDER = Path(transformers.__file__).parent / "models"


def folders_that_say(pattern: str) -> set[str]:
    says = re.compile(pattern, re.MULTILINE)
    return {file.parent.name for file in MODELS_FOLDER.glob("*/modeling_*.py") if says.search(file.read_text("utf-8"))}


known_by_now = pytest.mark.skipif(RELEASE < (5, 24), reason="older releases lack architectures that the tables name")

# The scan


def test_every_architecture_found_either_builds_or_is_excluded_with_a_reason() -> None:
    assert unaccounted() == {}
    for arch in architectures():
        assert arch.status == ("excluded" if arch.reason else "built")
        assert arch.evidence


def test_one_is_known_by_name_without_looking_through_all(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"", "..", "auto", "../models/mixtral", "mixtral ", *(path.name for path in MODELS_FOLDER.iterdir())}
    assert {name for name in names if is_buildable(name)} == set(buildable())

    def looked() -> None:
        raise AssertionError("it looked through all of them")

    monkeypatch.setattr("moetui.engine.zoo.scan.architectures", looked)
    assert is_buildable("mixtral")


@known_by_now
def test_at_least_the_architectures_known_when_this_was_written_are_found() -> None:
    assert len(buildable()) >= 80
    assert len(set(buildable())) == len(buildable())
    kinds = {"mixtral", "llama4", "jetmoe", "switch_transformers", "nllb_moe", "doge", "dbrx", "deepseek_v4", "zaya"}
    assert kinds <= set(buildable())


def test_the_scan_misses_nothing_that_the_library_marks_by_other_means() -> None:
    found = {arch.name for arch in architectures()}
    marked = folders_that_say(r"^@use_experts_implementation")
    recorded = folders_that_say(r"[\"']router_logits[\"']: ")
    assert len(marked) > 50
    assert len(recorded) > 30
    assert marked <= found
    assert recorded <= found


@known_by_now
def test_the_scan_finds_models_that_are_mixtures_by_a_part_of_theirs_alone() -> None:
    found = {arch.name: arch for arch in architectures()}
    speaks = {
        file.parent.name
        for file in MODELS_FOLDER.glob("*/configuration_*.py")
        if "text_config" in file.read_text("utf-8")
    }
    of_a_mixture = set()
    for model_type in configuration_auto.CONFIG_MAPPING_NAMES:
        folder = configuration_auto.model_type_to_module_name(model_type)
        if folder in speaks - {"gemma4_assistant"}:  # its default is none that it takes
            text = getattr(configuration_auto.CONFIG_MAPPING[model_type](), "text_config", None)
            if text and configuration_auto.model_type_to_module_name(text.model_type) in buildable():
                of_a_mixture.add(folder)
    assert {"kimi_k25", "nemotron_h_omni", "nemotron3_5_transcribe"} <= of_a_mixture <= set(buildable())
    assert found["kimi_k25"].evidence == ("its configuration names deepseek_v3",)
    assert "Glm4MoeForCausalLM runs it" in found["sarvam_moe"].evidence
    assert found["gemma4_assistant"].status == "excluded"
    assert "embedding_gemma2" not in found, "it takes a tower from a mixture, not its text model"


@known_by_now
def test_every_model_type_that_runs_as_a_mixture_is_found() -> None:
    mixtures = set()
    for name in buildable():
        for file in (MODELS_FOLDER / name).glob("modeling_*.py"):
            mixtures |= set(re.findall(r"^class (\w+)", file.read_text("utf-8"), re.MULTILINE))
    running = {
        configuration_auto.model_type_to_module_name(model_type)
        for model_type, name in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
        if name in mixtures
    }
    assert {"sarvam_mla", "sarvam_moe"} <= running <= set(buildable())


def test_dense_relatives_are_not_taken_for_mixtures() -> None:
    found = {arch.name for arch in architectures()}
    assert not found & {"llama", "mistral", "qwen3", "gemma3", "moshi", "t5", "gpt2", "mamba2", "olmo2"}


@known_by_now
def test_the_tables_name_architectures_that_exist() -> None:
    found = {arch.name for arch in architectures()}
    assert set(EXCLUDED) <= found
    assert set(OVERRIDES) <= set(buildable())
    assert set(NOTES) | set(MODEL_TYPES) <= set(buildable())


def test_excluded_and_unknown_names_say_what_to_do() -> None:
    with pytest.raises(UnsupportedError) as excluded:
        build("vitpose_backbone")
    assert "data-set index" in excluded.value.hint
    with pytest.raises(ModelError) as unknown:
        build("qwen3moe")
    assert "qwen3_moe" in unknown.value.hint
    with pytest.raises(ModelError, match="no Mixture-of-Experts architecture"):
        build("../mixtral")


# Short models stand for long ones


@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=60),
    st.integers(min_value=1, max_value=80),
)
def test_representatives_cover_every_kind_and_keep_the_order(kinds: list[str], count: int) -> None:
    keep = representatives(kinds, count)
    assert len(keep) == count
    if count <= len(kinds):
        assert keep == sorted(set(keep))
    if count >= len(set(kinds)):
        assert {kinds[index] for index in keep} == set(kinds)


def test_representatives_share_the_rest_out_by_frequency() -> None:
    assert representatives(["dense"] * 3 + ["sparse"] * 40, 4) == [0, 3, 4, 5]
    assert representatives((["linear"] * 3 + ["full"]) * 10, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", buildable())
def test_kinds_of_layers_of_the_full_size_are_all_in_the_small_one(name: str, zoo_model: Any) -> None:
    full = config_class(name)().get_text_config()
    small = zoo_model(name).config.get_text_config()
    for field in ("mlp_layer_types", "layer_types"):
        kinds = vars(full).get(field)
        if isinstance(kinds, list):
            assert set(kinds) <= set(vars(small)[field])


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "jamba", "nemotron_h", "qwen3_5_moe", "lfm2_moe"])
@pytest.mark.parametrize("layers", [3, 7])
def test_the_number_of_layers_can_be_chosen(name: str, layers: int) -> None:
    built = build(name, layers=layers)
    assert built.config.get_text_config().num_hidden_layers == layers
    with torch.no_grad():
        assert torch.isfinite(built.model(**built.inputs()).logits).all()


def test_too_few_layers_are_refused() -> None:
    with pytest.raises(ModelError, match="2 layers are too few"):
        build("mixtral", layers=2)


# Every architecture


def router_calls(built: Any, arguments: dict[str, torch.Tensor]) -> tuple[Any, dict[str, int], dict[str, set[int]]]:
    """One forward pass: its output, calls of routers by path, and the experts that indexed experts modules ran."""
    calls: dict[str, int] = {}
    experts: dict[str, set[int]] = {}
    handles = []
    for path, module in built.model.named_modules():
        names = list(inspect.signature(module.forward).parameters)[:3]
        named = re.search(r"Router$|Router\d?$|Gating$|MoEV1Gate$", type(module).__name__)
        if named or path.endswith(("router_gate", ".router")):

            def count(*_: Any, path: str = path) -> None:
                calls[path] = calls.get(path, 0) + 1

            handles.append(module.register_forward_hook(count))
        if len(names) == 3 and names[1].endswith(("index", "indices")) and names[2].endswith(("weight", "weights")):

            def note(_: Any, args: Any, kwargs: Any, path: str = path, names: list[str] = names) -> None:
                indices = {**dict(zip(names, args)), **kwargs}[names[1]]
                experts.setdefault(path, set()).update(indices.flatten().tolist())

            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with torch.no_grad():
            output = built.model(**arguments)
    finally:
        for handle in handles:
            handle.remove()
    return output, calls, experts


@pytest.mark.parametrize("name", buildable())
def test_it_runs_and_its_routers_choose(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    arguments = built.inputs(batch=2, length=24, padding="left")
    output, calls, experts = router_calls(built, arguments)
    assert torch.isfinite(output.logits).all()
    assert output.logits.dtype == torch.float32
    assert not built.model.training
    assert calls
    for path, chosen in experts.items():
        assert len(chosen) >= 3, f"{path} used only experts {sorted(chosen)}"


@pytest.mark.parametrize("name", buildable())
def test_the_same_seed_gives_the_same_model_and_no_global_generator_moves(name: str, zoo_model: Any) -> None:
    before = torch.random.get_rng_state()
    again = build(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    first, second = zoo_model(name).model.state_dict(), again.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert sum(value.numel() for value in first.values()) < 8_000_000


def test_another_seed_gives_another_model(zoo_model: Any) -> None:
    other = build("mixtral", seed=1)
    arguments = other.inputs()
    with torch.no_grad():
        assert not torch.allclose(other.model(**arguments).logits, zoo_model("mixtral").model(**arguments).logits)


@pytest.mark.parametrize("name", buildable())
def test_it_writes_tokens_where_it_says_so(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    if not built.can_generate:
        assert built.note
        return
    arguments = built.inputs(batch=2, length=6, padding="left")
    arguments.pop("decoder_input_ids", None)
    generated = built.model.generate(**arguments, max_new_tokens=5, do_sample=False)
    start = 1 if built.is_encoder_decoder else 6
    assert generated.shape == (2, start + 5)
    assert (generated[:, start:] >= SMALLEST_VOCABULARY).all(), "special tokens and bytes are improbable"


@pytest.mark.parametrize("name", buildable())
def test_what_is_saved_loads_back_bit_for_bit(name: str, zoo_model: Any, tmp_path: Path) -> None:
    built = zoo_model(name)
    save(built, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    loaded, report = auto_class(config).from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(built.model)
    assert not any(report.values()), report
    # Tensors mapped from a file lie at odd addresses, for which some kernels round differently: copy them first.
    for tensor in (*loaded.parameters(), *loaded.buffers()):
        tensor.data = tensor.data.contiguous().clone()
    arguments = built.inputs(batch=2, length=12, padding="left")
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**arguments).logits, built.model(**arguments).logits)
    if built.can_generate:
        assert (loaded.generation_config.pad_token_id, loaded.generation_config.eos_token_id) == (0, 2)


def test_inputs_pad_on_the_left_and_avoid_special_tokens(zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    arguments = built.inputs(batch=3, length=5, seed=3, padding="left")
    assert arguments["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
    real = arguments["attention_mask"].bool()
    assert (arguments["input_ids"][~real] == built.config.pad_token_id).all()
    assert (arguments["input_ids"][real] > 3).all()
    assert (arguments["input_ids"] < built.vocab_size).all()
    assert torch.equal(arguments["input_ids"], built.inputs(3, 5, seed=3, padding="left")["input_ids"])
    assert "decoder_input_ids" in zoo_model("switch_transformers").inputs()


# The class that loads


def test_a_checkpoint_that_names_its_class_gets_it() -> None:
    config = config_class("qwen3_5_moe")()
    assert auto_class(config) is transformers.AutoModelForImageTextToText
    config.architectures = ["Qwen3_5MoeForCausalLM"]
    assert auto_class(config) is transformers.AutoModelForCausalLM
    config.architectures = ["SomethingOfSomebodyElse"]
    assert auto_class(config) is transformers.AutoModelForImageTextToText


def test_a_model_without_text_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="vitpose_backbone"):
        auto_class(transformers.VitPoseBackboneConfig())


def test_an_unwritable_folder_is_an_error_of_one_line(zoo_model: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ModelError, match="cannot write"):
        save(zoo_model("mixtral"), blocked / "model")


# Words


def test_words_are_the_same_every_time_and_differ() -> None:
    assert words(300) == words(300)
    assert len(set(words(1500))) == 1500
    assert all(re.fullmatch(r"([bdfgklmnprstvz][aeiou]){2}[nlrsm]", word) for word in words(1500))


@pytest.fixture(scope="session")
def spelling() -> Any:
    return tokenizer(512)


def test_the_tokenizer_fills_the_vocabulary_and_knows_its_words(spelling: Any) -> None:
    assert len(spelling) == 512
    assert (spelling.pad_token_id, spelling.bos_token_id, spelling.eos_token_id, spelling.unk_token_id) == (0, 1, 2, 3)
    text = " " + " ".join(words(12))
    assert len(spelling(text)["input_ids"]) == 12


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=40).filter(lambda text: "<" not in text))
def test_any_text_survives_the_tokenizer(spelling: Any, text: str) -> None:
    ids = spelling(text)["input_ids"]
    assert all(3 < token < 512 for token in ids)
    assert spelling.decode(ids) == text


def test_a_saved_tokenizer_is_the_same_tokenizer(spelling: Any, zoo_model: Any, tmp_path: Path) -> None:
    save(zoo_model("mixtral"), tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Zwölf baban dalil\n\tund 日本 🎉 "
    assert loaded(text)["input_ids"] == spelling(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.padding_side == "left"


def test_a_vocabulary_below_one_token_a_byte_is_refused() -> None:
    assert len(tokenizer(SMALLEST_VOCABULARY)) == SMALLEST_VOCABULARY
    with pytest.raises(ModelError, match="too small"):
        tokenizer(SMALLEST_VOCABULARY - 1)


def test_architectures_are_plain_values() -> None:
    first = architectures()[0]
    assert isinstance(first, Architecture)
    assert architectures() is architectures()
    with pytest.raises(AttributeError):
        first.name = "other"  # type: ignore[misc]
