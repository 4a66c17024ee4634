# SPDX-License-Identifier: Apache-2.0
"""The rules of the HLS subset, over all files of a design together.

Each rule yields findings; docs/hls.md has a line on each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from codegen.hls_check.lexer import Source, Token
from codegen.hls_check.pragmas import check_pragma, pragma_name, pragma_options
from codegen.hls_check.syntax import (
    CLOSING,
    CONTROL,
    OPENING,
    Function,
    Statement,
    Unit,
    closing,
    closing_angle,
    split,
)

HEAP = {"new", "delete", "malloc", "calloc", "realloc", "free", "alloca"}
CONTAINERS = set(
    [
        "vector",
        "map",
        "unordered_map",
        "set",
        "unordered_set",
        "list",
        "forward_list",
        "deque",
        "queue",
        "stack",
        "string",
        "unique_ptr",
        "shared_ptr",
        "make_unique",
        "make_shared",
        "function",
        "any",
        "variant",
        "optional",
    ]
)
DYNAMIC = {"virtual", "dynamic_cast", "typeid", "try", "catch", "throw", "goto", "asm"}
SYSTEM = set(
    [
        "printf",
        "fprintf",
        "sprintf",
        "puts",
        "fopen",
        "fclose",
        "fread",
        "fwrite",
        "scanf",
        "exit",
        "abort",
        "system",
        "getenv",
        "time",
        "clock",
        "rand",
        "srand",
        "sleep",
        "cout",
        "cerr",
        "cin",
    ]
)
# Headers that synthesis may see: exact-width integers, the vendor's types, and the design's own.
HEADERS = re.compile(r"cstdint|stdint\.h|cstddef|(ap_|hls_|hls/)\w+(\.h(pp)?)?|\w+\.hpp")
COMPARISONS = ("<", ">", "<=", ">=", "!=")
NAME = re.compile(r"[A-Z][A-Z0-9_]*$")
TYPE_WORDS = {"sizeof", "int", "unsigned", "char", "short", "long", "const", "typename"}
FIXED = re.compile(r"u?int\d*_t$")
MEMBER = (".", "->")


@dataclass(frozen=True, order=True)
class Finding:
    """One violation: file, line, rule, message."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class Program:
    """All files of a design."""

    units: tuple[Unit, ...]

    @property
    def functions(self) -> list[Function]:
        """All function definitions."""
        return [function for unit in self.units for function in unit.functions]

    def named(self, name: str) -> list[Function]:
        """Functions of a name."""
        return [function for function in self.functions if function.name == name]


Rule = Callable[[Program], Iterator[Finding]]


def _words(sources: Sequence[Source], rule: str, words: set[str], text: str) -> Iterator[Finding]:
    for source in sources:
        for token in source.tokens:
            if token.kind == "name" and token.text in words:
                yield Finding(source.name, token.line, rule, f"{token.text} {text}")


def _sources(program: Program) -> list[Source]:
    return [unit.source for unit in program.units]


def check_parsed(program: Program) -> Iterator[Finding]:
    """Brackets match and statements stand in functions, so that the other rules see everything."""
    for unit in program.units:
        source, depth = unit.source, 0
        for token in source.tokens:
            depth += (token.text in OPENING) - (token.text in CLOSING)
            if depth < 0:
                yield Finding(source.name, token.line, "syntax", f"{token.text} closes nothing")
                break
        if depth > 0:
            yield Finding(source.name, source.tokens[-1].line, "syntax", "a bracket is not closed")
        for function in unit.functions:
            if function.name in CONTROL:
                text = f"{function.name} must stand in a function"
                yield Finding(source.name, function.line, "syntax", text)


def check_heap(program: Program) -> Iterator[Finding]:
    """No memory at run time: new, malloc and their like, containers of the standard library."""
    for source in _sources(program):
        tokens = source.tokens
        for i, token in enumerate(tokens):
            if token.kind != "name":
                continue
            is_std = i > 1 and tokens[i - 1].text == "::" and tokens[i - 2].text == "std"
            deleted = token.text == "delete" and tokens[i - 1].text == "="  # a deleted function
            member = i > 0 and tokens[i - 1].text in MEMBER
            if token.text in HEAP and not deleted and not member:
                yield Finding(source.name, token.line, "heap", f"{token.text} takes heap memory")
            elif is_std and token.text in CONTAINERS:
                text = f"std::{token.text} takes heap memory"
                yield Finding(source.name, token.line, "heap", text)


def check_recursion(program: Program) -> Iterator[Finding]:
    """No function that calls itself, directly or through others; names stand for all overloads."""
    functions = program.functions
    graph = {id(f): [id(g) for g in _callees(f, functions)] for f in functions}
    for function in functions:
        seen: set[int] = set()
        queue = list(graph[id(function)])
        while queue:
            at = queue.pop()
            if at not in seen:
                seen.add(at)
                queue += graph[at]
        if id(function) in seen:
            yield Finding(
                function.source.name, function.line, "recursion", f"{function.name} calls itself"
            )


def _callees(function: Function, functions: Sequence[Function]) -> list[Function]:
    tokens = [token for item in function.body.walk() for token in item.tokens]
    called = set()
    for i, token in enumerate(tokens):
        if token.kind != "name":
            continue
        after = i + 1
        if after < len(tokens) and tokens[after].text == "<":
            after = (closing_angle(tokens, after) or after - 1) + 1
        member = i > 0 and tokens[i - 1].text in MEMBER
        is_call = after < len(tokens) and tokens[after].text == "("
        if is_call or (after < len(tokens) and tokens[after].kind == "name"):
            called.add((token.text, member))
    owners = ("", function.owner)
    return [
        target
        for target in functions
        if ((target.name, False) in called and target.owner in (*owners, target.name))
        or ((target.name, True) in called and target.owner)
    ]


def check_loops(program: Program) -> Iterator[Finding]:
    """Every loop has a label, and a bound that is constant or annotated with LOOP_TRIPCOUNT."""
    for function in program.functions:
        known = constants(program, function)
        for item in function.body.walk():
            if item.kind not in ("for", "while", "do"):
                continue
            where = (function.source.name, item.line)
            if not item.label:
                yield Finding(*where, "loop-label", f"a {item.kind} loop must have a label")
            if any(pragma_name(pragma) == "LOOP_TRIPCOUNT" for pragma in item.pragmas()):
                yield from _check_tripcount(function, item, known)
            elif item.kind != "for" or not has_static_bound(item, known):
                text = (
                    f"loop {item.label or item.kind} must have a constant bound or LOOP_TRIPCOUNT"
                )
                yield Finding(*where, "loop-bound", text)


def _check_tripcount(function: Function, item: Statement, known: set[str]) -> Iterator[Finding]:
    for pragma in item.pragmas():
        if pragma_name(pragma) != "LOOP_TRIPCOUNT":
            continue
        for value in pragma_options(pragma).values():
            names = set(re.findall(r"[A-Za-z_]\w*", value or ""))
            if not all(NAME.match(name) or name in known or name == "C" for name in names):
                text = f"LOOP_TRIPCOUNT must be constant, not {value}"
                yield Finding(function.source.name, pragma.line, "loop-bound", text)


def constants(program: Program, function: Function) -> set[str]:
    """Names with a value at compile time: template parameters, constants, constexpr functions."""
    found = {token.text for token in function.template if token.kind == "name"}
    found |= {f.name for f in program.functions if any(t.text == "constexpr" for t in f.tokens[:4])}
    declared = [item for unit in program.units for item in unit.declarations]
    for item in [*declared, *(i for i in function.body.walk() if i.kind == "plain")]:
        texts = [token.text for token in item.tokens]
        if "=" in texts and texts[0] in ("const", "constexpr", "static"):
            place = texts.index("=")
            value = item.tokens[place + 1 :]
            if ("const" in texts or "constexpr" in texts) and is_constant(value, found):
                found.add(texts[place - 1])
    return found


def is_constant(tokens: Sequence[Token], known: set[str]) -> bool:
    """Whether an expression has a value at compile time."""
    i = 0
    while i < len(tokens):
        token = tokens[i]
        after = i + 1
        if after < len(tokens) and token.kind == "name" and tokens[after].text == "<":
            end = closing_angle(tokens, after)  # Type<C>::NAME
            if end is not None and end + 1 < len(tokens) and tokens[end + 1].text == "::":
                i = end + 1
                continue
        qualifies = after < len(tokens) and tokens[after].text == "::"
        is_type = token.text in TYPE_WORDS or FIXED.match(token.text)
        is_value = NAME.match(token.text) or token.text in known
        if token.kind == "name" and not (qualifies or is_type or is_value):
            return False
        i += 1
    return bool(tokens)


def has_static_bound(item: Statement, known: set[str]) -> bool:
    """Whether a for loop's first value and limit are constant."""
    parts = split(item.tokens, ";")
    if len(parts) != 3:
        return False
    first, condition, _ = parts
    texts = [token.text for token in first]
    if "=" not in texts or not is_constant(first[texts.index("=") + 1 :], known):
        return False
    for i, token in enumerate(condition):
        if token.text in COMPARISONS:
            sides = (condition[:i], condition[i + 1 :])
            return any(is_constant(side, known) for side in sides)
    return False


def check_arrays(program: Program) -> Iterator[Finding]:
    """Every array has a constant size."""
    for unit in program.units:
        inside = [(f, item) for f in unit.functions for item in f.body.walk()]
        for function, item in [*inside, *((None, item) for item in unit.declarations)]:
            known = constants(program, function) if function else set()
            if item.kind != "plain":
                continue
            for size in array_sizes(item.tokens):
                if size and not is_constant(size, known):
                    text = f"the size {' '.join(t.text for t in size)} must be constant"
                    yield Finding(unit.source.name, size[0].line, "array-size", text)


def array_sizes(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """Dimensions of the arrays that a statement declares; nothing for an expression."""
    texts = [token.text for token in tokens]
    if len(tokens) < 3 or "operator" in texts or texts[0] in ("return", "case", "delete"):
        return
    for part in split(tokens):
        i = next((n for n, token in enumerate(part) if token.text == "["), None)
        if i is None or i < 1 or part[i - 1].kind != "name":
            continue
        before = [token.text for token in part[: i - 1]]
        first = part[0] is tokens[0]
        is_type = bool(before) and (part[i - 2].kind == "name" or before[-1] in (">", "*", "&"))
        if "=" in before or "(" in before or (first and not is_type) or (not first and before):
            continue
        if not first and not _declares(tokens):
            continue
        while i < len(part) and part[i].text == "[":
            end = closing(part, i)
            yield part[i + 1 : end]
            i = end + 1


def _declares(tokens: Sequence[Token]) -> bool:
    """Whether a statement begins with a type and a name."""
    i = 0
    while i + 1 < len(tokens) and tokens[i].kind == "name" and tokens[i + 1].text == "::":
        i += 2
    if i + 1 < len(tokens) and tokens[i + 1].text == "<":
        i = closing_angle(tokens, i + 1) or i
    return i + 1 < len(tokens) and tokens[i + 1].kind == "name"


def check_dynamic(program: Program) -> Iterator[Finding]:
    """No virtual functions, run-time types, exceptions, jumps, or function pointers."""
    yield from _words(_sources(program), "dynamic", DYNAMIC, "cannot be synthesized")
    for source in _sources(program):
        texts = [token.text for token in source.tokens]
        for i in range(len(texts) - 4):
            pointer = (
                texts[i] == "(" and texts[i + 1] == "*" and source.tokens[i + 2].kind == "name"
            )
            named = i > 0 and (source.tokens[i - 1].kind == "name" or texts[i - 1] in (">", "*"))
            if pointer and named and texts[i + 3] == ")" and texts[i + 4] == "(":
                text = f"{texts[i + 2]} is a function pointer"
                yield Finding(source.name, source.tokens[i].line, "dynamic", text)


def check_pointers(program: Program) -> Iterator[Finding]:
    """No pointer to a pointer."""
    for source in _sources(program):
        tokens = source.tokens
        for i in range(len(tokens) - 1):
            after = i + 2 if tokens[i + 1].text == "const" else i + 1
            if tokens[i].text == "*" and after < len(tokens) and tokens[after].text == "*":
                text = "a pointer to a pointer cannot be synthesized"
                yield Finding(source.name, tokens[i].line, "pointer", text)


def check_system(program: Program) -> Iterator[Finding]:
    """No headers and calls of an operating system in what synthesis sees."""
    yield from _words(_sources(program), "system", SYSTEM, "is a call of the system")
    for source in _sources(program):
        for header, line in source.includes:
            if not HEADERS.fullmatch(header):
                text = f"{header} must be under #ifndef __SYNTHESIS__"
                yield Finding(source.name, line, "system", text)


def check_pragmas(program: Program) -> Iterator[Finding]:
    """Every pragma and option is Vitis HLS's, names a variable that exists, and has its reason."""
    for unit in program.units:
        owners = {
            id(token): function
            for function in unit.functions
            for token in function.tokens
            if token.kind == "pragma"
        }
        for token in unit.source.tokens:
            if token.kind == "pragma":
                for text in check_pragma(token, owners.get(id(token))):
                    yield Finding(unit.source.name, token.line, "pragma", text)
