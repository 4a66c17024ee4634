# SPDX-License-Identifier: Apache-2.0
"""A whole design, from its top function down: one engine, which has its memories apart."""

from collections.abc import Iterator

from nuq.codegen.hls_check.dataflow import PORTS, regions
from nuq.codegen.hls_check.front_end import TOP
from nuq.codegen.hls_check.pragmas import pragma_name, pragma_options
from nuq.codegen.hls_check.program import Findings, Program, rule
from nuq.codegen.hls_check.syntax import Call, Function, Statement, Unit, calls, texts


@rule("dataflow")
def region_of_design(program: Program, unit: Unit) -> Findings:
    """A design has one region; what is called more than once on the way to it is not inlined.

    Else each call is an engine of its own. A memory is one argument of such a call: two of them
    would be written and read as if they were apart. Of a top file with the headers that it names.
    """
    files = {other.source.file for other in program.units}
    own = {header for header, _ in unit.source.includes if header.endswith(".hpp")}
    if unit.source.file != TOP or not own <= files:
        return
    found = [function for other in program.units for function, _ in regions(other)]
    if len(found) != 1:
        yield 1, f"a design must have one DATAFLOW region, not {len(found)}"
    todo, seen = found, set[int]()
    while todo:
        function = todo.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        sites = list(_sites(program, function))
        todo += [caller for caller, _, _ in sites]
        if len(sites) > 1 and not _is_apart(function):
            text = f"{function.name} is called {len(sites)} times: it must have INLINE off"
            yield sites[0][1].line, f"{text}, or each call is an engine of its own"
        for _, item, call in sites:
            memories = list(_memories(function, call))
            for name in sorted({name for name in memories if memories.count(name) > 1}):
                yield item.line, f"memory {name} must be one argument of {function.name}, not two"


def _sites(program: Program, callee: Function) -> Iterator[tuple[Function, Statement, Call]]:
    """Where a function is called."""
    for function in program.functions:
        for item in function.body.walk():
            for call in calls(item.tokens):
                if call.name == callee.name and function is not callee:
                    yield function, item, call


def _is_apart(function: Function) -> bool:
    """Whether a function is not inlined."""
    given = [pragma_options(p) for p in function.body.pragmas() if pragma_name(p) == "INLINE"]
    return any("off" in options for options in given)


def _memories(function: Function, call: Call) -> Iterator[str]:
    """Names of the memories and ports that a call hands over."""
    for parameter, argument in zip(function.parameters, call.arguments, strict=False):
        if {"[", "*", *PORTS} & set(texts(parameter)) and len(argument) == 1:
            yield argument[0].text
