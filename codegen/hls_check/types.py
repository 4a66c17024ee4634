# SPDX-License-Identifier: Apache-2.0
"""Names of types: what an alias stands for, and what a structure holds."""

from nuq.codegen.hls_check.program import CONSTANT, Program
from nuq.codegen.hls_check.syntax import (
    CLASSES,
    Declared,
    Function,
    Statement,
    Tokens,
    declared,
    texts,
)

# Types that say how many bits they have; 32 and 64 of them are too many for a counter.
EXACT = {"bool", "ap_int", "ap_uint", "int8_t", "uint8_t", "int16_t", "uint16_t", "Count", "Digit"}
QUALIFIERS = {"const", "constexpr", "static", "mutable", "inline", "typename", *CLASSES}
# Structures of exact types that the code generator writes.
NETWORKS = ("C", "Network")


def inexact(program: Program, type_: Tokens) -> set[str]:
    """The words of a type, behind its aliases, of which nobody has said how many bits they need."""
    known = program.aliases
    fine = EXACT | QUALIFIERS | program.structures | program.enumerations
    todo, seen, found = [texts(type_)], set[str](), set[str]()
    while todo:
        words = todo.pop()
        for i, word in enumerate(words):
            of_network = words[max(0, i - 2) : i] in ([name, "::"] for name in NETWORKS)
            if word in known and word not in seen:
                todo.append(known[word])
            elif not word.isidentifier() or word in fine | seen or of_network:
                continue
            elif not CONSTANT.match(word) and word not in known:
                found.add(word)
            seen.add(word)
    return found


def members(program: Program, owner: str) -> list[Declared]:
    """The variables that an object of a structure or class holds."""
    items = [item for unit in program.units for item in unit.declarations if item.owner == owner]
    return [name for item in items for name in members_of(item)]


def members_of(item: Statement) -> list[Declared]:
    """Those of one declaration."""
    return [] if "static" in texts(item.tokens[:1]) else declared(item.tokens)


def held(program: Program, type_: Tokens) -> list[str]:
    """The structures that a type is made of: its own, and those in its members."""
    known, found = program.structures, list[str]()
    words = texts(type_)
    while words:
        word = words.pop(0)
        if word in known and word not in found:
            found.append(word)
            words += [text for member in members(program, word) for text in texts(member.type)]
    return found


def variable(function: Function, name: str) -> Declared | None:
    """The variable of a name that a function declares."""
    items = [item for item in function.body.walk() if item.kind == "plain"]
    named = (name_ for item in items for name_ in declared(item.tokens))
    return next((item for item in named if item.name.text == name), None)
