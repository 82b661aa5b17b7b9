"""Prompts, settings, and runs by the library's own loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from moetui.engine.generation import Prompt, encode, generate, generation_config, seeded, settle, writes_text
from moetui.engine.modules import describe, output_head
from moetui.engine.sites import find_sites
from moetui.engine.zoo import BuiltModel, build, buildable, tokenizer
from moetui.routing import UsageError
from moetui.routing.events import GenerationSettings

ZooModel = Callable[[str], BuiltModel]
PLAIN = GenerationSettings(max_new_tokens=12)
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<user>{{ m['content'] }}</user>{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)


@pytest.fixture(scope="module")
def words() -> Any:
    return tokenizer()


@pytest.fixture
def chatty() -> Any:
    made = tokenizer()
    made.chat_template = TEMPLATE
    return made


class TestEncode:
    def test_a_prompt_keeps_its_text(self, words: Any) -> None:
        prompt = encode(words, "some words", PLAIN)
        assert prompt.text == "some words"
        assert words.decode(prompt.ids) == "some words"
        assert not prompt.chat

    def test_what_is_too_long_for_the_model_is_told_by_nobody_else(self, monkeypatch: Any) -> None:
        from transformers import tokenization_utils_base as library

        said: list[str] = []
        monkeypatch.setattr(library.logger, "warning", said.append)
        made = tokenizer()
        made.model_max_length = 3
        assert len(encode(made, "word " * 9, PLAIN).ids) > 3
        assert not said
        assert len(made("word " * 9).input_ids) > 3
        assert len(said) == 1

    def test_white_space_is_a_prompt(self, words: Any) -> None:
        assert encode(words, " \n", PLAIN).ids

    def test_empty_prompts_are_refused(self, words: Any) -> None:
        with pytest.raises(UsageError, match="the prompt is empty"):
            encode(words, "", PLAIN)

    def test_prompts_that_vanish_in_the_tokenizer_are_refused(self) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        # Words that it does not know are dropped, and a start token is always added.
        made = Tokenizer(models.WordLevel({"<s>": 0, "known": 1}))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
        forgetful = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")
        assert encode(forgetful, "known", PLAIN).ids == (0, 1)
        with pytest.raises(UsageError, match="has no tokens"):
            encode(forgetful, "  ", PLAIN)

    def test_bytes_that_are_no_text_are_refused(self, words: Any) -> None:
        with pytest.raises(UsageError, match="no valid UTF-8"):
            encode(words, b"caf\xe9".decode("utf-8", "surrogateescape"), PLAIN)

    def test_chat_template_is_used_where_there_is_one(self, words: Any, chatty: Any) -> None:
        assert chatty.decode(encode(chatty, "hi", PLAIN).ids) == "<user>hi</user><model>"
        assert encode(chatty, "hi", PLAIN).chat
        plain = encode(chatty, "hi", GenerationSettings(chat=False))
        assert plain == encode(words, "hi", PLAIN)

    def test_wishes_that_a_template_cannot_grant(self, words: Any, chatty: Any) -> None:
        with pytest.raises(UsageError, match="no chat template"):
            encode(words, "hi", GenerationSettings(chat=True))
        with pytest.raises(UsageError, match="needs a chat template"):
            encode(words, "hi", GenerationSettings(system="be brief"))
        with pytest.raises(UsageError, match="no system role") as caught:
            encode(chatty, "hi", GenerationSettings(system="be brief"))
        assert caught.value.hint == "leave out --system"

    def test_ids_where_there_is_no_tokenizer(self) -> None:
        assert encode(None, " 4 7\n300 ", PLAIN, vocab_size=301).ids == (4, 7, 300)
        for text, message in [
            ("4 x", "must be token ids"),
            ("  ", "empty"),
            ("301", "no token 301"),
            ("-1", "no token"),
        ]:
            with pytest.raises(UsageError, match=message):
                encode(None, text, PLAIN, vocab_size=301)


class TestSettle:
    PROMPT = Prompt("x", tuple(range(10)))

    def test_a_prompt_that_fills_the_context(self) -> None:
        with pytest.raises(UsageError) as caught:
            settle(PLAIN, self.PROMPT, 10)
        full = "prompt is 10 tokens, the model's context is 10, which leaves no room for one more"
        assert caught.value.message == full
        with pytest.raises(UsageError) as caught:
            settle(PLAIN, self.PROMPT, 9)
        assert caught.value.message == "prompt is 10 tokens, the model's context is 9"
        assert settle(PLAIN, self.PROMPT, 11).max_new_tokens == 1
        assert settle(PLAIN, self.PROMPT, None).max_new_tokens == 12

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_new_tokens": 0},
            {"max_new_tokens": -3},
            {"temperature": -0.1},
            {"temperature": float("inf")},
            {"temperature": float("nan")},
            {"top_p": 0.0},
            {"top_p": 1.1},
            {"top_k_sampling": 0},
            {"seed": -1},
            {"seed": 2**63},
        ],
    )
    def test_numbers_out_of_range(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            settle(GenerationSettings(**wrong), self.PROMPT, None)

    def test_a_seed_is_drawn_for_sampling_alone(self) -> None:
        assert settle(PLAIN, self.PROMPT, None).seed is None
        drawn = {settle(GenerationSettings(top_p=0.9), self.PROMPT, None).seed for _ in range(8)}
        assert None not in drawn
        assert len(drawn) > 1
        assert settle(GenerationSettings(top_p=0.9, seed=5), self.PROMPT, None).seed == 5

    def test_temperature_zero_is_greedy(self) -> None:
        assert not settle(GenerationSettings(temperature=0.0), self.PROMPT, None).sampled


class TestGenerate:
    def test_greedy_runs_are_those_of_the_library(self, zoo_model: ZooModel) -> None:
        built = zoo_model("mixtral")
        inputs = built.inputs(length=7)
        theirs = built.model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, 7:]
        ours = generate(built.model, Prompt("", tuple(inputs["input_ids"][0].tolist())), PLAIN)
        assert ours == tuple(theirs.tolist())

    def test_a_seed_repeats_a_run_and_leaves_the_generators_alone(self, zoo_model: ZooModel) -> None:
        built = zoo_model("mixtral")
        prompt = Prompt("", (5, 6, 7))
        torch.manual_seed(1)
        before = torch.get_rng_state()

        def run(seed: int) -> tuple[int, ...]:
            return generate(built.model, prompt, GenerationSettings(max_new_tokens=12, temperature=5.0, seed=seed))

        first = run(3)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert run(3) == first
        assert run(4) != first

    def test_the_seed_is_that_of_torch(self, zoo_model: ZooModel) -> None:
        built = zoo_model("mixtral")
        ours = generate(
            built.model, Prompt("", (5, 6, 7)), GenerationSettings(max_new_tokens=8, top_k_sampling=9, seed=3)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            ids = torch.tensor([[5, 6, 7]])
            theirs = built.model.generate(ids, max_new_tokens=8, do_sample=True, top_k=9, temperature=1.0)
        assert ours == tuple(theirs[0, 3:].tolist())

    def test_the_models_own_taste_in_sampling_is_not_ours(self, zoo_model: ZooModel) -> None:
        built = build("mixtral")
        wanted = generate(built.model, Prompt("", (5, 6, 7)), PLAIN)
        own = built.model.generation_config
        own.do_sample, own.temperature, own.top_k, own.top_p, own.num_beams = True, 0.3, 3, 0.5, 2
        kept = own.to_dict()
        assert generate(built.model, Prompt("", (5, 6, 7)), PLAIN) == wanted
        assert built.model.generation_config.to_dict() == kept

    def test_the_end_of_text_ends_a_run(self, zoo_model: ZooModel) -> None:
        built = build("mixtral")
        tokens = generate(built.model, Prompt("", (5, 6, 7)), PLAIN)
        built.model.generation_config.eos_token_id = tokens[4]
        assert generate(built.model, Prompt("", (5, 6, 7)), PLAIN) == tokens[: tokens.index(tokens[4]) + 1]

    def test_stopping_keeps_what_there_is(self, zoo_model: ZooModel) -> None:
        built = zoo_model("mixtral")
        whole = generate(built.model, Prompt("", (5, 6, 7)), PLAIN)
        asked = iter([False, False, True])
        assert generate(built.model, Prompt("", (5, 6, 7)), PLAIN, stopped=lambda: next(asked)) == whole[:3]

    def test_encoder_decoder_models(self, zoo_model: ZooModel) -> None:
        built = zoo_model("switch_transformers")
        assert 1 <= len(generate(built.model, Prompt("", (5, 6, 7)), PLAIN)) <= 13

    @pytest.mark.parametrize("name", ["openai_privacy_filter", "diffusion_gemma"])
    def test_models_that_write_no_text_run_once(self, zoo_model: ZooModel, name: str) -> None:
        built = zoo_model(name)
        calls: list[int] = []
        hook = built.model.register_forward_hook(lambda *_: calls.append(1))
        try:
            assert not writes_text(built.model)
            assert generate(built.model, Prompt("", (5, 6, 7)), PLAIN) == ()
        finally:
            hook.remove()
        assert calls == [1]

    @pytest.mark.skipif("nemotron_h_omni" not in buildable(), reason="transformers 5.20.2 has it not")
    def test_a_whole_language_model_inside_another_writes_the_text(self, zoo_model: ZooModel) -> None:
        built = zoo_model("nemotron_h_omni")
        assert built.model.get_output_embeddings() is None, "the model says by itself which its head is"
        assert output_head(built.model) is built.model.get_submodule("language_model.lm_head")
        assert writes_text(built.model)
        assert generate(built.model, Prompt("", (5, 6, 7)), PLAIN)
        roles = {node.path: node.role for node in describe(built.model, find_sites(built.model)).modules}
        assert roles["language_model.lm_head"] == "head"

    def test_no_step_is_compiled(self, zoo_model: ZooModel) -> None:
        assert generation_config(zoo_model("mixtral").model, PLAIN).disable_compile

    def test_no_seed_means_the_generators_go_on(self) -> None:
        torch.manual_seed(0)
        with seeded(None):
            first = torch.rand(1)
        torch.manual_seed(0)
        assert torch.rand(1) == first
