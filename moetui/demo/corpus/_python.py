"""Python modules: functions and classes over names in scope, so that what they use is always defined."""

from collections.abc import Callable
from random import Random

_NOUNS = ("item", "word", "price", "score", "line", "user", "node", "value", "row", "point")
_TYPES = ("Counter", "Stack", "Account", "Timer", "Point", "Basket", "Queue", "Player", "Robot", "Shape")
_FIELDS = ("name", "size", "count", "limit", "color", "speed", "level", "total")
_Lines = list[str]


def _indent(lines: _Lines) -> _Lines:
    return [f"    {line}" if line else line for line in lines]


def _block(head: str, body: _Lines) -> _Lines:
    return [f"{head}:", *_indent(body)]


def _function(name: str, arguments: str, doc: str, body: _Lines, rng: Random) -> _Lines:
    return _block(f"def {name}({arguments})", [f'"""{doc}"""', *body] if rng.random() < 0.5 else body)


def _expression(rng: Random, names: list[str], depth: int) -> str:
    """An arithmetic expression over names and small numbers."""
    if depth == 0:
        return rng.choice(names) if rng.random() < 0.7 else str(rng.randint(1, 10))
    left, right = _expression(rng, names, depth - 1), _expression(rng, names, rng.choice((0, depth - 1)))
    if " " in right:
        right = f"({right})"
    if " " in left:
        left = f"({left})"
    return f"{left} {rng.choice('+-*')} {right}"


def _condition(rng: Random, name: str) -> str:
    return rng.choice(
        (
            f"{name} > {rng.randint(0, 10)}",
            f"{name} < {rng.randint(1, 20)}",
            f"{name} % {rng.randint(2, 5)} == 0",
            f"{name} != {rng.randint(0, 10)}",
            f"{name} > {rng.randint(0, 5)} and {name} < {rng.randint(6, 20)}",
        )
    )


def _sum(rng: Random) -> _Lines:
    noun = rng.choice(_NOUNS)
    step = f"total += {noun}" if rng.random() < 0.5 else f"total += {_expression(rng, [noun], 1)}"
    inner = _block(f"if {_condition(rng, noun)}", [step]) if rng.random() < 0.6 else [step]
    body = ["total = 0", *_block(f"for {noun} in {noun}s", inner), "return total"]
    return _function(f"sum_{noun}s", f"{noun}s", f"Add up the {noun}s.", body, rng)


def _count(rng: Random) -> _Lines:
    noun = rng.choice(_NOUNS)
    if rng.random() < 0.5:
        inner = [f"counts[{noun}] = counts.get({noun}, 0) + 1"]
        body = ["counts = {}", *_block(f"for {noun} in {noun}s", inner), "return counts"]
    else:
        inner = _block(f"if {_condition(rng, noun)}", ["count += 1"])
        body = ["count = 0", *_block(f"for {noun} in {noun}s", inner), "return count"]
    return _function(f"count_{noun}s", f"{noun}s", f"Count the {noun}s.", body, rng)


def _filter(rng: Random) -> _Lines:
    noun, verb = rng.choice(_NOUNS), rng.choice(("filter", "select", "keep"))
    condition = _condition(rng, noun)
    if rng.random() < 0.5:
        body = [f"return [{noun} for {noun} in {noun}s if {condition}]"]
    else:
        inner = _block(f"if {condition}", [f"result.append({noun})"])
        body = ["result = []", *_block(f"for {noun} in {noun}s", inner), "return result"]
    return _function(f"{verb}_{noun}s", f"{noun}s", f"Return the {noun}s that match.", body, rng)


def _find(rng: Random) -> _Lines:
    noun = rng.choice(_NOUNS)
    if rng.random() < 0.5:
        inner = _block(f"if {_condition(rng, noun)}", [f"return {noun}"])
        body = [*_block(f"for {noun} in {noun}s", inner), "return None"]
        return _function(f"find_{noun}", f"{noun}s", f"Return the first {noun} that matches.", body, rng)
    side, sign = rng.choice((("max", ">"), ("min", "<")))
    inner = _block(f"if best is None or {noun} {sign} best", [f"best = {noun}"])
    body = ["best = None", *_block(f"for {noun} in {noun}s", inner), "return best"]
    return _function(f"{side}_{noun}", f"{noun}s", f"Return the {side} {noun}.", body, rng)


def _compute(rng: Random) -> _Lines:
    names = rng.sample(("a", "b", "c", "x", "y", "n"), rng.randint(2, 3))
    name = rng.choice(("compute", "combine", "evaluate", "measure"))
    body = [f"result = {_expression(rng, names, 2)}"]
    if rng.random() < 0.6:
        body += _block(f"if result {rng.choice('<>')} {rng.randint(0, 9)}", [f"result = {_expression(rng, names, 1)}"])
    if rng.random() < 0.4:
        body.append("print(result)")
    body.append("return result")
    return _function(name, ", ".join(names), "Return the result.", body, rng)


def _recursive(rng: Random) -> _Lines:
    name = rng.choice(("factorial", "fibonacci", "power", "gcd", "depth"))
    if name == "factorial":
        return _function(
            name, "n", "Multiply 1 to n.", [*_block("if n <= 1", ["return 1"]), f"return n * {name}(n - 1)"], rng
        )
    if name == "fibonacci":
        body = [*_block("if n < 2", ["return n"]), f"return {name}(n - 1) + {name}(n - 2)"]
        return _function(name, "n", "Return a Fibonacci number.", body, rng)
    if name == "power":
        body = [*_block("if n == 0", ["return 1"]), f"return x * {name}(x, n - 1)"]
        return _function(name, "x, n", "Raise x to n.", body, rng)
    if name == "gcd":
        body = [*_block("while b", ["a, b = b, a % b"]), "return a"]
        return _function(name, "a, b", "Return the greatest common divisor.", body, rng)
    body = [*_block("if not node.children", ["return 0"]), f"return 1 + max({name}(child) for child in node.children)"]
    return _function(name, "node", "Return the depth of a tree.", body, rng)


def _parse(rng: Random) -> _Lines:
    noun, kind = rng.choice(_NOUNS), rng.choice(("int", "float"))
    fallback = rng.choice(("None", "0", "-1"))
    body = [*_block("try", [f"return {kind}(text)"]), *_block("except ValueError", [f"return {fallback}"])]
    return _function(f"parse_{noun}", "text", f"Read a {noun} from text.", body, rng)


def _class(rng: Random) -> _Lines:
    name, fields = rng.choice(_TYPES), rng.sample(_FIELDS, rng.randint(1, 3))
    target, noun = rng.choice(fields), rng.choice(_NOUNS)
    init = _block(f"def __init__(self, {', '.join(fields)})", [f"self.{field} = {field}" for field in fields])
    methods = [
        _block(f"def set_{target}(self, {target})", [f"self.{target} = {target}"]),
        _block(f"def get_{target}(self)", [f"return self.{target}"]),
        _block("def __repr__(self)", [f'return f"{name}({{self.{target}}})"']),
        _block(f"def add_{noun}(self, {noun})", [f"self.{target} += {noun}", f"return self.{target}"]),
    ]
    body = init
    for method in rng.sample(methods, rng.randint(1, 2)):
        body = [*body, "", *method]
    return _block(f"class {name}", body)


def _script(rng: Random) -> _Lines:
    noun, stop = rng.choice(_NOUNS), rng.randint(3, 20)
    numbers = ", ".join(str(rng.randint(1, 30)) for _ in range(rng.randint(3, 5)))
    return rng.choice(
        (
            [f"{noun}s = [{numbers}]", *_block(f"for {noun} in {noun}s", [f"print({noun})"])],
            [f"{noun}s = [{numbers}]", *_block(f"for index, {noun} in enumerate({noun}s)", [f"print(index, {noun})"])],
            _block(f"for i in range({stop})", _block(f"if i % {rng.randint(2, 5)} == 0", ["print(i)"])),
            [f"{noun}s = sorted([{numbers}])", f"print({noun}s[0], {noun}s[-1])"],
            [f"n = {stop}", *_block("while n > 0", ["print(n)", f"n -= {rng.randint(1, 3)}"])],
        )
    )


_KINDS: tuple[Callable[[Random], _Lines], ...] = (
    _sum, _count, _filter, _find, _compute, _recursive, _parse, _class, _class, _script,
)  # fmt: skip


def document(rng: Random) -> str:
    """One to three definitions, two blank lines apart, sometimes after an import."""
    parts = ["\n".join(kind(rng)) for kind in rng.sample(_KINDS, rng.choice((1, 2, 2, 3)))]
    if rng.random() < 0.2:
        parts.insert(0, f"import {rng.choice(('math', 'sys', 'random', 'json', 'time'))}")
    return "\n\n\n".join(parts)
