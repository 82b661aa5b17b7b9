"""Python at the console, on a recording: what runs, what is shown, what is caught."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from moetui.console import Console
from moetui.console.python import needs_more
from moetui.console.summaries import summary
from tests.console.conftest import drawn


def test_names_live_as_long_as_the_console(console: Console) -> None:
    assert console.run("x = 3").renderables == ()
    assert console.run("x * 2").data == 6
    assert console.run("_ + 1").data == 7
    assert console.run("def f(n):\n    return n + x\n\nf(1)").data == 4
    assert console.run("[f(i) for i in range(3)]").data == [3, 4, 5]


def test_the_trace_stands_still_during_a_line(console: Console) -> None:
    assert console.run("trace.end").data == 30
    assert console.run("trace.tokens(0, 3).token_id.tolist()").data == [13, 14, 15]
    assert "tokens 0 to 29 at 3 sites" in drawn(console.run("trace"))


def test_what_is_printed_is_shown_before_the_value_and_safe(console: Console) -> None:
    result = console.run("import sys\nprint('a\\x1b[2J', end='')\nprint('b', file=sys.stderr)\n5")
    assert drawn(result).splitlines() == ["a␛[2Jb", "5"]
    assert result.data == 5


def test_other_threads_print_where_they_always_did(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    console.run("import threading")
    result = console.run("t = threading.Thread(target=print, args=('elsewhere',)); t.start(); t.join(); print('here')")
    assert drawn(result) == "here\n"
    assert capsys.readouterr().out == "elsewhere\n"
    assert not type(sys.stdout).__module__.startswith("moetui")


def test_a_thread_that_prints_while_lines_end_prints_to_something_that_lives(console: Console) -> None:
    before = sys.stdout
    console.run("import sys; first = sys.stdout")
    assert console.run("sys.stdout is first").data is True  # print() may hold it without a reference
    assert sys.stdout is before
    assert console.run("print('caught')").renderables


def test_a_flood_is_cut(console: Console) -> None:
    result = console.run("print('y' * 10_000_000)\nfor i in range(5000): print(i)")
    assert sum(len(row) for row in drawn(result).splitlines()) < 1_000_000
    assert "characters more" in drawn(result)
    lines = drawn(console.run("for i in range(5000): print(i)")).splitlines()
    assert len(lines) < 300
    assert lines[-1].endswith("lines more")
    assert len(drawn(console.run("list(range(10**6))"))) < 5000
    assert len(drawn(console.run("'z' * 10**7"))) < 10_000
    assert "bits" in drawn(console.run("10 ** 10 ** 5"))


@pytest.mark.parametrize(
    ("source", "error", "hint"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero", ""),
        ("x = 1\ny = 2\nz", "NameError: name 'z' is not defined (line 3)", ""),
        (
            "model.layers",
            "NameError: name 'model' is not defined",
            "there is no model here: 'moetui run MODEL' opens one",
        ),
        ("tokn", "NameError: name 'tokn' is not defined", "did you mean 'tokens'?"),
        ("ban_expert 3", "no such command: ban_expert", "did you mean 'ban_experts'?"),
        ("(1,", "SyntaxError: '(' was never closed", ""),
        ("exit()", "this would end the model's thread", "q leaves moetui"),
        ("input()", "there is no keyboard to read from here", ""),
        ("import sys; sys.exit(3)", "SystemExit: 3", ""),
        ("raise KeyboardInterrupt", "interrupted", ""),
        ("raise GeneratorExit", "GeneratorExit", ""),
        ("def f(): return f()\nf()", "RecursionError", ""),
        ("moe.generate('x')", "a recording cannot generate", "'moetui run MODEL' opens a model"),
        ("[moe.expert('L1', i) for i in (1, 99)]", "expert: 99 is no expert of this model", "experts 0 to 5"),
        ("moe.nothing()", "AttributeError: moe has no command nothing", ""),
        ("raise ValueError('\\x1b[2J\\nsecond')", "ValueError: ␛[2J second", ""),
        ("\x00", "", ""),
    ],
)
def test_errors_are_one_safe_line(console: Console, source: str, error: str, hint: str) -> None:
    result = console.run(source)
    assert result.error
    assert error in result.error
    assert hint in result.hint
    assert "\n" not in result.error
    assert "\x1b" not in result.error
    assert not result.error.startswith("internal error")


def test_an_error_deeper_down_says_where(console: Console) -> None:
    text = drawn(console.run("np.ones((2, 3)) @ np.ones((2, 3))") or console.run("import json; json.loads('{')"))
    assert text == "" or "in " in text
    text = drawn(console.run("import json; json.loads('{')"))
    assert "decoder.py" in text
    assert "/" not in text, "where somebody's Python lies is nobody's business in a recording of the screen"


def test_what_was_printed_before_an_error_is_shown(console: Console) -> None:
    result = console.run("print('so far')\n1/0")
    assert drawn(result) == "so far\n"
    assert result.error


def test_a_line_can_be_interrupted(console: Console) -> None:
    started = threading.Event()
    console.run("import threading")
    console.run("import itertools")
    console._python.names["started"] = started
    done = []
    thread = threading.Thread(
        target=lambda: done.append(console.run("started.set()\nfor _ in itertools.count(): pass")), daemon=True
    )
    thread.start()
    assert started.wait(10)
    console.interrupt()
    thread.join(10)
    assert done
    assert done[0].error == "interrupted"
    console.interrupt()
    assert console.run("1 + 1").data == 2, "an interruption that came too late hits nobody"


def test_interruptions_hit_the_line_and_nothing_after_it(console: Console) -> None:
    escaped: list[BaseException] = []
    errors: set[str] = set()
    over = threading.Event()

    def work() -> None:
        try:
            for _ in range(120):
                errors.add(console.run("for i in range(300): i").error)
        except BaseException as error:  # noqa: BLE001 - it is what is looked for
            escaped.append(error)
        over.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while not over.is_set():
        console.interrupt()
    thread.join(10)
    assert not escaped
    assert errors <= {"", "interrupted"}


@pytest.mark.parametrize(
    ("source", "more"),
    [
        ("x = (1,", True),
        ("x = '''a", True),
        ("for i in range(3):", True),
        ("for i in range(3):\n    print(i)", True),
        ("for i in range(3):\n    print(i)\n", False),
        ("def f():\n    if x:\n        pass", True),
        ("x = 1", False),
        ("x = 1\ny = 2", False),
        ("x = )", False),
        ("@decorator", True),
        ("", False),
        ("\x00", False),
    ],
)
def test_a_statement_that_is_not_finished_asks_for_more(source: str, more: bool) -> None:
    assert needs_more(source) is more


def test_a_bare_command_never_asks_for_more(console: Console) -> None:
    assert not console.needs_more('generate "once')
    assert not console.needs_more("find (layer:1")
    assert console.needs_more("moe.find(")


class Tensorlike:
    """What a tensor looks like from outside."""

    def __init__(self, array: np.ndarray, device: str = "cuda:0") -> None:
        self._array, self.device, self.requires_grad = array, device, True
        self.shape, self.ndim = array.shape, array.ndim
        self.dtype = f"torch.{array.dtype}"

    def detach(self) -> Tensorlike:
        return self

    def reshape(self, *shape: int) -> Tensorlike:
        return Tensorlike(self._array.reshape(*shape))

    def __getitem__(self, key: slice) -> Tensorlike:
        return Tensorlike(self._array[key])

    def double(self) -> Tensorlike:
        return self

    cpu = double

    def numpy(self) -> np.ndarray:
        return self._array


def test_arrays_are_summarised() -> None:
    values = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    (line,) = summary(values)
    assert line.startswith("float32 50×40  ")
    assert f"{values.min():.4g} … {values.max():.4g}" in line
    assert "█" in line
    (line,) = summary(Tensorlike(values))
    assert line.startswith("float32 50×40 cuda:0 grad  ")
    assert summary(np.float32(1.5)) == ["float32 scalar  1.5"]
    assert summary(np.array([1, 2, 3])) == ["int64 3  [1, 2, 3]"]
    assert summary(np.empty((0, 3))) == ["float64 0×3"]
    values[3, 3], values[4, 4] = np.nan, np.inf
    assert "2 not finite" in summary(values)[0]
    assert summary(np.full((20,), np.nan))[0].endswith("20 not finite")
    assert "of a sample" in summary(np.zeros(500_000))[0]
    assert summary(np.array(["a", "b"])) == ["<U1 2"]
    assert summary(np.array([None, {}], object)) == ["object 2"]
    assert summary(Tensorlike(values, "meta")) == ["float32 50×40 meta grad"]
    assert summary(np.ones(9, np.complex64)) == ["complex64 9"]


def test_containers_of_arrays_are_summarised_item_by_item() -> None:
    lines = summary({"logits": np.zeros((3, 4)), "n": 3, "more": (np.ones(2), np.ones(3))})
    assert lines[0] == "dict"
    assert lines[1].startswith("  logits: float64 3×4")
    assert lines[2] == "  n: 3"
    assert lines[3] == "  more: tuple of 2"
    assert lines[4].strip() == "0: float64 2  [1, 1]"
    assert len(summary([np.zeros(1)] * 1000)) < 20


def test_a_value_that_cannot_be_shown_says_so() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert summary(Broken()) == ["<Broken, which cannot be shown: RuntimeError>"]

    class Endless:
        shape = dtype = ndim = property(lambda self: 1 / 0)

    assert summary(Endless())[0].startswith("<Endless, which cannot be shown") or "Endless" in summary(Endless())[0]
