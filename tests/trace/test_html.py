import base64
import hashlib
import html
import io
import json
import math
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest

from moetui.routing import Phase
from moetui.routing.events import Finding, FindingRaised
from moetui.trace import TraceWriter, export, open_trace
from tests.trace.trace_cases import make_info, make_steps

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\x1b]0;x\x07",
    "\u202egnp.exe",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "$title ${data}",
    "\udce2\udc80",
    "\n",
]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.texts = [], [], [], []
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._in = tag

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        (self.scripts if self._in == "script" else self.texts).append(data)


def page_of(path):
    stream = io.BytesIO()
    with open_trace(path) as trace:
        export(trace, "html", stream)
    return stream.getvalue().decode()


@pytest.fixture
def hostile(tmp_path):
    info = make_info(name=HOSTILE[0])
    info = replace(info, sites=tuple(replace(site, name=HOSTILE[1] + str(site.index)) for site in info.sites))
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in make_steps(info):
            writer.write_step(replace(step, vocabulary=dict(zip(range(100), HOSTILE * 10))))
        writer.write_event(FindingRaised(Finding("x", "error", HOSTILE[0], HOSTILE[1], HOSTILE[4])))
    return tmp_path / "x.msgpack"


def test_hostile_strings_stay_text(hostile):
    text = page_of(hostile)
    page = Page(text)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert any("alert(1)" in each for each in page.texts)
    data = json.loads(page.scripts[0])
    assert {row[1] for row in data["tokens"]["rows"]} & {HOSTILE[0], HOSTILE[4], HOSTILE[7]}


def test_loads_nothing_and_allows_its_own_script_only(hostile):
    text = page_of(hostile)
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "")
    assert not any(name in ("src", "href") for name, _ in page.attributes)
    policy = next(value for name, value in page.attributes if name == "content" and "src" in value)
    assert policy.startswith("default-src 'none'")
    hashed = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{hashed}'" in policy
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MEASURE = """<script>
    const over = [...document.querySelectorAll(".scroll")].map((each) => each.scrollWidth - each.clientWidth);
    parent.document.title = [innerWidth, document.documentElement.scrollWidth, ...over].join(" ");
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser, and there is no chromium")
def test_everything_fits_a_phone(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in steps:
            writer.write_step(step)
    page = re.sub("<meta http-equiv=[^\n]*", "", page_of(tmp_path / "x.msgpack"))  # or nothing could be measured
    page = html.escape(page.replace("</body>", f"{MEASURE}</body>"))  # in a frame: windows have a least width
    frame = f'<title></title><iframe style="border: 0" width="390" height="844" srcdoc="{page}"></iframe>'
    (tmp_path / "x.html").write_text(frame)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
             "--hide-scrollbars", "--dump-dom", (tmp_path / "x.html").as_uri()],
            capture_output=True, timeout=120, check=True,
        )  # fmt: skip
    found = re.search("<title>([0-9 ]+)</title>", done.stdout.decode())
    width, needed, heatmap, balance = map(int, found[1].split())
    assert (width, needed) == (390, 390)
    assert (heatmap, balance) == (0, 0)


def test_numbers_are_those_of_the_recording(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in steps:
            writer.write_step(step)
    data = json.loads(Page(page_of(tmp_path / "x.msgpack")).scripts[0])
    with open_trace(tmp_path / "x.msgpack") as trace:
        stats, block = trace.stats(), trace.timeline.routing(0, 12)
        assert [site["loads"] for site in data["sites"]] == [site["loads"] for site in stats["per_site"]]
        tokens = data["tokens"]
        indices = np.frombuffer(base64.b64decode(tokens["indices"]), "<u2").reshape(12, 2, tokens["slots"])
        assert (indices == block.indices).all()
        weights = np.frombuffer(base64.b64decode(tokens["weights"]), "<i2").reshape(12, 2, 2)
        np.testing.assert_allclose(weights / tokens["weight_parts"], block.weights, atol=1e-4)
        assert [row[0] for row in tokens["rows"]] == list(range(12))
        assert tokens["rows"][3][2] == pytest.approx(trace.timeline.tokens(3, 4).entropy[0], abs=1e-4)


def test_large_and_negative_weights_are_what_they_are(tmp_path, info, steps):
    weights = np.full(steps[0].weights.shape, 0.25, np.float16)
    weights[0, 0] = (9.5, -0.5)
    weights[0, 1, 0] = np.nan
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        writer.write_step(replace(steps[0], weights=weights))
    tokens = json.loads(Page(page_of(tmp_path / "x.msgpack")).scripts[0])["tokens"]
    packed = np.frombuffer(base64.b64decode(tokens["weights"]), "<i2").reshape(weights.shape)
    assert packed[0, 1, 0] == -0x8000
    shown = np.where(packed == -0x8000, np.nan, packed / tokens["weight_parts"])
    np.testing.assert_allclose(shown, weights, atol=5e-4)


def test_what_is_unknown_is_not_zero(tmp_path, info, steps):
    step = replace(steps[0], logits=None, started=math.nan, duration=math.nan)
    with TraceWriter(tmp_path / "x.msgpack", info, has_logits=False, has_weights=False) as writer:
        writer.write_step(replace(step, weights=None))
    data = json.loads(Page(page_of(tmp_path / "x.msgpack")).scripts[0])
    assert data["tokens"]["weights"] is None
    assert data["tokens"]["rows"][0][2:5] == [None, None, None]
    assert data["sites"][0]["mass"] is None


def test_of_a_long_recording_the_last_tokens_are_shown(tmp_path, info):
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in make_steps(info, prefill=5000, decode=1):
            writer.write_step(step)
    text = page_of(tmp_path / "x.msgpack")
    assert "The last 3,000 of 5,001 tokens." in text
    assert json.loads(Page(text).scripts[0])["tokens"]["rows"][-1][0] == 5000


def test_an_incomplete_recording_says_so(hostile):
    hostile.write_bytes(hostile.read_bytes()[:-30])
    text = page_of(hostile)
    assert "This recording is incomplete." in text
    assert re.search(r"cut off; 12 tokens", text)


NODE = shutil.which("node")
_BROWSER = """
const drawn = [], heard = {};
const pen = new Proxy({}, {
  get: (own, name) => own[name] ?? ((...args) => drawn.push([name, ...args])),
  set: (own, name, value) => ((own[name] = value), true),
});
const element = () => ({
  style: {}, classList: { add() {}, remove() {} }, children: [], setAttribute() {}, append() {},
  addEventListener(name, work) { heard[name] ??= work; },
});
const heat = {
  ...element(), parentElement: { clientWidth: ROOM }, getContext: () => pen,
  getBoundingClientRect: () => ({ top: 0, left: 0 }),
};
const readout = element();
const parts = { heat, data: { textContent: DATA }, "heat-readout": readout };
const found = (id) => parts[id] ?? (parts[id] = element());
globalThis.document = { documentElement: {}, getElementById: found, createElement: element };
globalThis.window = { devicePixelRatio: 1, addEventListener() {}, matchMedia: element };
globalThis.getComputedStyle = () => ({ getPropertyValue: () => "#000000" });
globalThis.atob = (text) => Buffer.from(text, "base64").toString("binary");
SCRIPT
const texts = drawn.filter((each) => each[0] === "fillText").map(([, text, x, y]) => [text, x, y]);
const cells = drawn.filter((each) => each[0] === "fillRect").map(([, x, y, size]) => [x, y, size]);
heard.pointermove({ clientX: cells[2][0] + 1, clientY: cells[2][1] + 1 });
console.log(JSON.stringify({ texts, cells, told: readout.textContent }));
"""


@pytest.mark.skipif(NODE is None, reason="needs a JavaScript engine, and there is no node")
@pytest.mark.parametrize(("experts", "room", "step"), [(8, 800, 1), (128, 1100, 4), (256, 400, 8)])
def test_the_heatmap_has_the_experts_numbers_above_their_columns(experts, room, step):
    sites = [{"name": f"L{n}", "loads": [1] * experts, "mass": None, "routed": True} for n in range(2)]
    tokens = {"rows": [], "slots": 0, "indices": "", "weights": None, "weight_parts": 1}
    script = resources.files("moetui.trace.exporters").joinpath("page.js").read_text("utf-8")
    program = _BROWSER.replace("ROOM", str(room)).replace(
        "DATA", json.dumps(json.dumps({"sites": sites, "tokens": tokens}))
    )
    program = program.replace("SCRIPT", script)
    done = subprocess.run([NODE, "-e", program], capture_output=True, text=True, check=True, timeout=60)
    told = json.loads(done.stdout)
    numbers = [each for each in told["texts"] if not each[0].startswith("L")]
    assert [text for text, _, _ in numbers] == [str(number) for number in range(0, experts, step)]
    columns = [cell for cell in told["cells"] if cell[1] == told["cells"][0][1]]
    for text, x, y in numbers:
        left, top, size = columns[int(text)]
        assert left <= x <= left + size + 1
        assert y < top
    assert told["told"].startswith("L0 · expert 2: 1 tokens"), "what is pointed at is what is drawn there"


@pytest.mark.parametrize("decoded", [True, False])
def test_the_rate_says_what_it_is_of(tmp_path, decoded):
    info = make_info()
    steps = [step for step in make_steps(info) if decoded or step.phase is Phase.PREFILL]
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in steps:
            writer.write_step(step)
    texts = Page(page_of(tmp_path / "x.msgpack")).texts
    assert ("tokens/s of the decode steps" in texts, "tokens/s" in texts) == (decoded, not decoded)
