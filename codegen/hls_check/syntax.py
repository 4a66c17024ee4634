# SPDX-License-Identifier: Apache-2.0
"""Tokens -> functions, statements and calls, as far as the rules need: no types, no expressions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nuq.codegen.hls_check.lexer import Source, Token

Tokens = Sequence[Token]
OPENING, CLOSING = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
LOOPS = ("for", "while", "do")
CONTROL = (*LOOPS, "if", "switch")
CLASSES = ("struct", "class", "union", "enum")
# What begins a statement that declares no variable.
STATEMENTS = ("return", "using", "typedef", "goto", "case", "delete", "template", "operator")
MEMBER = (".", "->")
# What may stand in front of a type's name in a declaration, and behind its first word.
BEFORE_TYPES = ("static", "const", "constexpr", "typename", "mutable", "inline", "struct", "class",
                "enum")  # fmt: skip
BEHIND_TYPES = ("*", "&", "const", "int", "long", "short", "char", "signed", "unsigned",
                "__int128")  # fmt: skip


@dataclass
class Statement:
    """A statement of a function body."""

    kind: str  # for, while, do, if, switch, block, pragma, plain
    line: int
    tokens: Tokens = ()  # of a control statement those in its parentheses
    label: str = ""  # the name in front of it
    owner: str = ""  # of a declaration: its class
    body: "list[Statement]" = field(default_factory=list)

    def walk(self) -> "Iterator[Statement]":
        """This statement and all inside of it."""
        yield self
        for item in self.body:
            yield from item.walk()

    @property
    def statements(self) -> "list[Statement]":
        """What stands in the body, without the block around it."""
        return self.body[0].body if [item.kind for item in self.body] == ["block"] else self.body

    @property
    def counter(self) -> str:
        """The variable that a for loop declares, "" where it declares none."""
        first = declared(split(self.tokens, ";")[0]) if self.kind == "for" and self.tokens else []
        return first[0].name.text if first else ""

    def pragmas(self) -> list[Token]:
        """Pragmas of the body itself, after declarations, too."""
        return [item.tokens[0] for item in self.statements if item.kind == "pragma"]


@dataclass
class Function:
    """A function definition."""

    name: str
    owner: str  # its class, "" for a free function
    line: int
    parameters: list[Tokens]
    template: Tokens  # template parameters
    body: Statement  # one block
    tokens: Tokens  # everything from the head to the end


@dataclass
class Unit:
    """What a file defines: functions, and declarations outside of them."""

    source: Source
    functions: list[Function] = field(default_factory=list)
    declarations: list[Statement] = field(default_factory=list)


@dataclass
class Declared:
    """A name that a statement declares."""

    name: Token
    sizes: list[Tokens]  # dimensions of an array
    type: Tokens

    @property
    def stands_for(self) -> str:
        """The sign of a pointer or reference, "" of what is a variable of its own."""
        words = texts(self.type)
        while words[-1] == "const":
            words.pop()
        return words[-1] if words[-1] in ("*", "&") else ""


@dataclass
class Call:
    """NAME(...) or NAME<...>(...) from index `start` to `end`."""

    name: str
    start: int
    end: int
    arguments: list[Tokens]


def texts(tokens: Tokens) -> list[str]:
    """Texts of tokens."""
    return [token.text for token in tokens]


def closing(tokens: Tokens, start: int) -> int:
    """Index of the bracket that closes the one at `start`; the end where there is none."""
    depth = 0
    for i in range(start, len(tokens)):
        depth += (tokens[i].text in OPENING) - (tokens[i].text in CLOSING)
        if depth == 0 and tokens[i].text in CLOSING:
            return i
    return len(tokens) - 1


def closing_angle(tokens: Tokens, start: int) -> int | None:
    """Index of the > that closes the < at `start`, None where that < is a comparison."""
    depth = 0
    for i in range(start, min(len(tokens), start + 200)):
        text = tokens[i].text
        depth += (text == "<") - (text == ">")
        if depth == 0:
            return i
        if text in (";", "{", "}", "&&", "||"):
            return None
    return None


def after_template(tokens: Tokens, name: int) -> int:
    """Index behind a name and its template arguments."""
    if name + 1 < len(tokens) and tokens[name + 1].text == "<":
        return (closing_angle(tokens, name + 1) or name) + 1
    return name + 1


def split(tokens: Tokens, sign: str = ",") -> list[Tokens]:
    """Parts between signs outside of all brackets and template arguments."""
    parts: list[Tokens] = []
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


def calls(tokens: Tokens) -> Iterator[Call]:
    """All calls, outer ones before those in their arguments."""
    for i, token in enumerate(tokens):
        if token.kind == "name":
            opening = after_template(tokens, i)
            if opening < len(tokens) and tokens[opening].text == "(":
                end = closing(tokens, opening)
                yield Call(token.text, i, end, split(tokens[opening + 1 : end]))


def declared(tokens: Tokens) -> list[Declared]:
    """What a statement declares: a type, then names; nothing for anything else."""
    i = 0
    while i < len(tokens) and tokens[i].text in BEFORE_TYPES:
        i += 1
    if i >= len(tokens) or tokens[i].kind != "name" or tokens[i].text in STATEMENTS:
        return []
    words = [*texts(tokens), "", ""]
    i = after_template(tokens, i) - 1
    while words[i + 1] == "::":
        i = after_template(tokens, i + 2) - 1
    while words[i + 1] in BEHIND_TYPES:
        i += 1
    if i + 1 >= len(tokens) or tokens[i + 1].kind != "name":
        return []
    names = []
    for part in split(tokens[i + 1 :]):
        at = next((n for n, token in enumerate(part) if token.kind == "name"), None)
        if at is not None:
            sizes, opening = [], at + 1
            while opening < len(part) and part[opening].text == "[":
                end = closing(part, opening)
                sizes.append(part[opening + 1 : end])
                opening = end + 1
            names.append(Declared(part[at], sizes, tokens[: i + 1]))
    return names


def array_name(parameter: Tokens) -> str:
    """Name of a parameter, an array or not."""
    words = texts(parameter)
    return words[(words.index("[") if "[" in words else len(words)) - 1]


@dataclass(frozen=True)
class Use:
    """A name where it is used, with what follows it: indices and members."""

    name: str
    at: int  # index of the name
    end: int  # of the first token behind
    members: tuple[str, ...]
    indices: tuple[Tokens, ...]
    effect: frozenset[str]  # read, write; the name of a method that is called


def uses(tokens: Tokens, name: str) -> Iterator[Use]:
    """Every use of a name in a statement, but as a member of another.

    `a.b[i] += 1` reads and writes a; `a.step()` has the effect `step`.
    """
    for at, token in enumerate(tokens):
        if token.text != name or (at and tokens[at - 1].text in (*MEMBER, "::")):
            continue
        members: list[str] = []
        indices: list[Tokens] = []
        end = at + 1
        while end < len(tokens) and tokens[end].text in ("[", *MEMBER):
            if tokens[end].text == "[":
                last = closing(tokens, end)
                indices.append(tokens[end + 1 : last])
            else:
                last = end + 1
                members.append(tokens[last].text)
            end = last + 1
        sign = tokens[end].text if end < len(tokens) else ""
        before = tokens[at - 1].text if at else ""
        changed = sign.endswith("=") and sign not in ("==", "<=", ">=", "!=")
        effect = {"read"}
        if sign == "(" and members:
            effect = {members[-1]}
        elif sign in ("++", "--") or before in ("++", "--") or (changed and sign != "="):
            effect = {"read", "write"}
        elif changed:
            effect = {"write"}
        yield Use(name, at, end, tuple(members), tuple(indices), frozenset(effect))


def parse(source: Source) -> Unit:
    """Functions and declarations of a file."""
    unit = Unit(source)
    _Parser(source.tokens, unit).scope(0, len(source.tokens), "")
    return unit


class _Parser:
    """Recursive descent over namespaces, classes and statements."""

    def __init__(self, tokens: Tokens, unit: Unit) -> None:
        self.tokens, self.unit = tokens, unit

    def scope(self, start: int, end: int, owner: str) -> None:
        """Read what a file, a namespace or a class holds."""
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
                if begin < i:
                    tokens = self.tokens[begin:i]
                    item = Statement("plain", tokens[0].line, tokens, owner=owner)
                    self.unit.declarations.append(item)
                begin = i + 1
            elif text == ":" and self.tokens[i - 1].text in ("public", "private", "protected"):
                begin = i + 1
            i += 1

    def _enter(self, begin: int, brace: int, last: int, owner: str) -> bool:
        """Handle the braces after a head; whether they end the item."""
        head = list(self.tokens[begin:brace])
        template: Tokens = ()
        while head and head[0].text == "template":
            end = closing_angle(head, 1) or 1
            template, head = head[2:end], head[end + 1 :]
        words = texts(head)
        if not head or words[0] in ("namespace", "extern"):
            self.scope(brace + 1, last, owner)
            return True
        if words[0] in CLASSES and "(" not in words and "=" not in words:
            name = words[1] if len(words) > 1 and words[1] != "class" else ""
            if words[0] != "enum":
                self.scope(brace + 1, last, name)
            return False  # up to the semicolon
        if "(" not in words or "=" in words[: words.index("(")]:
            return False  # an initializer
        opening = words.index("(")
        if words[opening - 1] == "operator":
            opening = words.index("(", closing(head, opening))
        name = words[opening - 1] if words[opening - 1] != ")" else "operator()"
        if opening > 2 and words[opening - 2] == "::":
            owner = words[opening - 3]
        parameters = split(head[opening + 1 : closing(head, opening)])
        body, _ = self.statement(brace)
        tokens, line = self.tokens[begin : last + 1], head[opening - 1].line
        function = Function(name, owner, line, parameters, template, body, tokens)
        self.unit.functions.append(function)
        return True

    def statement(self, i: int) -> tuple[Statement, int]:
        """The statement at i and the index behind it."""
        token = self.tokens[i]
        following = self.tokens[i + 1].text if i + 1 < len(self.tokens) else ""
        if token.kind == "pragma":
            return Statement("pragma", token.line, (token,)), i + 1
        if token.text == "{":
            end, block, i = closing(self.tokens, i), Statement("block", token.line), i + 1
            while i < end:
                i = self._inside(block, i)
            return block, end + 1
        labels = token.kind == "name" and token.text not in ("default", "public", "private")
        if labels and following == ":":
            inner, after = self.statement(i + 2)
            inner.label = token.text
            return inner, after
        return self._control(i) if token.text in CONTROL else self._plain(i)

    def _inside(self, outer: Statement, i: int) -> int:
        """Put the statement at i into another; the index behind it."""
        inner, after = self.statement(i)
        outer.body.append(inner)
        return after

    def _plain(self, i: int) -> tuple[Statement, int]:
        start = i
        while i < len(self.tokens) and self.tokens[i].text not in (";", "}"):
            if self.tokens[i].text == ":" and self.tokens[start].text in ("case", "default"):
                break
            i = closing(self.tokens, i) if self.tokens[i].text in OPENING else i
            i += 1
        return Statement("plain", self.tokens[start].line, self.tokens[start:i]), i + 1

    def _control(self, i: int) -> tuple[Statement, int]:
        statement = Statement(self.tokens[i].text, self.tokens[i].line)
        if statement.kind == "do":
            i = self._inside(statement, i + 1)
            end = closing(self.tokens, i + 1)
            statement.tokens = self.tokens[i + 2 : end]
            return statement, end + 2
        end = closing(self.tokens, i + 1)
        statement.tokens = self.tokens[i + 2 : end]
        i = self._inside(statement, end + 1)
        if statement.kind == "if" and i < len(self.tokens) and self.tokens[i].text == "else":
            i = self._inside(statement, i + 1)
        return statement, i
