# SPDX-License-Identifier: Apache-2.0
"""The rules of the HLS subset, but for pragmas and dataflow; docs/hls.md has a line on each."""

import re
from collections.abc import Iterator

from nuq.codegen.hls_check.pragmas import is_unrolled, pragma_name, pragma_options
from nuq.codegen.hls_check.program import CONSTANT, Findings, Program, constants, is_constant, rule
from nuq.codegen.hls_check.syntax import (
    CLOSING,
    CONTROL,
    LOOPS,
    MEMBER,
    OPENING,
    Function,
    Statement,
    Unit,
    after_template,
    array_name,
    declared,
    split,
    texts,
    uses,
)

HEAP = {"new", "delete", "malloc", "calloc", "realloc", "free", "alloca"}
DYNAMIC = re.compile(
    "virtual|dynamic_cast|typeid|try|catch|throw|goto|asm|float|double|thread_local|extern|volatile"
)
SYSTEM = re.compile(
    "f?printf|sprintf|puts|fopen|fclose|fread|fwrite|scanf|exit|abort|system|getenv|time|clock|"
    "s?rand|sleep|cout|cerr|cin"
)
LICENCE = "// SPDX-License-Identifier: Apache-2.0"
# Headers that synthesis may see: exact-width integers, the vendor's types, and the design's own.
HEADERS = re.compile(r"cstdint|stdint\.h|cstddef|(ap_|hls_|hls/)\w+(\.h(pp)?)?|\w+\.hpp")
COMPARISONS = ("<", ">", "<=", ">=", "!=")


def _words(unit: Unit, words: re.Pattern[str], text: str) -> Findings:
    for token in unit.source.tokens:
        if token.kind == "name" and words.fullmatch(token.text):
            yield token.line, f"{token.text} {text}"


@rule("head")
def head(_: Program, unit: Unit) -> Findings:
    """A header begins with licence and purpose, and has a guard of its name."""
    lines = unit.source.lines
    name = unit.source.file
    if name.endswith(".hpp"):
        guard = f"#ifndef {name.upper().replace('.', '_')}"
        purpose = len(lines) > 2 and lines[1][:3] == lines[2][:3] == "// "
        if lines[:1] != (LICENCE,) or not purpose:
            yield 1, "the licence and the purpose must come first"
        if guard not in lines:
            yield 1, f"{guard} must guard the header"


@rule("syntax")
def syntax(_: Program, unit: Unit) -> Findings:
    """The other rules see everything: brackets match, statements stand in functions, no macros."""
    depth = 0
    for token in unit.source.tokens:
        depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth < 0:
            yield token.line, f"{token.text} closes nothing"
            break
    if depth > 0:
        yield unit.source.tokens[-1].line, "a bracket is not closed"
    for macro, line in unit.source.macros:
        if macro != "PROCESS":
            yield line, f"macro {macro} hides what it stands for"
    for function in unit.functions:
        if function.name in CONTROL:
            yield function.line, f"{function.name} must stand in a function"


@rule("heap")
def heap(_: Program, unit: Unit) -> Findings:
    """No memory at run time: new, malloc and their like, the standard library."""
    tokens = unit.source.tokens
    for i, token in enumerate(tokens):
        before, after = tokens[max(0, i - 1)].text, tokens[i + 1 : i + 3]
        deleted = token.text == "delete" and before == "="  # a deleted function
        if token.text in HEAP and not deleted and before not in MEMBER:
            yield token.line, f"{token.text} takes heap memory"
        if token.text == "std" and len(after) == 2 and after[0].text == "::":
            yield token.line, f"std::{after[1].text} may take heap memory"


@rule("recursion")
def recursion(program: Program, unit: Unit) -> Findings:
    """No function that calls itself, directly or through others; names stand for all overloads."""
    for function in unit.functions:
        seen: set[int] = set()
        queue = callees(program, function.body, function.owner)
        while queue:
            callee = queue.pop()
            if id(callee) not in seen:
                seen.add(id(callee))
                queue += callees(program, callee.body, callee.owner)
        if id(function) in seen:
            yield function.line, f"{function.name} calls itself"


def callees(program: Program, body: Statement, owner: str) -> list[Function]:
    """Functions of the names that a body in a class calls, and constructors of what it declares."""
    tokens = [token for item in body.walk() for token in item.tokens]
    called = set()
    for i, token in enumerate(tokens):
        follows = tokens[after_template(tokens, i) :][:1]
        if token.kind == "name" and any(t.text == "(" or t.kind == "name" for t in follows):
            called.add((token.text, i > 0 and tokens[i - 1].text in MEMBER))
    return [
        target
        for target in program.functions
        if ((target.name, False) in called and target.owner in ("", owner, target.name))
        or ((target.name, True) in called and target.owner)
    ]


def _loops(unit: Unit) -> Iterator[tuple[Function, Statement, str]]:
    """Loops with their function and what to call them."""
    for function in unit.functions:
        for item in function.body.walk():
            if item.kind in LOOPS:
                yield function, item, f"loop {item.label or item.kind}"


@rule("loop-label")
def loop_label(_: Program, unit: Unit) -> Findings:
    """Every loop has a label, by which reports and directives find it, of its own in the file."""
    labels: set[str] = set()
    for _function, loop, _name in _loops(unit):
        if not loop.label:
            yield loop.line, f"a {loop.kind} loop must have a label"
        elif loop.label in labels:
            yield loop.line, f"label {loop.label} must occur once in a file"
        labels.add(loop.label)


@rule("loop-pragma")
def loop_pragma(_: Program, unit: Unit) -> Findings:
    """A loop begins with a pragma."""
    for _function, loop, name in _loops(unit):
        if [item.kind for item in loop.statements[:1]] != ["pragma"]:
            yield loop.line, f"{name} must begin with a pragma: how it is built"


@rule("loop-bound")
def loop_bound(program: Program, unit: Unit) -> Findings:
    """Loops are `for` loops with a constant bound, or LOOP_TRIPCOUNT gives one.

    Of a loop that is unrolled, the bound itself is: counters of unrolled loops around it are, too.
    """
    for function, loop, name in _loops(unit):
        names = constants(program, function)
        unrolled = [i for i in function.body.walk() if i.kind in LOOPS and is_unrolled(i)]
        outer = {i.counter for i in unrolled if any(n is loop for n in i.walk()) and i is not loop}
        pragmas = [pragma for pragma in loop.pragmas() if pragma_name(pragma) == "LOOP_TRIPCOUNT"]
        if loop.kind != "for":
            yield loop.line, f"{name} must be a for loop"
        elif is_unrolled(loop) and not has_static_bound(loop, names | outer):
            yield loop.line, f"{name} must have a constant bound: it is unrolled"
        elif not pragmas and not has_static_bound(loop, names):
            yield loop.line, f"{name} must have a constant bound or LOOP_TRIPCOUNT"
        for pragma in pragmas:
            for value in pragma_options(pragma).values():
                words = set(re.findall(r"[A-Za-z_]\w*", value or ""))
                if not all(CONSTANT.match(word) or word in names for word in words):
                    yield pragma.line, f"LOOP_TRIPCOUNT must be constant, not {value}"


def has_static_bound(loop: Statement, names: set[str]) -> bool:
    """Whether a for loop's first value, limit and step are constant."""
    parts = split(loop.tokens, ";")
    if len(parts) != 3:
        return False
    first, condition, step = parts
    words = texts(first)
    if "=" not in words or not is_constant(first[words.index("=") + 1 :], names):
        return False
    if not is_constant(step, names | {words[words.index("=") - 1]}):
        return False
    for i, token in enumerate(condition):
        if token.text in COMPARISONS:
            return any(is_constant(side, names) for side in (condition[:i], condition[i + 1 :]))
    return False


@rule("array-size")
def array_size(program: Program, unit: Unit) -> Findings:
    """Every array has a constant size."""
    bodies = [(constants(program, f), f.body.walk()) for f in unit.functions]
    for names, items in [*bodies, (set[str](), iter(unit.declarations))]:
        plain = (item.tokens for item in items if item.kind == "plain")
        for size in (size for tokens in plain for name in declared(tokens) for size in name.sizes):
            if size and not is_constant(size, names):
                yield size[0].line, f"the size {' '.join(texts(size))} must be constant"


@rule("dynamic")
def dynamic(_: Program, unit: Unit) -> Findings:
    """No virtual functions, run-time types, exceptions, jumps, function pointers, fractions."""
    yield from _words(unit, DYNAMIC, "cannot be synthesized")
    tokens = unit.source.tokens
    for i in range(1, len(tokens) - 4):
        # TYPE (*NAME)(
        before, name = tokens[i - 1], tokens[i + 2]
        signs = texts((*tokens[i : i + 2], *tokens[i + 3 : i + 5]))
        typed = before.kind == "name" or before.text in (">", "*")
        if signs == ["(", "*", ")", "("] and name.kind == "name" and typed:
            yield tokens[i].line, f"{name.text} is a function pointer"


@rule("pointer")
def pointer(_: Program, unit: Unit) -> Findings:
    """No pointer to a pointer, none that moves: arrays are used by their indices."""
    yield from _moved(unit)
    signs = [token for token in unit.source.tokens if token.text != "const"]
    for first, second in zip(signs, signs[1:], strict=False):
        if first.text == second.text == "*":
            yield first.line, "a pointer to a pointer cannot be synthesized"


def _moved(unit: Unit) -> Findings:
    """Dereferences of computed addresses, pointers that are variables or that change."""
    tokens = unit.source.tokens
    for before, sign, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        unary = before.kind == "sign" and before.text not in (")", "]", ">")
        computed = sign.text == "*" and after.text == "(" and (unary or before.text == "return")
        if computed or (before.text, sign.text) == (")", "["):
            yield sign.line, "an element must be named by its index, not by an address"
    for function in unit.functions:
        items = [item for item in function.body.walk() if item.kind == "plain"]
        for own in (own for item in items for own in declared(item.tokens)):
            if own.stands_for == "*":
                yield own.name.line, f"{own.name.text} is a pointer: use the array's own name"
        given = [p for p in function.parameters if {"*", "["} & set(texts(p))]
        for item, name in ((item, array_name(p)) for item in items for p in given):
            for use in uses(item.tokens, name):
                by_star = texts(item.tokens[max(0, use.at - 1) : use.at]) == ["*"]
                if "write" in use.effect and not (use.indices or use.members or by_star):
                    yield item.line, f"{name} must not move: use an index"


@rule("system")
def system(_: Program, unit: Unit) -> Findings:
    """No headers and calls of an operating system in what synthesis sees."""
    yield from _words(unit, SYSTEM, "is a call of the system")
    for header, line in unit.source.includes:
        if not HEADERS.fullmatch(header):
            yield line, f"{header} must be under #ifndef __SYNTHESIS__"
