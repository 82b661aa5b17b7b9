"""Random and hostile lines: nothing crashes, nothing is drawn raw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moetui.console import Console
from moetui.console.commands import registry
from moetui.session import ReplaySession
from tests.console.conftest import drawn

NAMES = registry().names
WORDS = st.sampled_from(
    [
        *(
            "--layers",
            "--json",
            "--last",
            "--",
            "-n",
            "--rows",
            "0",
            "-1",
            "1,2",
            "2-1",
            "0-99999999999",
            "L0",
            "L9",
            "nan",
        ),
        *(
            "1e400",
            "entropy>1",
            'token:"',
            "'",
            '"',
            "(",
            ")",
            "((((",
            "\\",
            "\x1b[2J",
            "\u202e",
            "\x00",
            "\ud800",
            "🦀",
        ),
        *(
            "layer:1",
            "artificial",
            "run",
            "[0, 1]",
            "True",
            "None",
            "=",
            "==",
            "not",
            "or",
            ",",
            "../..",
            "~",
            "/dev/null",
        ),
    ]
)
LINES = st.one_of(
    st.text(max_size=40),
    st.builds(lambda name, words: " ".join([name, *words]), st.sampled_from(NAMES), st.lists(WORDS, max_size=6)),
    st.builds(
        lambda name, words: f"moe.{name}({', '.join(words)})", st.sampled_from(NAMES), st.lists(WORDS, max_size=3)
    ),
    st.builds(
        lambda name, key, value: f"moe.{name}({key}={value!r})",
        st.sampled_from(NAMES),
        st.sampled_from(["layers", "query", "token", "site", "rows", "last", "path", "name", "experts"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
            max_leaves=5,
        ),
    ),
)
OFF_LIMITS = ("save", "export", "loop", "continue")  # they write, or set the replay going


@pytest.fixture(scope="module")
def fuzzed(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    session = ReplaySession(recording, start="end", paused=True)
    session.open()
    assert session.wait(10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fuzz"))
        yield Console(session, python=False)
    session.close()


@settings(deadline=None, max_examples=800, suppress_health_check=list(HealthCheck))
@given(line=LINES)
def test_no_line_crashes(fuzzed: Console, line: str) -> None:
    if any(word in line for word in OFF_LIMITS):
        return
    result = fuzzed.run(line)
    assert not result.error.startswith("internal error"), (line, result.error)
    assert "\n" not in result.error
    text = drawn(result) + result.error + result.hint
    assert not set(text) & set("\x1b\x00\x07\u202e\ud800"), line


@settings(deadline=None, max_examples=500, suppress_health_check=list(HealthCheck))
@given(line=LINES, cursor=st.integers(-3, 60))
def test_completion_never_raises(fuzzed: Console, line: str, cursor: int) -> None:
    found = fuzzed.complete(line, cursor)
    assert 0 <= found.start <= max(0, min(cursor, len(line)))
    assert isinstance(fuzzed.hint(line, cursor), str)
    assert isinstance(fuzzed.needs_more(line), bool)


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(line=st.text(st.characters(codec="utf-8"), max_size=30))
def test_python_takes_any_text(replay: ReplaySession, line: str) -> None:
    result = Console(replay).run(line)
    assert not result.error.startswith("internal error"), (line, result.error)


@pytest.mark.parametrize(
    "line",
    [
        "(" * 5000,
        "moe.stats(" + "[" * 3000 + "]" * 3000 + ")",
        "find " + "(" * 2000,
        "find " + "not " * 3000 + "forced",
        "x" * 1_000_000,
        "experts --layers " + "0," * 40_000,
        "ban_experts " + "9" * 5000,
        "stats --last " + "9" * 5000,
        "help " + "a" * 10_000,
        "1+" * 5000 + "1",
        "why " + "a" * 50_000,
    ],
)
@pytest.mark.parametrize("python", [False, True])
def test_long_and_deep_lines_end_in_an_error(replay: ReplaySession, line: str, python: bool) -> None:
    result = Console(replay, python=python).run(line)
    assert not result.error.startswith("internal error"), result.error[:200]
    assert len(result.error) < 500
