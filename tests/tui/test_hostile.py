"""Strings that want to take a terminal over, through the binary on a terminal: every tab, and nothing raw comes out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moetui.routing import ModelInfo
from moetui.routing.events import Branch, BranchAdded, Finding, FindingRaised, GenerationSettings
from moetui.trace import TraceWriter
from tests.tui.builders import HOSTILE, make_info, make_timeline
from tests.tui.pty_terminal import Terminal, terminal
from tests.tui.recordings import KeptSteps

MOETUI = [sys.executable, "-m", "moetui"]
PATIENCE = 60.0
CORPUS = (
    *HOSTILE,
    "\x1b]0;owned\x07", "\x1b]52;c;b3duZWQ=\x07", "\x1bP+q544e\x1b\\", "\x1b[?1005h", "\x9b31m", "\x1bc", "\x1b[6n",
    "\u2066evil\u2069", "\u200fevil", "\ufeffevil", "\x85", "\u2028", "\u2764\ufe0f", "\U0001f44d\U0001f3fd",
    "\U0001f1eb\U0001f1f7", "1\ufe0f\u20e3", "a\u0300\u0301\u0302\u0303", "[bold red]x[/]", "[@click=app.quit]x[/]",
    "=cmd|'/c calc'!A1", "<script>alert(1)</script>", "\ue000", "\U000e0041", "\ud800", "％s%n{0}", "\x08\x08\x08",
)  # fmt: skip
# C1 controls, bidi and zero-width marks, line separators, variation selectors and tags, as UTF-8.
RAW = re.compile(
    rb"\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf|\xef\xb8[\x80-\x8f]|\xf3\xa0[\x80-\x87].|\xee\x80"
)
SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
CONTROL = re.compile(rb"[\x00-\x06\x09\x0b\x0c\x0e\x10-\x1a\x1c-\x1f\x7f]")


def record(path: Path, texts: tuple[str, ...], name: str) -> Path:
    """A recording with these as tokens, names, findings and branches."""
    info = make_info(4, 8, 2)
    sites = tuple(replace(site, name=f"L{site.index}{name}") for site in info.sites)
    info = replace(info, name=name, architecture=name, device=name, sites=sites)
    kept = KeptSteps(info)
    vocabulary = {number: texts[number % len(texts)] for number in range(2 * len(texts))}
    make_timeline(info, timeline=kept, prompt=8, decode=3 * len(texts), vocabulary=vocabulary)
    write(path, info, kept, texts, name)
    return path


def write(path: Path, info: ModelInfo, kept: KeptSteps, texts: tuple[str, ...], name: str) -> None:
    with TraceWriter(path, info, prompt=name, settings=GenerationSettings()) as writer:
        writer.write_event(BranchAdded(Branch(0, 0, name, prompt=name)))
        for step in kept.steps:
            writer.write_step(step)
        for text in texts:
            writer.write_event(FindingRaised(Finding("x", "warning", text or "-", text, text)))


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
            texts, name = (CORPUS, "\x1b]0;owned\x07m") if kind == "hostile" else (("word", "other"), "plain")
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
    assert kinds(hostile) <= kinds(plain), kinds(hostile) - kinds(plain)
    for text in CORPUS:
        raw = text.encode("utf-8", "surrogatepass")
        if b"\x1b" in raw and raw not in plain:
            assert raw not in hostile, text
    bare = SEQUENCE.sub(b"", hostile)
    assert b"\x1b" not in bare.replace(b"\x1b\x1b", b"")
    assert not RAW.search(bare), RAW.search(bare)
    assert not CONTROL.search(bare), CONTROL.search(bare)
    bare.decode("utf-8")
    for shown in ("␛", "‹U+202E›", "‹E2›", "\u2764", "[INST]"):
        assert shown.encode() in bare, shown
