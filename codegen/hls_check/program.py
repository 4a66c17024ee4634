# SPDX-License-Identifier: Apache-2.0
"""All files of a design, what is constant in them, and the registry of rules.

A rule is a function that `@rule(NAME)` registers: it is called with the program and one of its
files, and yields line and text of everything that breaks the sentence of its docstring.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from nuq.codegen.hls_check.syntax import (
    Function,
    Statement,
    Tokens,
    Unit,
    after_template,
    closing_angle,
    texts,
)

CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*$")  # names of constants
TYPE = re.compile(r"sizeof|int|unsigned|char|short|long|const|typename|u?int\d*_t")


@dataclass(frozen=True, eq=False)
class Program:
    """All files of a design; one is another's equal where it is the same."""

    units: tuple[Unit, ...]

    @property
    def functions(self) -> list[Function]:
        """All function definitions."""
        return [function for unit in self.units for function in unit.functions]

    @cached_property
    def constants(self) -> set[str]:
        """Constants and constexpr functions outside of functions."""
        functions = self.functions
        names = {f.name for f in functions if any(t.text == "constexpr" for t in f.tokens[:4])}
        for item in (item for unit in self.units for item in unit.declarations):
            add_constant(item, names)
        return names

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """Words of the types that typedefs and `using NAME =` give names to, wherever they are."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        bodies = [item for function in self.functions for item in function.body.walk()]
        for item in (*self._declarations, *bodies):
            words = texts(item.tokens)
            if words[:2] == ["template", "<"]:
                words = words[(closing_angle(item.tokens, 1) or 0) + 1 :]
            if words[:1] == ["typedef"]:
                found[words[-1]] += words[1:-1]
            elif words[:1] == ["using"] and words[2:3] == ["="]:
                found[words[1]] += words[3:]
        return found

    @cached_property
    def structures(self) -> set[str]:
        """Names of all structures and classes."""
        return {item.owner for item in self._declarations if item.owner}

    @cached_property
    def enumerations(self) -> set[str]:
        """Names of all enumerations."""
        items = [texts(item.tokens) for item in self._declarations]
        return {words[1] for words in items if words[:1] == ["enum"]}

    @property
    def _declarations(self) -> list[Statement]:
        return [item for unit in self.units for item in unit.declarations]

    def named(self, name: str) -> list[Function]:
        """Functions of a name."""
        return [function for function in self.functions if function.name == name]


@dataclass(frozen=True, order=True)
class Finding:
    """One violation."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


Findings = Iterator[tuple[int, str]]  # line and text
Check = Callable[[Program, Unit], Findings]
RULES: list[tuple[str, Check]] = []


def rule(name: str) -> Callable[[Check], Check]:
    """Register a function under the name that its findings have; several may share one."""

    def register(check: Check) -> Check:
        RULES.append((name, check))
        return check

    return register


def constants(program: Program, function: Function, known: Iterable[str] = ()) -> set[str]:
    """Names with a value at compile time: template parameters, constants, constexpr functions.

    known: others that are taken to have one.
    """
    names = {token.text for token in function.template if token.kind == "name"} | set(known)
    names |= program.constants
    for item in (item for item in function.body.walk() if item.kind == "plain"):
        add_constant(item, names)
    return names


def add_constant(item: Statement, names: set[str]) -> None:
    """Add what a declaration makes a constant, where `names` are constants."""
    words = texts(item.tokens)
    if "=" in words and words[0] in ("const", "constexpr", "static"):
        place = words.index("=")
        fixed = "const" in words or "constexpr" in words
        if fixed and is_constant(item.tokens[place + 1 :], names):
            names.add(words[place - 1])


def is_constant(tokens: Tokens, names: set[str]) -> bool:
    """Whether an expression has a value at compile time, where `names` have one."""
    i = 0
    while i < len(tokens):
        token, after = tokens[i], after_template(tokens, i)
        if token.kind == "name" and after < len(tokens) and tokens[after].text == "::":
            i = after  # Type<C>::NAME
            continue
        value = CONSTANT.match(token.text) or token.text in names or TYPE.fullmatch(token.text)
        if token.kind == "name" and not value:
            return False
        i += 1
    return bool(tokens)
