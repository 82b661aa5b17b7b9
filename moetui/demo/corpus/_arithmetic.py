"""Arithmetic that is right: expressions worked out step by step, tables, word problems, equations, comparisons."""

from dataclasses import dataclass
from random import Random

_PEOPLE = ("Tom", "Ana", "Ravi", "Lin", "Sara", "Ken", "Zoe", "Omar")
_OBJECTS = ("apples", "books", "coins", "pens", "stamps", "cards", "eggs", "shells")


@dataclass(frozen=True, slots=True)
class _Node:
    """A binary expression of integers; `left` and `right` are nodes or numbers."""

    operator: str
    left: "_Node | int"
    right: "_Node | int"


def _value(node: _Node | int) -> int:
    if isinstance(node, int):
        return node
    left, right = _value(node.left), _value(node.right)
    match node.operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case _:
            return left * right


def _tree(rng: Random, depth: int) -> _Node | int:
    if depth == 0:
        return rng.randint(1, 9)
    deeper, other = _tree(rng, depth - 1), _tree(rng, rng.choice((0, 0, depth - 1)))
    left, right = (deeper, other) if rng.random() < 0.7 else (other, deeper)
    operators = ["+", "-"] if _value(left) >= _value(right) else ["+"]
    if abs(_value(left)) <= 12 and abs(_value(right)) <= 9:
        operators.append("*")
    return _Node(rng.choice(operators), left, right)


def _written(node: _Node | int, top: bool = True) -> str:
    if isinstance(node, int):
        return str(node)
    text = f"{_written(node.left, False)} {node.operator} {_written(node.right, False)}"
    return text if top else f"({text})"


def _reduced(node: _Node | int) -> _Node | int:
    """One step: every innermost operation is replaced by its value."""
    if isinstance(node, int):
        return node
    if isinstance(node.left, int) and isinstance(node.right, int):
        return _value(node)
    return _Node(node.operator, _reduced(node.left), _reduced(node.right))


def _worked(rng: Random) -> str:
    lines = []
    for _ in range(rng.randint(3, 6)):
        node = _tree(rng, rng.choice((1, 1, 2, 2, 3)))
        steps = [_written(node)]
        while not isinstance(node, int):
            node = _reduced(node)
            steps.append(_written(node))
        lines.append(" = ".join(steps))
    return "\n".join(lines)


def _table(rng: Random) -> str:
    factor, start, length = rng.randint(2, 12), rng.randint(1, 4), rng.randint(5, 9)
    operator = rng.choice("*+*-")
    if operator == "-":
        start += factor
    apply = {"*": int.__mul__, "+": int.__add__, "-": int.__sub__}[operator]
    return "\n".join(
        f"{number} {operator} {factor} = {apply(number, factor)}" for number in range(start, start + length)
    )


def _word_problem(rng: Random) -> str:
    name, other = rng.sample(_PEOPLE, 2)
    thing, have, more = rng.choice(_OBJECTS), rng.randint(2, 20), rng.randint(2, 9)
    kind = rng.choice(("gain", "lose", "boxes", "share"))
    if kind == "gain":
        story = f"{name} has {have} {thing}. {other} gives {name} {more} more {thing}."
        result, work = have + more, f"{have} + {more} = {have + more}"
    elif kind == "lose":
        have += more
        story = f"{name} has {have} {thing}. {name} gives {more} {thing} to {other}."
        result, work = have - more, f"{have} - {more} = {have - more}"
    elif kind == "boxes":
        have = rng.randint(2, 9)
        story = f"{name} has {have} boxes. There are {more} {thing} in every box."
        result, work = have * more, f"{have} * {more} = {have * more}"
    else:
        result = rng.randint(2, 9)
        story = f"{name} has {result * more} {thing} and shares them equally among {more} friends."
        work = f"{result * more} / {more} = {result}"
        return f"Question: {story} How many {thing} does every friend get?\nWork: {work}\nAnswer: {result} {thing}"
    return f"Question: {story} How many {thing} does {name} have now?\nWork: {work}\nAnswer: {result} {thing}"


def _equations(rng: Random) -> str:
    lines = []
    for _ in range(rng.randint(2, 4)):
        letter, x, b = rng.choice("xyn"), rng.randint(1, 12), rng.randint(1, 9)
        if rng.random() < 0.5:
            lines.append(f"{letter} + {b} = {x + b}, so {letter} = {x + b} - {b} = {x}")
        else:
            lines.append(f"{b} * {letter} = {b * x}, so {letter} = {b * x} / {b} = {x}")
    return "\n".join(lines)


def _comparisons(rng: Random) -> str:
    lines = []
    for _ in range(rng.randint(3, 6)):
        left, right = _tree(rng, 1), _tree(rng, 1)
        a, b = _value(left), _value(right)
        sign = "=" if a == b else "<" if a < b else ">"
        lines.append(f"{_written(left)} {sign} {_written(right)} because {a} {sign} {b}")
    return "\n".join(lines)


def document(rng: Random) -> str:
    """One sheet of exercises of a single kind; every statement in it holds."""
    kinds = (_worked, _worked, _worked, _table, _word_problem, _word_problem, _equations, _comparisons)
    kind = rng.choice(kinds)
    if kind is _word_problem:
        return "\n\n".join(kind(rng) for _ in range(rng.randint(1, 3)))
    return kind(rng)
