"""Tables in any width: what is shown of a number is all of it."""

from __future__ import annotations

import math
import re
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding

from moetui.console.draw import heat, table
from moetui.console.tables import tables_of

HEADS = ("site", "same text: overlap", "first choice", "KL", "all: overlap", "first choice", "load moved")
ROWS = [(f"L{site}", "100%", "97%", "0.001", "41%", "37%", f"{site}1.1%") for site in range(12)]


def drawn(shown: RenderableType, width: int) -> list[str]:
    out = StringIO()
    Console(file=out, width=width, color_system=None).print(shown)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [200, 100, 80, 60])
def test_a_comparison_shows_all_its_numbers(width: int) -> None:
    lines = drawn(table(HEADS, ROWS, left=("site",)), width)
    assert "0.001" in lines[-1]
    assert lines[-1].split() == list(ROWS[-1])
    assert all(cell_len(line) <= width for line in lines)
    assert " ".join(lines[0].split()) == " ".join(HEADS) or width < 100


@pytest.mark.parametrize("width", [100, 40])
def test_a_column_without_a_head_and_with_nothing_in_it_takes_no_other_s_place(width: int) -> None:
    shown = table(("#", "", "ms"), [("1", "", "5.25"), ("2", "", "6.5")], left=("",))
    assert drawn(Padding(shown, expand=False), width)[0].split() == ["#", "ms"]


@given(
    st.integers(20, 120),
    st.lists(st.tuples(st.text("abc ", max_size=30), st.floats(-1e6, 1e6)), min_size=1, max_size=5),
    st.integers(1, 6),
)
def test_a_number_is_whole_or_not_there(width: int, rows: list[tuple[str, float]], columns: int) -> None:
    numbers = [[f"{value * 10**place:.3f}" for place in range(columns)] for _, value in rows]
    heads = ("text", *(f"number {place}" for place in range(columns)))
    lines = drawn(table(heads, [(name, *each) for (name, _), each in zip(rows, numbers)], left=("text",)), width)
    assert all(cell_len(line) <= width for line in lines)
    shown = {token for line in lines for token in re.findall(r"-?\d+\.\d+|-?\d+\.(?!\d)", line)}
    assert shown <= {token for each in numbers for token in each}
    missing = columns - max(sum(token in numbers[-1] for token in line.split()) for line in lines)
    assert not missing or lines[-1].startswith("no room for: ")


@pytest.mark.parametrize("width", [120, 80, 60, 50])
def test_parts_of_a_list_are_whole_at_any_width(width: int) -> None:
    heads, lists = ("site", "chosen", "next", "margin", " "), ("chosen", "next", " ")
    row = ("L0", "E3 0.62  E12 0.38  E7 0.11", "E5 21%  E11 12%  E0 7%", "-0.21", "forced, dropped")
    shown = table(heads, [row, row], left=("site", *lists), lists=lists)
    lines = drawn(shown, width)
    assert all(cell_len(line) <= width for line in lines)
    text = "\n".join(lines)
    for part in ("E3 0.62", "E12 0.38", "E7 0.11", "E5 21%", "E11 12%", "E0 7%", "-0.21", "forced", "dropped"):
        assert text.count(part) == 2, part
    assert "…" not in text
    assert len(lines) == 3 or width < 100
    assert list(shown.plain_rows())[1][1] == row[1]


def test_texts_are_cut_before_a_column_goes() -> None:
    lines = drawn(table(("what", "share"), [("a very long name of something", "12.5%")], left=("what",)), 20)
    assert lines[1].split() == ["a", "very", "long…", "12.5%"] or lines[1].endswith("12.5%")
    assert "…" in lines[1]


@pytest.mark.parametrize(("experts", "room"), [(8, 80), (8, 24), (64, 80), (128, 80), (512, 120), (512, 40)])
def test_a_heatmap_is_folded_to_the_room_there_is(experts: int, room: int) -> None:
    values = np.zeros((2, experts))
    values[0, 0], values[1, -1], values[1, 1] = 2.0, 2.0, math.nan
    made = heat(values, ["L0", "L10"], 2.0, legend="load", beside=[("1,024", "0.50"), ("7", "1.00")])
    ruler, first, second, *said = drawn(made, room)
    assert all(len(line) <= room for line in (ruler, first, second))
    assert first.split()[0] == "L0"
    assert first.split()[1].startswith("█")
    assert first.split()[-2:] == ["1,024", "0.50"]
    assert "█" in second
    assert "…" not in ruler + first + second
    assert ("a cell: max of" in " ".join(said)) == (experts > room - 16)
    assert [len(row) for row in tables_of([made])[0].plain_rows()] == [experts + 1] * 3
