"""A vocabulary of made-up words, and a tokenizer on it that can spell anything."""

from __future__ import annotations

import itertools

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from moetui.engine.zoo import sizes
from moetui.routing import ModelError

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_CHARACTERS = [chr(code) for code in range(0x20, 0x7F)]
_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("n", "l", "r", "s", "m")

#: Fewer ids than this cannot spell every text: special tokens and one token a byte.
SMALLEST_VOCABULARY = sizes.SPECIAL_TOKENS + 256


def words(count: int) -> list[str]:
    """The first ``count`` made-up words, two pronounceable syllables each; always the same ones.

    Neighbours differ in their first letters, so that a short vocabulary still looks varied.
    """
    syllables = [onset + vowel for vowel in _VOWELS for onset in _ONSETS]
    ends = [vowel + coda for coda in _CODAS for vowel in _VOWELS]
    pairs = (
        syllables[index % len(syllables)] + _ONSETS[(index * 5 + lap) % len(_ONSETS)] + ends[(index * 7 + lap) % 25]
        for lap in range(len(ends))
        for index in range(len(syllables))
    )
    return list(itertools.islice(dict.fromkeys(pairs), count))


def tokenizer(vocab_size: int = sizes.VOCABULARY) -> PreTrainedTokenizerFast:
    """A tokenizer for a random model: made-up words, printable ASCII, and bytes for everything else.

    Nothing is downloaded. Decoding an encoded text gives the text back. ``<pad>`` is 0, ``<s>`` 1, ``</s>`` 2 and
    ``<unk>`` 3, as in every small model; none is added to a prompt.

    Args:
        vocab_size: ids of the model; the tokenizer uses them all, up to about 1700.

    Raises:
        ModelError: there are fewer than :data:`SMALLEST_VOCABULARY` ids.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise ModelError(
            f"a vocabulary of {vocab_size} ids is too small for a tokenizer",
            f"bytes and special tokens alone need {SMALLEST_VOCABULARY}",
        )
    spare = vocab_size - SMALLEST_VOCABULARY
    pieces = [*_CHARACTERS, *(" " + word for word in words(spare))][:spare]
    scores = [(piece, 0.0) for piece in _SPECIAL]
    scores += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    scores += [(piece, -10.0) for piece in pieces]
    spelling = Tokenizer(models.Unigram(scores, unk_id=sizes.UNKNOWN, byte_fallback=True))
    spelling.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_next")
    spelling.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    pad, bos, eos, unknown = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=spelling,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unknown,
        padding_side="left",
        model_max_length=sizes.POSITIONS,
        clean_up_tokenization_spaces=False,
    )
