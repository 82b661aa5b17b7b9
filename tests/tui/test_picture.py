"""The Network screen as a picture: the app without a terminal, in a file that fetches nothing."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

from moetui.routing import TraceError
from moetui.tui.picture import PictureApp, network_svg
from moetui.tui.svg import self_contained
from moetui.tui.widgets.token_detail import TokenDetail
from tests.hostile import CORPUS
from tests.tui.builders import make_info
from tests.tui.recordings import write_recording


def words(svg: str) -> str:
    """The text of a picture, line by line, as it is read."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        lines.setdefault(float(text.get("y", "0")), []).append((float(text.get("x", "0")), text.text or ""))
    return "\n".join(" ".join(part for _, part in sorted(lines[y])) for y in sorted(lines)).replace("\xa0", " ")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("traces") / "river.msgpack")


def test_the_whole_screen_stands_at_the_end_of_the_recording(trace: Path) -> None:
    shown = words(network_svg(trace))
    for part in (
        "river.msgpack",
        "Mixtral 6×8 top-2",
        "finished",
        "token 37/37",
        "load share",
        "L5",
        "token 36",
        "fairness",
    ):
        assert part in shown, shown


def test_nothing_is_fetched(trace: Path) -> None:
    svg = network_svg(trace)
    assert "@font-face" not in svg
    assert set(re.findall(r"url\((.)", svg)) <= {"#"}
    elements = list(ElementTree.fromstring(svg).iter())
    assert not [name for element in elements for name in element.attrib if name.endswith(("href", "src"))]
    assert {element.tag.rpartition("}")[2] for element in elements} <= {
        *("svg", "style", "defs", "clipPath", "rect", "text", "g", "circle"),
    }  # fmt: skip


def test_the_same_recording_gives_the_same_picture_whatever_the_environment(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = network_svg(trace)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "20")
    assert network_svg(trace) == first
    assert len(set(re.findall(r"fill: (#\w{6})", first))) > 6


def test_a_picture_has_the_size_asked_for(trace: Path) -> None:
    small, usual = (
        ElementTree.fromstring(network_svg(trace, size)).get("viewBox", "") for size in ((80, 24), (120, 40))
    )
    assert float(small.split()[2]) < float(usual.split()[2])


@pytest.mark.parametrize("tokens", [27, 35])
def test_the_selected_row_is_in_the_picture(tmp_path: Path, tokens: int) -> None:
    trace = write_recording(tmp_path / "x.msgpack", prompt=4, decode=tokens - 4)
    for size in ((80, 24), (120, 40), (100, 30)) * 2:
        shown = words(network_svg(trace, size))
        assert re.search(rf"▌ +{tokens - 1} ", shown), (size, shown)


def test_a_picture_can_be_drawn_while_an_event_loop_runs(trace: Path) -> None:
    async def inside() -> str:
        return network_svg(trace)

    assert asyncio.run(inside()) == network_svg(trace)


def test_a_bug_in_the_drawing_is_said_and_not_waited_for(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError("a line that is not there")

    monkeypatch.setattr(TokenDetail, "render_line", broken)
    with pytest.raises(IndexError, match="a line that is not there"):
        network_svg(trace)


def test_an_interrupt_ends_a_picture_that_is_not_done(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = threading.current_thread().ident
    assert caller is not None
    asked: list[None] = []

    def settled(_: PictureApp) -> bool:
        if not asked:
            signal.pthread_kill(caller, signal.SIGINT)
        asked.append(None)
        return False

    monkeypatch.setattr(PictureApp, "settled", property(settled))
    with pytest.raises(KeyboardInterrupt):
        network_svg(trace)


def test_no_token_text_breaks_the_file(tmp_path: Path) -> None:
    texts = [*CORPUS, "</text><script>alert(1)</script>", "&amp;", "\ufffe", "a\xa0b"]
    info = make_info(sites=2, experts=4)
    vocabulary = dict(enumerate(texts * 2))
    svg = network_svg(write_recording(tmp_path / "h.msgpack", info, decode=60, vocabulary=vocabulary))
    root = ElementTree.fromstring(svg)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", svg)


def test_a_recording_without_tokens_has_a_picture(tmp_path: Path) -> None:
    assert "token 0/0" in words(network_svg(write_recording(tmp_path / "empty.msgpack", prompt=0, decode=0)))


def test_what_is_no_recording_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(b"no trace")
    with pytest.raises(TraceError):
        network_svg(path)


def test_no_terminal_and_no_torch_are_needed(trace: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from moetui.tui.picture import network_svg\n"
        f"svg = network_svg(Path({str(trace)!r})); assert svg.startswith('<svg'); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL, start_new_session=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("False\n", "", 0)


def test_every_piece_of_text_stands_at_its_own_cell() -> None:
    words = "&#160;&#160;a&#160;b&#160;&#160;&#160;&lt;c"
    line = f'<text class="a" x="12.2" y="20" textLength="122" clip-path="url(#c)">{words}</text>'
    pieces = [(node.get("x"), node.text) for node in ElementTree.fromstring(f"<g>{self_contained(line)}</g>")]
    assert pieces == [("36.6", "a\xa0b"), ("109.8", "<c")]
