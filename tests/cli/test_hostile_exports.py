"""What the commands write of a recording whose every string is hostile: nothing acts on whoever opens it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from moetui.routing import drawable
from moetui.routing.step import join_texts
from moetui.trace import open_trace
from tests.cli.conftest import Called
from tests.hostile import CORPUS, NAME, assert_inert, record

Export = Callable[[str], bytes]
MOETUI = [sys.executable, "-m", "moetui"]
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("hostile") / "hostile.msgpack", CORPUS, NAME)


@pytest.fixture(scope="module")
def texts(recording: Path) -> list[str]:
    """The tokens that went through the model, as the recording has them."""
    with open_trace(recording) as trace:
        view = trace.timeline
        return [view.text(number) for number in view.tokens(0, view.end).token_id.tolist()]


@pytest.fixture
def exported(recording: Path, call: Callable[..., Called], tmp_path: Path) -> Export:
    """An export by the command, as bytes."""

    def export(format_: str) -> bytes:
        path = tmp_path / f"out.{format_}"
        done = call("export", recording, "--format", format_, "-o", path)
        assert (done.status, done.out) == (0, "")
        assert_inert(done.err.encode())
        return path.read_bytes()

    return export


def test_the_corpus_went_through(texts: list[str]) -> None:
    assert set(texts) == {"?" if text == "\ud800" else text for text in CORPUS}, "no byte of a text is such a surrogate"


def test_the_json_is_json_and_keeps_every_text(exported: Export, texts: list[str]) -> None:
    written = exported("json")
    assert_inert(written)
    sample = json.loads(written)["samples"][0]
    assert sample["tokens"] == [join_texts([text]) for text in texts]


def test_the_csv_runs_nothing_in_a_spreadsheet(exported: Export, texts: list[str]) -> None:
    written = exported("csv")
    assert_inert(written)
    rows = list(csv.DictReader(io.StringIO(written.decode(), newline="")))
    assert not [value for row in rows for value in row.values() if value.lstrip().startswith(FORMULA)]
    seen = {row["token"] for row in rows}
    assert seen <= {drawable(text) for text in texts} | {f"'{drawable(text)}" for text in texts}
    assert "'=cmd|'/c calc'!A1" in seen


def test_the_parquet_file_keeps_every_text(exported: Export, texts: list[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet is an extra, and pyarrow is not installed")
    columns = parquet.read_table(io.BytesIO(exported("parquet"))).to_pydict()
    assert set(columns["token"]) == {join_texts([text]) for text in texts}, (
        "typed values for a program, none to be read"
    )


def test_the_chrome_trace_is_json(exported: Export) -> None:
    written = exported("chrome")
    assert_inert(written)

    def strings(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for key, each in value.items() for text in (key, *strings(each))]
        return [text for each in value for text in strings(each)] if isinstance(value, list) else [str(value)]

    assert_inert("\n".join(strings(json.loads(written))).encode())


class Page(HTMLParser):
    """A page's elements, attributes and text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data


def assert_passive(page: Page) -> None:
    assert page.tags.count("script") == 2
    assert not {"img", "svg", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for _, value in page.attributes if value and "javascript:" in value]


def test_the_page_is_passive(exported: Export) -> None:
    written = exported("html")
    assert_inert(written)
    page = Page(written.decode())
    assert_passive(page)
    assert "alert(1)" in page.words


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser, and there is no chromium")
def test_a_browser_runs_nothing_of_theirs(exported: Export, texts: list[str], tmp_path: Path) -> None:
    exported("html")
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom",
             (tmp_path / "out.html").as_uri()],
            capture_output=True, timeout=120, check=True,
        )  # fmt: skip
    page = Page(done.stdout.decode())
    assert_passive(page)
    assert "data-owned" not in dict(page.attributes)
    assert page.tags.count("span") > len(texts), "the page has drawn the tokens by its own script"


def test_the_picture_is_xml_without_anything_active(exported: Export) -> None:
    written = exported("svg")
    assert_inert(written)
    for element in ElementTree.fromstring(written).iter():
        tag = element.tag.rpartition("}")[2]
        assert tag in {"svg", "style", "defs", "clipPath", "rect", "g", "text", "circle"}, tag
        assert not [name for name in element.attrib if name.startswith("on") or name.endswith("href")]


@pytest.mark.parametrize("args", [("stats",), ("stats", "--json"), ("diff",), ("diff", "--json"), ("doctor",)])
def test_what_is_printed_is_inert(recording: Path, tmp_path: Path, args: tuple[str, ...]) -> None:
    other = record(tmp_path / "\x1b[31mother.msgpack", CORPUS[::-1], NAME)
    paths = {"stats": [other], "diff": [recording, other], "doctor": []}[args[0]]
    environ = {"TERM": CORPUS[0], "COLORTERM": NAME, "LANG": "C.UTF-8", "TMUX": NAME, "XDG_CONFIG_HOME": str(tmp_path)}
    command = [*MOETUI, args[0], *map(str, paths), *args[1:]]
    done = subprocess.run(command, capture_output=True, env={**_quiet(), **environ}, check=False)
    assert done.stdout
    assert done.returncode in (0, 1), done.stderr
    for written in (done.stdout, done.stderr):
        assert_inert(written)
        assert not re.search(rb"[\x07\x08\r]", written)


def _quiet() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith(("MOETUI", "NO_COLOR"))}
