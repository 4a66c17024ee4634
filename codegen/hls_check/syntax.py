# SPDX-License-Identifier: Apache-2.0
"""Tokens -> functions and their statements, as far as the rules need: no types, no expressions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from codegen.hls_check.lexer import Source, Token

OPENING, CLOSING = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
CONTROL = ("for", "while", "do", "if", "switch")
CLASSES = ("struct", "class", "union", "enum")
# What begins a statement that declares no variable.
STATEMENTS = ("return", "using", "typedef", "goto", "case", "delete", "template", "operator")


@dataclass
class Statement:
    """A statement of a function body.

    Attributes:
        kind: for, while, do, if, switch, block, pragma, plain.
        tokens: of a plain statement or pragma; of a control statement those in its parentheses.
        label: the name in front of it, or "".
        body: statements inside.
    """

    kind: str
    line: int
    tokens: Sequence[Token] = ()
    label: str = ""
    body: "list[Statement]" = field(default_factory=list)

    def walk(self) -> "Iterator[Statement]":
        """This statement and all inside of it."""
        yield self
        for item in self.body:
            yield from item.walk()

    def pragmas(self) -> list[Token]:
        """Pragmas at the beginning of the body, after declarations, too."""
        items = self.body[0].body if [i.kind for i in self.body] == ["block"] else self.body
        return [item.tokens[0] for item in items if item.kind == "pragma"]


@dataclass
class Function:
    """A function definition.

    Attributes:
        name, owner: its name and its class, "" for a free function.
        parameters: tokens of each parameter.
        template: tokens of its template parameters.
        body: one block statement.
        tokens: everything from the name to the end.
    """

    source: Source
    name: str
    owner: str
    line: int
    parameters: list[Sequence[Token]]
    template: Sequence[Token]
    body: Statement
    tokens: Sequence[Token]


@dataclass
class Unit:
    """What a file defines: functions, and declarations outside of them."""

    source: Source
    functions: list[Function] = field(default_factory=list)
    declarations: list[Statement] = field(default_factory=list)


def parse(source: Source) -> Unit:
    """Functions and declarations of a file."""
    unit = Unit(source)
    _Scope(unit, source.tokens).run(0, len(source.tokens), "")
    return unit


def closing(tokens: Sequence[Token], start: int) -> int:
    """Index of the bracket that closes the one at `start`; the end where there is none."""
    depth = 0
    for i in range(start, len(tokens)):
        if tokens[i].text in OPENING:
            depth += 1
        elif tokens[i].text in CLOSING:
            depth -= 1
            if depth == 0:
                return i
    return len(tokens) - 1


def closing_angle(tokens: Sequence[Token], start: int) -> int | None:
    """Index of the > that closes the < at `start`, None where that < is a comparison."""
    depth = 0
    for i in range(start, min(len(tokens), start + 200)):
        text = tokens[i].text
        if text == "<":
            depth += 1
        elif text == ">":
            depth -= 1
            if depth == 0:
                return i
        elif text in (";", "{", "}", "&&", "||"):
            return None
    return None


def split(tokens: Sequence[Token], sign: str = ",") -> list[Sequence[Token]]:
    """Parts between signs outside of all brackets and template arguments."""
    parts: list[Sequence[Token]] = []
    start = i = 0
    while i < len(tokens):
        text = tokens[i].text
        if text in OPENING:
            i = closing(tokens, i)
        elif text == "<" and i and tokens[i - 1].kind == "name":
            i = closing_angle(tokens, i) or i
        elif text == sign:
            parts.append(tokens[start:i])
            start = i + 1
        i += 1
    return [*parts, tokens[start:]] if start < len(tokens) or parts else []


@dataclass
class Declared:
    """A name that a statement declares: its place, the dimensions of an array, and the type."""

    name: Token
    sizes: list[Sequence[Token]]
    type: Sequence[Token]


def declared(tokens: Sequence[Token]) -> list[Declared]:
    """What a statement declares: a type, then names; nothing for anything else."""
    i = 0
    while i < len(tokens) and tokens[i].text in ("static", "const", "constexpr", "typename"):
        i += 1
    if i >= len(tokens) or tokens[i].kind != "name" or tokens[i].text in STATEMENTS:
        return []
    texts = [*(token.text for token in tokens), "", ""]
    while texts[i + 1] == "::":
        i += 2
    if texts[i + 1] == "<":
        i = closing_angle(tokens, i + 1) or i
    while texts[i + 1] in ("*", "&", "const", "int", "long", "__int128"):
        i += 1
    if i + 1 >= len(tokens) or tokens[i + 1].kind != "name":
        return []
    found = []
    for part in split(tokens[i + 1 :]):
        at = next((n for n, token in enumerate(part) if token.kind == "name"), None)
        if at is not None:
            found.append(Declared(part[at], list(_dimensions(part, at + 1)), tokens[: i + 1]))
    return found


def _dimensions(tokens: Sequence[Token], i: int) -> Iterator[Sequence[Token]]:
    while i < len(tokens) and tokens[i].text == "[":
        end = closing(tokens, i)
        yield tokens[i + 1 : end]
        i = end + 1


class _Scope:
    """Goes through a namespace or class scope."""

    def __init__(self, unit: Unit, tokens: Sequence[Token]) -> None:
        self.unit, self.tokens = unit, tokens

    def run(self, start: int, end: int, owner: str) -> None:
        i = begin = start
        while i < end:
            text = self.tokens[i].text
            if text == "{":
                last = closing(self.tokens, i)
                if self._enter(begin, i, last, owner):
                    begin = last + 1
                i = last
            elif text == "(":
                i = closing(self.tokens, i)
            elif text == ";" or self.tokens[i].kind == "pragma":
                self._declare(begin, i)
                begin = i + 1
            elif text == ":" and self.tokens[i - 1].text in ("public", "private", "protected"):
                begin = i + 1
            i += 1

    def _declare(self, begin: int, end: int) -> None:
        tokens = self.tokens[begin:end]
        if tokens:
            self.unit.declarations.append(Statement("plain", tokens[0].line, tokens))

    def _enter(self, begin: int, brace: int, last: int, owner: str) -> bool:
        """Handle the braces after a head; whether they end the item."""
        head = list(self.tokens[begin:brace])
        template: Sequence[Token] = ()
        while head and head[0].text == "template":
            end = closing_angle(head, 1) or 1
            template, head = head[2:end], head[end + 1 :]
        texts = [token.text for token in head]
        if not head or texts[0] in ("namespace", "extern"):
            self.run(brace + 1, last, owner)
            return True
        if texts[0] in CLASSES and "(" not in texts and "=" not in texts:
            name = texts[1] if len(texts) > 1 and texts[1] != "class" else ""
            if texts[0] != "enum":
                self.run(brace + 1, last, name)
            return False  # up to the semicolon
        if "(" not in texts or "=" in texts[: texts.index("(")]:
            return False  # an initializer
        opening = texts.index("(")
        if texts[opening - 1] == "operator":
            opening = texts.index("(", closing(head, opening))
        name = texts[opening - 1] if texts[opening - 1] != ")" else "operator()"
        if opening > 2 and texts[opening - 2] == "::":
            owner = texts[opening - 3]
        body, _ = _Body(self.tokens).statement(brace)
        self.unit.functions.append(
            Function(
                self.unit.source,
                name,
                owner,
                head[opening - 1].line,
                split(head[opening + 1 : closing(head, opening)]),
                template,
                body,
                self.tokens[begin : last + 1],
            )
        )
        return True


class _Body:
    """Recursive descent over statements."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens

    def statement(self, i: int) -> tuple[Statement, int]:
        """The statement at i and the index behind it."""
        token = self.tokens[i]
        if token.kind == "pragma":
            return Statement("pragma", token.line, (token,)), i + 1
        if token.text == "{":
            end, made, i = closing(self.tokens, i), Statement("block", token.line), i + 1
            while i < end:
                item, i = self.statement(i)
                made.body.append(item)
            return made, end + 1
        if token.kind == "name" and self._is_label(i):
            inner, after = self.statement(i + 2)
            inner.label = token.text
            return inner, after
        if token.text in CONTROL:
            return self._control(i)
        return self._plain(i)

    def _is_label(self, i: int) -> bool:
        name = self.tokens[i].text
        follows = i + 1 < len(self.tokens) and self.tokens[i + 1].text == ":"
        return follows and name not in ("default", "public", "private")

    def _plain(self, i: int) -> tuple[Statement, int]:
        start = i
        while i < len(self.tokens) and self.tokens[i].text not in (";", "}"):
            if self.tokens[i].text == ":" and self.tokens[start].text in ("case", "default"):
                break
            i = closing(self.tokens, i) if self.tokens[i].text in OPENING else i
            i += 1
        return Statement("plain", self.tokens[start].line, self.tokens[start:i]), i + 1

    def _control(self, i: int) -> tuple[Statement, int]:
        made = Statement(self.tokens[i].text, self.tokens[i].line)
        if made.kind == "do":
            inner, i = self.statement(i + 1)
            made.body.append(inner)
            end = closing(self.tokens, i + 1)
            made.tokens = self.tokens[i + 2 : end]
            return made, end + 2
        end = closing(self.tokens, i + 1)
        made.tokens = self.tokens[i + 2 : end]
        inner, i = self.statement(end + 1)
        made.body.append(inner)
        if made.kind == "if" and i < len(self.tokens) and self.tokens[i].text == "else":
            inner, i = self.statement(i + 1)
            made.body.append(inner)
        return made, i
