# SPDX-License-Identifier: Apache-2.0
"""The rules of the HLS subset, over all files of a design together.

Each rule yields findings; docs/hls.md has a line on each.
"""

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
    closing_angle,
    declared,
    split,
)

HEAP = {"new", "delete", "malloc", "calloc", "realloc", "free", "alloca"}
DYNAMIC = re.compile("virtual|dynamic_cast|typeid|try|catch|throw|goto|asm|float|double")
SYSTEM = re.compile(
    "f?printf|sprintf|puts|fopen|fclose|fread|fwrite|scanf|exit|abort|system|getenv|time|clock|"
    "s?rand|sleep|cout|cerr|cin"
)
LICENCE = "// SPDX-License-Identifier: Apache-2.0"
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


def _words(program: Program, rule: str, words: re.Pattern[str], text: str) -> Iterator[Finding]:
    for source in _sources(program):
        for token in source.tokens:
            if token.kind == "name" and words.fullmatch(token.text):
                yield Finding(source.name, token.line, rule, f"{token.text} {text}")


def _sources(program: Program) -> list[Source]:
    return [unit.source for unit in program.units]


def check_head(program: Program) -> Iterator[Finding]:
    """A header begins with licence and purpose, and has a guard of its name."""
    for source in _sources(program):
        name = source.name.rpartition("/")[2].removesuffix(".j2")
        if name.endswith(".hpp"):
            guard = f"#ifndef {name.upper().replace('.', '_')}"
            purpose = len(source.lines) > 2 and source.lines[1][:3] == source.lines[2][:3] == "// "
            if source.lines[:1] != (LICENCE,) or not purpose:
                yield Finding(source.name, 1, "head", "the licence and the purpose must come first")
            if guard not in source.lines:
                yield Finding(source.name, 1, "head", f"{guard} must guard the header")


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
    """No memory at run time: new, malloc and their like, the standard library."""
    for source in _sources(program):
        for i, token in enumerate(source.tokens):
            before, after = (source.tokens[max(0, i - 1)].text, source.tokens[i + 1 : i + 3])
            deleted = token.text == "delete" and before == "="  # a deleted function
            if token.text in HEAP and not deleted and before not in MEMBER:
                yield Finding(source.name, token.line, "heap", f"{token.text} takes heap memory")
            if token.text == "std" and len(after) == 2 and after[0].text == "::":
                text = f"std::{after[1].text} may take heap memory"
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
    """Every loop is a `for` with a label of its own and a pragma, and has a constant bound.

    A bound that is not constant is annotated with LOOP_TRIPCOUNT.
    """
    labels: set[tuple[str, str]] = set()
    for function in program.functions:
        known = constants(program, function)
        for item in function.body.walk():
            if item.kind not in ("for", "while", "do"):
                continue
            for rule, line, text in _loop_texts(item, known):
                yield Finding(function.source.name, line, rule, text)
            label = (function.source.name, item.label)
            if item.label and label in labels:
                text = f"label {item.label} must occur once in a file"
                yield Finding(function.source.name, item.line, "loop-label", text)
            labels.add(label)


def _loop_texts(item: Statement, known: set[str]) -> Iterator[tuple[str, int, str]]:
    """Rule, line and text of what is wrong with a loop."""
    name = f"loop {item.label or item.kind}"
    pragmas = [pragma for pragma in item.pragmas() if pragma_name(pragma) == "LOOP_TRIPCOUNT"]
    if not item.label:
        yield "loop-label", item.line, f"a {item.kind} loop must have a label"
    if item.kind != "for":
        yield "loop-bound", item.line, f"{name} must be a for loop"
    elif not pragmas and not has_static_bound(item, known):
        yield "loop-bound", item.line, f"{name} must have a constant bound or LOOP_TRIPCOUNT"
    body = item.body[0].body if item.body[0].kind == "block" else item.body
    if not body or body[0].kind != "pragma":
        yield "loop-pragma", item.line, f"{name} must begin with a pragma: how it is built"
    for pragma in pragmas:
        for value in pragma_options(pragma).values():
            names = set(re.findall(r"[A-Za-z_]\w*", value or ""))
            if not all(NAME.match(name) or name in known or name == "C" for name in names):
                text = f"LOOP_TRIPCOUNT must be constant, not {value}"
                yield "loop-bound", pragma.line, text


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
        bodies = [(constants(program, f), f.body.walk()) for f in unit.functions]
        for known, items in [*bodies, (set(), unit.declarations)]:
            plain = (item.tokens for item in items if item.kind == "plain")
            sizes = (size for tokens in plain for name in declared(tokens) for size in name.sizes)
            for size in sizes:
                if size and not is_constant(size, known):
                    text = f"the size {' '.join(t.text for t in size)} must be constant"
                    yield Finding(unit.source.name, size[0].line, "array-size", text)


def check_dynamic(program: Program) -> Iterator[Finding]:
    """No virtual functions, run-time types, exceptions, jumps, or function pointers."""
    yield from _words(program, "dynamic", DYNAMIC, "cannot be synthesized")
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
    yield from _words(program, "system", SYSTEM, "is a call of the system")
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
