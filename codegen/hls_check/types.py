# SPDX-License-Identifier: Apache-2.0
"""Names of types: what an alias stands for, and what a structure holds."""

from nuq.codegen.hls_check.program import Program
from nuq.codegen.hls_check.syntax import Declared, Function, Statement, Tokens, declared, texts

# Types of which nobody has said how many bits are needed.
NATIVE = {"int", "unsigned", "long", "int32_t", "uint32_t", "int64_t", "uint64_t"}


def aliases(program: Program) -> dict[str, list[str]]:
    """Words of the types that typedefs outside of functions and `using NAME =` give names to."""
    found: dict[str, list[str]] = {}
    for item in (item for unit in program.units for item in unit.declarations):
        words = texts(item.tokens)
        if words[0] == "typedef":
            found[words[-1]] = words[1:-1]
        elif words[0] == "using" and words[2:3] == ["="]:
            found[words[1]] = words[3:]
    return found


def native_type(program: Program, type_: Tokens) -> set[str]:
    """The native types that a type is made of, behind its aliases."""
    known = aliases(program)
    words, seen = texts(type_), set[str]()
    while words:
        word = words.pop()
        if word in known and word not in seen:
            words += known[word]
        seen.add(word)
    return NATIVE & seen


def members(program: Program, owner: str) -> list[Declared]:
    """The variables that an object of a structure or class holds."""
    items = [item for unit in program.units for item in unit.declarations if item.owner == owner]
    return [name for item in items for name in members_of(item)]


def members_of(item: Statement) -> list[Declared]:
    """Those of one declaration."""
    return [] if "static" in texts(item.tokens[:1]) else declared(item.tokens)


def structures(program: Program) -> set[str]:
    """Names of all structures and classes."""
    return {item.owner for unit in program.units for item in unit.declarations if item.owner}


def held(program: Program, type_: Tokens) -> list[str]:
    """The structures that a type is made of: its own, and those in its members."""
    known, found = structures(program), list[str]()
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
