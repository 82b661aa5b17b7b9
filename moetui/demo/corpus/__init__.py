"""The demo corpus: eight kinds of text, written by small grammars from a seed.

Every document follows from (domain, seed, number) alone, on every platform and Python version: the generator of each is
seeded with that text. Held-out documents have a seed of their own, and whatever else equals one of them is dropped.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count as numbers
from itertools import islice
from random import Random
from typing import Final

from moetui.demo import DOMAINS, Domain
from moetui.demo.corpus import _arithmetic, _french, _html, _json, _logs, _python, _recipes, _stories

__all__ = ["HELD_OUT_PER_DOMAIN", "HELD_OUT_SEED", "documents", "fingerprint", "held_out", "training_documents"]

HELD_OUT_SEED: Final = 7_000_003
HELD_OUT_PER_DOMAIN: Final = 24

_WRITERS: Final[dict[Domain, Callable[[Random], str]]] = {
    "story": _stories.document,
    "french": _french.document,
    "recipe": _recipes.document,
    "arithmetic": _arithmetic.document,
    "python": _python.document,
    "json": _json.document,
    "log": _logs.document,
    "html": _html.document,
}


def _stream(domain: Domain, seed: int) -> Iterator[str]:
    """Documents without end; the n-th is the same however many are taken."""
    write = _WRITERS[domain]
    for number in numbers():
        yield write(Random(f"{domain}/{seed}/{number}"))


def documents(domain: Domain, count: int, seed: int) -> list[str]:
    """The first `count` documents of a domain under a seed. Raises `KeyError` for an unknown domain."""
    return list(islice(_stream(domain, seed), count))


def fingerprint(document: str) -> bytes:
    """A 16-byte digest that stands for a document when sets of them are compared."""
    return hashlib.blake2b(document.encode(), digest_size=16).digest()


@cache
def held_out(domain: Domain) -> tuple[str, ...]:
    """The fixed documents of a domain that no training run may see; all different."""
    found: dict[str, None] = {}
    for text in _stream(domain, HELD_OUT_SEED):
        found[text] = None
        if len(found) == HELD_OUT_PER_DOMAIN:
            break
    return tuple(found)


@cache
def _forbidden() -> frozenset[bytes]:
    return frozenset(fingerprint(text) for domain in DOMAINS for text in held_out(domain))


def training_documents(domain: Domain, seed: int) -> Iterator[str]:
    """Documents of a domain without end, none of which is a held-out one."""
    forbidden = _forbidden()
    return (text for text in _stream(domain, seed) if fingerprint(text) not in forbidden)
