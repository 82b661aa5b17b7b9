"""From text to tree: recursive descent over the two ways of writing a term, ``layer:3`` and ``layer == 3``."""

from __future__ import annotations

import math
import re

from moetui.routing.errors import QueryError
from moetui.routing.query.fields import ALIASES, FIELDS, KEYWORDS, FieldSpec, did_you_mean, find_field
from moetui.routing.query.names import Known
from moetui.routing.query.patterns import MAX_PATTERN, check_regex
from moetui.routing.query.tokens import Cursor, Lexeme
from moetui.routing.query.tree import (
    And,
    Compare,
    Field,
    Flip,
    Mark,
    Member,
    Node,
    Number,
    Operand,
    Operator,
    Text,
    Weight,
    Words,
    both,
    either,
    leaves,
    negated,
)

MAX_LENGTH = 2000
_MAX_DEPTH = 40
_MAX_NUMBER = 2.0**53
_OPERATORS: dict[str, Operator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "==", "=": "==", "!=": "!="}
_FLIPPED: dict[Operator, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})(?:-({_NUMBER}))?\s*\Z")
_ITEM = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,"']*)\s*(,|\Z)""", re.DOTALL)
_CLOSING = {"(": ")", "[": "]"}


def parse_tree(text: str, known: Known | None = None, *, values: bool = False) -> Node:
    """The tree of a query; an empty one matches everything.

    Args:
        text: the query.
        known: what it may name.
        values: whether a number may be compared with nothing.

    Raises:
        QueryError: it does not parse, or names what there is not; the error tells where.
    """
    if len(text) > MAX_LENGTH:
        raise QueryError(f"the query is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    parser = _Parser(text, known or Known(), values=values)
    if parser.cursor.peek().kind == "end":
        return And(())
    tree = parser.disjunction()
    rest = parser.cursor.peek()
    if rest.kind != "end":
        raise QueryError(f"'{rest.value}' is one too many", rest.start)
    return tree


class _Parser:
    def __init__(self, text: str, known: Known, *, values: bool) -> None:
        self.cursor = Cursor(text)
        self._known, self._values_alone = known, values
        self._depth = 0

    def disjunction(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise QueryError("too many parentheses inside each other", self.cursor.position)
        terms = [self._conjunction()]
        while self.cursor.take("or", "||"):
            terms.append(self._conjunction())
        self._depth -= 1
        return either(terms)

    def _conjunction(self) -> Node:
        terms = [self._negation()]
        while True:
            if not self.cursor.take("and", "&&"):
                piece = self.cursor.peek()
                if piece.kind == "end" or (piece.kind != "string" and piece.value.lower() in (")", "or", "||")):
                    return both(terms)
            terms.append(self._negation())

    def _negation(self) -> Node:
        negative = False
        while True:
            piece = self.cursor.peek()
            if piece.kind == "sign" and piece.value == "-" and self._number_follows(piece):
                break
            if not self.cursor.take("not", "!", "-"):
                break
            negative = not negative
        term = self._primary()
        return negated(term) if negative else term

    def _number_follows(self, minus: Lexeme) -> bool:
        return bool(re.match(r"\.?\d", self.cursor.text[minus.stop :]))

    def _primary(self) -> Node:
        if self.cursor.take("("):
            inner = self.disjunction()
            if not self.cursor.take(")"):
                raise QueryError("a parenthesis is not closed", self.cursor.peek().start, "close it with )")
            return inner
        piece = self.cursor.peek()
        if piece.kind == "end":
            raise QueryError("a term is missing at the end", piece.start, "such as layer:3 or entropy < 0.5")
        if piece.kind == "string":
            return self._string_term()
        if piece.kind == "number" or piece.value == "-":
            return self._from_number()
        if piece.kind == "word":
            return self._from_word()
        raise QueryError(f"a term is missing before '{piece.value}'", piece.start, "such as layer:3 or entropy < 0.5")

    def _string_term(self) -> Node:
        """``"foo"`` by itself, or ``"foo" in token``."""
        piece = self.cursor.next()
        if self.cursor.take("in"):
            target = self.cursor.next()
            spec = find_field(target.value) if target.kind == "word" else None
            if spec is None or spec.kind != "text":
                raise QueryError("a string can be in 'token' only", target.start, '"foo" in token')
        return Text(_bounded(piece.value, piece.start), "contains")

    def _from_number(self) -> Node:
        """``3 in topk``, or a comparison that begins with a number."""
        start = self.cursor.peek().start
        number = self._operand()
        absent = self.cursor.take("not")
        if self.cursor.take("in"):
            target = self.cursor.next()
            spec = find_field(target.value) if target.kind == "word" else None
            if spec is None or spec.name != "expert" or not isinstance(number, Number):
                raise QueryError("a number can be in 'topk' only", target.start, "3 in topk")
            self._known.check_range("expert", number.value, number.value, start)
            found = Member("expert", ((number.value, number.value),))
            return negated(found) if absent else found
        if absent:
            raise QueryError("'not' stands before a term", absent.start, "3 not in topk, not layer:3")
        return self._comparison(number, start)

    def _from_word(self) -> Node:
        piece = self.cursor.next()
        spec = self._spec(piece)
        if self.cursor.peek().value == ":" and self.cursor.peek().kind == "sign":
            self.cursor.next()
            return self._colon(spec)
        if spec.name == "flip":
            self.cursor.take("vs")
            return Flip(self._branch(*self._raw_value()))
        if spec.kind == "mark":
            return Mark(spec.name)
        absent = self.cursor.take("not")
        if self.cursor.take("in"):
            found = self._in(spec)
            return negated(found) if absent else found
        if absent:
            raise QueryError("'not' stands before a term", absent.start, "layer not in (2, 3)")
        if spec.kind in ("text", "word") or spec.name == "branch":
            return self._word_comparison(spec)
        return self._comparison(self._rest_of_operand(spec), piece.start)

    def _spec(self, piece: Lexeme) -> FieldSpec:
        spec = find_field(piece.value)
        if spec is not None:
            return spec
        if piece.value.lower() in KEYWORDS:
            raise QueryError(f"a term is missing before '{piece.value}'", piece.start)
        hint = did_you_mean(piece.value, (*FIELDS, *ALIASES)) or f'to search the text write token:"{piece.value}"'
        raise QueryError(f"there is no field '{piece.value}'", piece.start, hint)

    def _colon(self, spec: FieldSpec) -> Node:
        start = self.cursor.position
        if spec.kind in ("integer", "number") and re.match(r"\s*[<>=!]", self.cursor.text[start:]):
            return self._comparison(self._rest_of_operand(spec), start)
        text, start = self._raw_value()
        return self._values(spec, text, start)

    def _raw_value(self) -> tuple[str, int]:
        text, start = self.cursor.raw()
        if not text:
            raise QueryError("a value is missing", start, "such as layer:3")
        return text, start

    def _in(self, spec: FieldSpec) -> Node:
        opening = self.cursor.take("(", "[")
        if not opening:
            return self._values(spec, *self._raw_value())
        end = self.cursor.text.find(_CLOSING[opening.value], opening.stop)
        if end < 0:
            raise QueryError("a list is not closed", opening.start, f"close it with {_CLOSING[opening.value]}")
        self.cursor.position = end + 1
        inside = self.cursor.text[opening.stop : end]
        if spec.kind == "text":
            items = _items(inside, opening.stop)
            return either([Text(_bounded(_unquoted(item.strip()), at), "equals") for item, at in items])
        return self._values(spec, inside, opening.stop)

    def _values(self, spec: FieldSpec, text: str, start: int) -> Node:
        """What stands after a colon or ``in``: words, numbers and ranges with commas between them, or a text."""
        if spec.name == "flip":
            return Flip(self._branch(text, start))
        if spec.kind == "text":
            return Text(_bounded(_unquoted(text), start), "contains")
        if spec.kind == "mark":
            raise QueryError(f"'{spec.name}' stands alone", start, f"write {spec.name}")
        items = _items(text, start)
        if spec.kind == "word" and not (spec.name == "site" and all(_RANGE.match(item) for item, _ in items)):
            return Words(spec.name, tuple(self._word(spec, item, at) for item, at in items))
        return Member(spec.name, tuple(self._range(spec, item, at) for item, at in items))

    def _range(self, spec: FieldSpec, item: str, start: int) -> tuple[float, float]:
        found = _RANGE.match(item)
        if not found:
            if spec.name == "branch":
                number = float(self._branch(item, start))
                return number, number
            raise QueryError(f"'{item.strip()}' is no number", start, f"such as {spec.name}:3 or {spec.name}:2-5")
        low = _number(found[1], start)
        high = low if found[2] is None else _number(found[2], start)
        if spec.kind == "number" and found[2] is None:
            raise QueryError("measured numbers are hardly ever equal", start, f"write {spec.name}<{item.strip()}")
        if spec.kind != "number" and not (low.is_integer() and high.is_integer()):
            raise QueryError(f"'{spec.name}' counts in whole numbers", start)
        if high < low:
            raise QueryError("the range ends before it begins", start, f"write {Number(high)}-{Number(low)}")
        self._known.check_range(spec.name, low, high, start)
        return low, high

    def _word(self, spec: FieldSpec, item: str, start: int) -> str:
        word = _unquoted(item.strip())
        if spec.name == "phase" and word not in ("prefill", "decode"):
            raise QueryError(f"there is no phase '{word}'", start, "phase:prefill or phase:decode")
        self._known.check_word(spec.name, word, start)
        return word

    def _branch(self, text: str, start: int) -> int:
        name = _unquoted(text.strip())
        if name in self._known.branches:
            return self._known.branches[name]
        if re.fullmatch(r"[0-9]{1,9}", name):
            return int(name)
        hint = did_you_mean(name, self._known.branches) or "name a branch by its number: flip vs 0"
        raise QueryError(f"there is no branch '{name}'", start, hint)

    def _word_comparison(self, spec: FieldSpec) -> Node:
        """``phase == decode``, ``token ~ "…"``: one operator, one value."""
        operator = self.cursor.next()
        allowed = ("==", "=", "!=", "~", "!~") if spec.kind == "text" else ("==", "=", "!=")
        if operator.value not in allowed or operator.kind != "sign":
            if spec.name == "branch" and operator.value in _OPERATORS:
                self.cursor.position = operator.start
                return self._comparison(Field("branch"), operator.start)
            example = 'token:"foo"' if spec.kind == "text" else f"{spec.name}:…"
            raise QueryError(f"'{spec.name}' needs one of {' '.join(allowed)}", operator.start, f"or write {example}")
        piece = self.cursor.peek()
        if spec.kind != "text":
            node = self._values(spec, *self._raw_value())
        elif piece.kind not in ("string", "word"):
            raise QueryError("a text is missing", piece.start, f'such as token {operator.value} "foo"')
        else:
            self.cursor.next()
            how = "matches" if "~" in operator.value else "equals"
            if how == "matches":
                check_regex(piece.value, piece.start)
            node = Text(_bounded(piece.value, piece.start), "matches" if how == "matches" else "equals")
        return negated(node) if operator.value.startswith("!") else node

    def _operand(self) -> Operand:
        minus = self.cursor.take("-")
        piece = self.cursor.next()
        if piece.kind == "number":
            value = _number(piece.value, piece.start)
            return Number(-value if minus else value)
        if minus or piece.kind != "word":
            what = f"'{piece.value}'" if piece.kind != "end" else "the end"
            raise QueryError(f"a number or a field is missing before {what}", piece.start, "such as entropy < 0.5")
        spec = self._spec(piece)
        if spec.kind not in ("integer", "number"):
            raise QueryError(f"'{spec.name}' is no number", piece.start)
        return self._rest_of_operand(spec)

    def _rest_of_operand(self, spec: FieldSpec) -> Operand:
        if spec.name != "weight" or not self.cursor.take("["):
            return Field(spec.name)
        piece = self.cursor.next()
        if piece.kind != "number" or not piece.value.isdigit() or len(piece.value) > 6:
            raise QueryError("the number of an expert is missing", piece.start, "such as weight[5] > 0.4")
        if not self.cursor.take("]"):
            raise QueryError("a bracket is not closed", self.cursor.peek().start, "close it with ]")
        self._known.check_range("expert", int(piece.value), int(piece.value), piece.start)
        return Weight(int(piece.value))

    def _comparison(self, first: Operand, start: int) -> Node:
        operands, operators = [first], []
        while self.cursor.peek().kind == "sign" and self.cursor.peek().value in _OPERATORS:
            operators.append(_OPERATORS[self.cursor.next().value])
            operands.append(self._operand())
        if not operators and self._values_alone and not isinstance(first, Number):
            return Compare((first,), ())
        if not operators:
            what = str(first)
            raise QueryError(f"'{what}' is compared with nothing", start, f"such as {what} < 1, or {what}:1-2")
        if all(isinstance(operand, Number) for operand in operands):
            raise QueryError("two numbers are compared, no field", start, "such as entropy < 0.5")
        term = _simplest(tuple(operands), tuple(operators))
        for leaf in leaves(term):
            if isinstance(leaf, Compare):
                self._known.check_comparison(leaf, start)
            elif isinstance(leaf, Member):
                self._known.check_range(leaf.field, *leaf.ranges[0], start)
        return term


def _simplest(operands: tuple[Operand, ...], operators: tuple[Operator, ...]) -> Node:
    """One tree for two ways of writing: a field stands left of a number, and whole numbers are equal as members."""
    if len(operands) == 2 and isinstance(operands[0], Number):
        operands, operators = operands[::-1], (_FLIPPED[operators[0]],)
    left, right = operands[0], operands[-1]
    whole = isinstance(left, Field) and FIELDS[left.name].kind == "integer"
    equal = operators[0] in ("==", "!=") and isinstance(right, Number) and right.value.is_integer() and right.value >= 0
    if len(operands) == 2 and whole and equal and isinstance(left, Field) and isinstance(right, Number):
        member = Member(left.name, ((right.value, right.value),))
        return member if operators[0] == "==" else negated(member)
    return Compare(operands, operators)


def _items(text: str, start: int) -> list[tuple[str, int]]:
    """The parts between commas, with where they begin; commas in quotes are no commas."""
    out, at = [], 0
    while True:
        found = _ITEM.match(text, at)
        if found is None or not found[1].strip():
            raise QueryError("a value is missing", start + at, "such as layer:2,3")
        out.append((found[1], start + at))
        if found[2] != ",":
            return out
        at = found.end()


def _unquoted(text: str) -> str:
    if text[:1] not in ('"', "'"):
        return text
    cursor = Cursor(text)
    piece = cursor.next()
    return piece.value if piece.stop == len(text) else text


def _bounded(pattern: str, start: int) -> str:
    if len(pattern) > MAX_PATTERN:
        raise QueryError(f"the text is longer than {MAX_PATTERN} characters", start, "search for a part of it")
    return pattern


def _number(text: str, start: int) -> float:
    value = float(text)
    if not math.isfinite(value) or value > _MAX_NUMBER:
        raise QueryError(f"{text} is too large a number", start)
    return value
