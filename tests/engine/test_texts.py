"""Joined texts are what the tokenizer's own decoder makes of a sequence, byte for byte."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from moetui.engine import TokenTexts
from moetui.routing import join_texts

CORPUS = [
    "the quick brown fox jumps over the lazy dog, and the dog does not mind at all",
    "naïve café, Ünïcödé — “quotes” … 🦊🐶 日本語のテキスト",
    "def f(x):\n    return x\t# tab\r\n",
]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>"]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<tool call>"), AddedToken("日本")])
    return tokenizer


def sentencepiece() -> Tokenizer:
    """As Llama's and Mixtral's: spaces as ▁, unknown characters as bytes, one leading space stripped."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS[:1], trainers.BpeTrainer(vocab_size=150))
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in trained.get_vocab():
        vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=120, special_tokens=["<pad>"]))
    return tokenizer


def word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.train_from_iterator(CORPUS[:1], trainers.WordPieceTrainer(vocab_size=80, special_tokens=["[UNK]"]))
    return tokenizer


def odd() -> Tokenizer:
    """A decoder that no rule knows."""
    tokenizer = byte_level()
    tokenizer.decoder = decoders.Sequence([decoders.Replace(Regex("Ġ+"), " "), decoders.Fuse()])
    return tokenizer


BUILDERS = {
    "byte_level": byte_level,
    "sentencepiece": sentencepiece,
    "metaspace": metaspace,
    "word_pieces": word_pieces,
}
TOKENIZERS: dict[str, Any] = {
    name: PreTrainedTokenizerFast(tokenizer_object=build()) for name, build in {**BUILDERS, "odd": odd}.items()
}


def decoded(name: str, ids: list[int]) -> str:
    return str(TOKENIZERS[name].decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def some_ids(name: str) -> st.SearchStrategy[list[int]]:
    """Tokens that are text by themselves, and those that a character is made of: of any bytes few are text."""
    tokenizer = TOKENIZERS[name]
    pieces = st.sampled_from([[token] for token in range(len(tokenizer)) if "\ufffd" not in decoded(name, [token])])
    if name in ("byte_level", "sentencepiece"):
        pieces |= st.characters(exclude_categories=["Cs"]).map(tokenizer.encode)
    return st.lists(pieces, min_size=1, max_size=20).map(lambda parts: list(chain.from_iterable(parts)))


@pytest.mark.parametrize("name", BUILDERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_texts_join_to_what_the_decoder_says(name: str, data: st.DataObject) -> None:
    ids = data.draw(some_ids(name))
    expected = decoded(name, ids)
    # Where bytes make no UTF-8, and where a word begins in its middle, decoders go ways of their own.
    assume("\ufffd" not in expected and not expected.startswith("##"))
    joined = join_texts(TokenTexts(TOKENIZERS[name]).texts(ids))
    assert expected in (joined, joined.removeprefix(" "))


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("text", [*CORPUS, "🦊", "a\x00\x1b[31m\x7f", "\u202eevil"])
def test_a_text_comes_back_from_its_tokens(name: str, text: str) -> None:
    ids = TOKENIZERS[name].encode(text, add_special_tokens=False)
    joined = join_texts(TokenTexts(TOKENIZERS[name]).texts(ids))
    assert joined.removeprefix(" ") == text


def test_bytes_of_a_split_character_are_kept() -> None:
    ids = TOKENIZERS["byte_level"].encode("🦊")
    texts = TokenTexts(TOKENIZERS["byte_level"]).texts(ids)
    assert len(texts) > 1, "the character is not split: the test proves nothing"
    assert b"".join(text.encode("utf-8", "surrogateescape") for text in texts) == "🦊".encode()


def test_a_decoder_that_no_rule_knows_is_asked() -> None:
    tokenizer = TOKENIZERS["odd"]
    ids = tokenizer.encode("the quick")
    assert join_texts(TokenTexts(tokenizer).texts(ids)) == "the quick"


@pytest.mark.parametrize("token", [10**6, -5, 2**40])
def test_ids_outside_the_vocabulary_are_shown_as_ids(token: int) -> None:
    assert TokenTexts(TOKENIZERS["byte_level"]).text(token) == f"‹{token}›"
    assert TokenTexts().text(token) == f"‹{token}›"


def test_a_processor_has_its_tokenizer_inside() -> None:
    class Processor:
        tokenizer = TOKENIZERS["byte_level"]

    ids = TOKENIZERS["byte_level"].encode("dog")
    assert "".join(TokenTexts(Processor()).texts(ids)) == "dog"
