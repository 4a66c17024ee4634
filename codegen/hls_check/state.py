# SPDX-License-Identifier: Apache-2.0
"""What processes keep and share: a layer must not depend on the one before it, nor on what another
process has in a variable.

Read from the sources, and from the LLVM IR of a compiled design, where no name hides a variable.
"""

from collections import defaultdict
from collections.abc import Iterator

from nuq.codegen.hls_check.allowed import MEMORIES
from nuq.codegen.hls_check.dataflow import parts_of_processes, regions
from nuq.codegen.hls_check.llvm import Module, source_name
from nuq.codegen.hls_check.pipeline import pipelines
from nuq.codegen.hls_check.program import Finding, Findings, Program, rule
from nuq.codegen.hls_check.syntax import (
    MEMBER,
    Declared,
    Function,
    Statement,
    Tokens,
    Unit,
    array_name,
    declared,
    texts,
)


def variables(tokens: Tokens) -> Iterator[Declared]:
    """What a declaration gives a value that may change."""
    for name in declared(tokens):
        words = texts(name.type)
        at = next(i for i, token in enumerate(tokens) if token is name.name)
        kinds = [token.kind for token in tokens[at + 2 : at + 3]]
        function = texts(tokens[at + 1 : at + 2]) == ["("] and kinds in (["name"], ["sign"])
        if not function and ("*" in words or not {"const", "constexpr"} & set(words)):
            yield name


def statics(items: Iterator[Statement]) -> Iterator[Declared]:
    """Those among them that keep their value."""
    for item in (item for item in items if item.kind == "plain"):
        yield from (name for name in variables(item.tokens) if "static" in texts(name.type))


@rule("state")
def kept(program: Program, unit: Unit) -> Findings:
    """What a process keeps from layer to layer is a memory of the list in allowed.py."""
    parts = {id(f) for f in (*parts_of_processes(program), *(f for f, _ in regions(unit)))}
    for function in unit.functions:
        inside = {
            id(i) for loop in pipelines(function) for n in statics(loop.walk()) for i in [n.name]
        }
        for name in statics(function.body.walk()):
            memory = bool(name.sizes) and name.name.text in MEMORIES
            if id(name.name) in inside or (id(function) in parts and not memory):
                text = f"static {name.name.text} of {function.name} keeps its value"
                yield name.name.line, f"{text}: only memories that allowed.py lists may"
    for item in (item for item in unit.declarations if item.owner):
        for name in statics(iter([item])):
            yield name.name.line, f"static {item.owner}.{name.name.text} must be constant"


@rule("state")
def shared(program: Program, unit: Unit) -> Findings:
    """A process uses no variable of the file: memories are its arguments."""
    items = [item for other in program.units for item in other.declarations if not item.owner]
    names = {name.name.text for item in items for name in variables(item.tokens)}
    here = {id(function) for function in unit.functions}
    for function in (part for part in parts_of_processes(program) if id(part) in here):
        own = _own(function)
        for before, token in zip(function.tokens, function.tokens[1:], strict=False):
            if token.text in names - own and before.text not in (*MEMBER, "::"):
                text = f"{function.name} uses {token.text}, a variable of the file"
                yield token.line, f"{text}: it must be an argument, of one process"


def _own(function: Function) -> set[str]:
    """Names of a function's parameters and variables."""
    items = [item for item in function.body.walk() if item.kind == "plain"]
    local = {name.name.text for item in items for name in declared(item.tokens)}
    return local | {array_name(parameter) for parameter in function.parameters if parameter}


def check_state(module: Module) -> list[Finding]:
    """Variables that two processes of a compiled design use, or that one keeps and no list has."""
    called = {name for f in module.functions for item in f.values.values() if item.op == "call"
              for name in item.operands}  # fmt: skip
    users: defaultdict[str, dict[str, str]] = defaultdict(dict)  # variable: process, place
    for function in (f for f in module.functions if f"@{f.symbol}" in called):
        somewhere = next((i.place for i in function.values.values() if module.place(i.place)), "")
        for item in function.values.values():
            for name in module.variables.intersection(item.operands):
                place = item.place if module.place(item.place) else somewhere
                users[name].setdefault(function.name, place)
    findings = []
    for name, places in users.items():
        variable = source_name(name.lstrip("@"))
        found = module.place(next(iter(places.values())))
        file, line = (found.file, found.line) if found else ("", 0)
        if len(places) > 1:
            who = " and ".join(sorted(places))
            text = f"{variable} is a variable of {who}: hand its value on by a stream"
            findings.append(Finding(file, line, "state", text))
        elif variable.partition(".")[0] not in MEMORIES:
            text = f"{next(iter(places))} keeps {variable}: only memories of allowed.py may be kept"
            findings.append(Finding(file, line, "state", text))
    return findings
