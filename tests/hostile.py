"""Strings that want to take over a terminal, a browser or a spreadsheet: one corpus for all that shows or writes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from moetui.routing import ModelInfo
from moetui.routing.events import Branch, BranchAdded, Finding, FindingRaised, GenerationSettings
from moetui.trace import TraceWriter
from tests.tui.builders import HOSTILE, make_info, make_timeline
from tests.tui.recordings import KeptSteps

OWNED = "document.documentElement.dataset.owned=1"
CORPUS = (
    *HOSTILE,
    "\x1b]0;owned\x07", "\x1b]52;c;b3duZWQ=\x07", "\x1bP+q544e\x1b\\", "\x1b[?1005h", "\x9b31m", "\x1bc", "\x1b[6n",
    "\u2066evil\u2069", "\u200fevil", "\ufeffevil", "\x85", "\u2028", "\u2764\ufe0f", "\U0001f44d\U0001f3fd",
    "\U0001f1eb\U0001f1f7", "1\ufe0f\u20e3", "a\u0300\u0301\u0302\u0303", "[bold red]x[/]", "[@click=app.quit]x[/]",
    "=cmd|'/c calc'!A1", "<script>alert(1)</script>", f"<img src=x onerror={OWNED}>", f'"><svg onload={OWNED}>',
    f"</script><script>{OWNED}</script>", "</text></svg><!--", "]]>", f"javascript:{OWNED}", "&lt;b&gt;&#27;[31m",
    '"}],"x":[{"', "$title ${data}", "`${1}`", '@SUM(1+1)*cmd|"/c"!A0', "+1", "-2", "\t=1+1", "\n=1+1", " =1",
    "\uff1d1", 'a,b\t"c";d', "\\u001b[31m", "\x1b[8m", "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "\ue000",
    "\U000e0041", "\ud800", "％s%n{0}", "\x08\x08\x08",
)  # fmt: skip
# C1 controls, bidi and zero-width marks, line separators, variation selectors and tags, as UTF-8.
RAW = re.compile(
    rb"\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf|\xef\xb8[\x80-\x8f]|\xf3\xa0[\x80-\x87].|\xee\x80"
)
SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
CONTROL = re.compile(rb"[\x00-\x06\x09\x0b\x0c\x0e\x10-\x1a\x1c-\x1f\x7f]")


NAME = "\x1b]0;owned\x07m<b onclick=1>=1"
"""A model that is called so."""


def record(path: Path, texts: tuple[str, ...], name: str) -> Path:
    """A recording with these as tokens, names, findings and branches."""
    info = make_info(4, 8, 2)
    sites = tuple(replace(site, name=f"L{site.index}{name}") for site in info.sites)
    info = replace(info, name=name, architecture=name, device=name, sites=sites)
    kept = KeptSteps(info)
    make_timeline(info, timeline=kept, prompt=8, decode=3 * len(texts), vocabulary=dict(enumerate(texts)))
    write(path, info, kept, texts, name)
    return path


def write(path: Path, info: ModelInfo, kept: KeptSteps, texts: tuple[str, ...], name: str) -> None:
    passed = 0
    with TraceWriter(path, info, prompt=name, settings=GenerationSettings()) as writer:
        writer.write_event(BranchAdded(Branch(0, 0, name, prompt=name)))
        for step in kept.steps:
            ids = np.arange(passed, passed + step.num_tokens, dtype=np.int32) % len(texts)
            writer.write_step(replace(step, token_id=ids))
            passed += step.num_tokens
        for text in texts:
            writer.write_event(FindingRaised(Finding("x", "warning", text or "-", text, text)))


def assert_inert(written: bytes) -> None:
    """Nothing in bytes that a terminal would act on, or that is not what it looks like.

    Raises:
        AssertionError: there is, with it.
    """
    for found in (CONTROL.search(written), RAW.search(written), re.search(rb"\x1b", written)):
        assert not found, (found, written[max(0, found.start() - 60) : found.end() + 60])
    written.decode("utf-8")
