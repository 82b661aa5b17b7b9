"""Strings that want to take a terminal over, through the binary on a terminal: every tab, and nothing raw comes out."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.hostile import CORPUS, NAME, SEQUENCE, assert_inert, record
from tests.tui.pty_terminal import Terminal, terminal

MOETUI = [sys.executable, "-m", "moetui"]
PATIENCE = 60.0
# What one picture is turned into the next with: moved, coloured, scrolled. A slow screen draws fewer pictures, and may
# come to need not all of it.
DIFFERENCES = {b"H", b"G", b"m", b"r", b"M"}


def sees_no_more(opened: Terminal, text: str) -> None:
    opened.until(lambda: text not in opened.text(), PATIENCE)


def look_around(opened: Terminal) -> None:
    """Every tab, with what it lists of tokens, sites and findings."""

    def keys(*each: str) -> None:
        for key in each:
            opened.send(key)
            opened.pump(0.07)

    opened.sees("tokens", PATIENCE)
    opened.sees("fairness", PATIENCE)
    keys("\r", *["\x1b[5~"] * 6, "\x1b[H", *["\x1b[6~"] * 3, "v", "S", "]", "/", 'token:"e"', "\r", "A")
    for key, title in (("!", "─ findings"), ("?", "─ keys")):
        keys(key)
        opened.sees(title, PATIENCE)
        keys("\x1b[6~", "\x1b")
        sees_no_more(opened, title)
    keys("2")
    opened.sees("no module tree", PATIENCE)
    keys(*["\x1b[C", "\x1b[B"] * 8)
    keys("4")
    opened.sees("busiest experts", PATIENCE)
    keys("3")
    opened.sees("type help", PATIENCE)
    for line in ("tokens --last 60", "why 20", "findings", "branches", "stats", "layers", "find token:e", "experts"):
        keys(line, "\r")
        opened.pump(0.2)
    opened.sees("× uniform", PATIENCE)
    opened.send("\x11")
    opened.wait(20)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """What comes out for the hostile recording, and for one like it with plain words."""
    folder = tmp_path_factory.mktemp("hostile")
    environ = {name: str(folder) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}
    seen: dict[str, bytes] = {}

    def get(kind: str) -> bytes:
        if kind not in seen:
            texts, name = (CORPUS, NAME) if kind == "hostile" else (("word", "other"), "plain")
            path = record(folder / f"{kind}.msgpack", texts, name)
            with terminal([*MOETUI, "replay", str(path)], columns=120, rows=40, environ=environ) as opened:
                look_around(opened)
                assert opened.status == 0, opened.text()
                assert b"Traceback" not in opened.received
                seen[kind] = bytes(opened.received)
        return seen[kind]

    return get


def kinds(received: bytes) -> set[bytes]:
    """The kinds of sequences: their ends and private marks; of strings all."""
    out = set()
    for found in SEQUENCE.finditer(received):
        text = found[0]
        out.add(text[:3] + b"..." + text[-1:] if text[1:2] == b"[" and text[2:3] in b"<=>?" else text[-1:])
        if text[1:2] in b"]PX^_":
            out.add(text)
    return out


def test_no_sequence_of_theirs_comes_out(drawn: Callable[[str], bytes]) -> None:
    hostile, plain = drawn("hostile"), drawn("plain")
    assert kinds(hostile) <= kinds(plain) | DIFFERENCES, kinds(hostile) - kinds(plain)
    for text in CORPUS:
        raw = text.encode("utf-8", "surrogatepass")
        if b"\x1b" in raw and raw not in plain:
            assert raw not in hostile, text
    bare = SEQUENCE.sub(b"", hostile)
    assert_inert(bare.replace(b"\x1b\x1b", b""))
    for shown in ("␛", "‹U+202E›", "‹E2›", "\u2764", "[INST]"):
        assert shown.encode() in bare, shown
