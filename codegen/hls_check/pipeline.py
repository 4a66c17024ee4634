# SPDX-License-Identifier: Apache-2.0
"""What a pipelined loop of one iteration a cycle needs: arrays that are registers or memories
because the source says so, and counters that are no wider than they must be.
"""

from collections.abc import Iterator

from nuq.codegen.hls_check.pragmas import pragma_name, pragma_options
from nuq.codegen.hls_check.program import Findings, Program, constants, is_constant, rule
from nuq.codegen.hls_check.rules import has_static_bound
from nuq.codegen.hls_check.syntax import (
    Function,
    Statement,
    Unit,
    array_name,
    calls,
    declared,
    split,
    texts,
    uses,
)
from nuq.codegen.hls_check.types import members, native_type

# Pragmas that say what an array becomes.
STORAGE = {"ARRAY_PARTITION", "ARRAY_RESHAPE", "BIND_STORAGE", "AGGREGATE"}


def pipelines(function: Function) -> Iterator[Statement]:
    """Loops with PIPELINE, but those that switch it off."""
    for item in function.body.walk():
        given = [pragma_options(p) for p in item.pragmas() if pragma_name(p) == "PIPELINE"]
        if item.kind == "for" and any("off" not in options for options in given):
            yield item


@rule("interval")
def interval(_: Program, unit: Unit) -> Findings:
    """A pipelined loop begins an iteration every cycle: the cycles of all models are counted so."""
    for function in unit.functions:
        for loop in pipelines(function):
            for pragma in (p for p in loop.pragmas() if pragma_name(p) == "PIPELINE"):
                given = pragma_options(pragma).get("II")
                if given != "1":
                    yield pragma.line, f"loop {loop.label} must have II = 1, not {given or 'none'}"


@rule("exact-width")
def exact_width(program: Program, unit: Unit) -> Findings:
    """What a pipelined loop carries on from step to step has as many bits as it needs."""
    for function in unit.functions:
        for loop in pipelines(function):
            inside = list(loop.walk())
            outside = [i for i in function.body.walk() if i.kind == "plain" and i not in inside]
            fixed = has_static_bound(loop, constants(program, function))  # narrowed by the tool
            counters = [] if fixed else declared(split(loop.tokens, ";")[0])
            names = [*counters, *(name for item in outside for name in declared(item.tokens))]
            for name in names:
                inner = members(program, name.type[0].text)
                types = {"": name.type, **{item.name.text: item.type for item in inner}}
                changed = {""} if name in counters else _changed(inside, name.name.text)
                for member in sorted(changed & types.keys()):
                    native = native_type(program, types[member])
                    words = bool(name.sizes) and native <= {"uint64_t"}  # of a bus
                    if native and not words:
                        what = f"{name.name.text}.{member}" if member else name.name.text
                        yield (
                            name.name.line,
                            f"{what}, which loop {loop.label} carries on, must have a type of "
                            f"exact width, not {sorted(native)[0]}: Count, ap_uint or one of C::",
                        )


def _changed(items: list[Statement], name: str) -> set[str]:
    """Members of a variable that statements change, "" for the variable or an object's method."""
    changed: set[str] = set()
    for use in (use for item in items for use in uses(item.tokens, name)):
        if not use.effect <= {"read"}:
            method = not use.effect & {"read", "write"}
            changed.add("" if method or not use.members else use.members[0])
    return changed


@rule("array-storage")
def blocks_of_arrays(_: Program, unit: Unit) -> Findings:
    """No partition into blocks: neighbours, which a cycle needs together, would share a memory."""
    for token in (token for token in unit.source.tokens if token.kind == "pragma"):
        options = pragma_options(token)
        cut = pragma_name(token) in ("ARRAY_PARTITION", "ARRAY_RESHAPE")
        if cut and ("block" in options or options.get("type") == "block"):
            yield token.line, f"{options.get('variable')} must be partitioned complete or cyclic"


@rule("array-storage")
def words_of_arrays(_: Program, unit: Unit) -> Findings:
    """What is one word of a memory is written whole: block RAM has write enables for bytes only."""
    for function in unit.functions:
        pragmas = [item.tokens[0] for item in function.body.walk() if item.kind == "pragma"]
        for name, kind in {(pragma_options(p).get("variable"), pragma_name(p)) for p in pragmas}:
            if not name or kind not in ("AGGREGATE", "ARRAY_RESHAPE"):
                continue
            for item in (item for loop in pipelines(function) for item in loop.walk()):
                for use in uses(item.tokens, name):
                    if "write" in use.effect and (use.members or kind == "ARRAY_RESHAPE"):
                        yield item.line, f"a word of {name} must be written whole, as one value"


@rule("array-storage")
def arrays_of_functions(program: Program, unit: Unit) -> Findings:
    """An array with an index that varies in a pipeline says by a pragma what it becomes."""
    for function in unit.functions:
        loops = list(pipelines(function))
        names = constants(program, function, _unrolled(function)) if loops else set()
        items = [item for item in function.body.walk() if item.kind == "plain"]
        own = [name for item in items for name in declared(item.tokens)]
        arrays = {name.name.text for name in own if not {"&", "*"} & set(texts(name.type))}
        bound = _bound(function)
        for loop in loops:
            for name, item in ((name, item) for name in arrays for item in loop.walk()):
                for use in uses(item.tokens, name):
                    meant = bound & {name, *(f"{name}.{member}" for member in use.members)}
                    if not meant and any(not is_constant(i, names) for i in use.indices):
                        yield item.line, _without(".".join((name, *use.members)))


@rule("array-storage")
def arrays_of_classes(program: Program, unit: Unit) -> Findings:
    """So does an array that objects of a class hold; parameters of its functions are constant."""
    for item in (item for item in unit.declarations if item.owner):
        methods = [f for f in program.functions if f.owner == item.owner]
        bound = {name for method in methods for name in _bound(method)}
        for name in (n for n in declared(item.tokens) if n.sizes and n.name.text not in bound):
            if any(_varies(program, method, name.name.text) for method in methods):
                yield name.name.line, _without(name.name.text)


def _without(name: str) -> str:
    return (
        f"{name} has an index that varies in a pipeline: it must have ARRAY_PARTITION (registers), "
        "or BIND_STORAGE or AGGREGATE where a memory is meant"
    )


def _bound(function: Function) -> set[str]:
    """Variables of which a function's pragmas say what they become."""
    pragmas = [item.tokens[0] for item in function.body.walk() if item.kind == "pragma"]
    stored = [pragma_options(pragma) for pragma in pragmas if pragma_name(pragma) in STORAGE]
    return {name for options in stored if (name := options.get("variable"))}


def _unrolled(function: Function) -> set[str]:
    """Counters of loops that are unrolled."""
    loops = [item for item in function.body.walk() if item.counter]
    return {loop.counter for loop in loops if "UNROLL" in [pragma_name(p) for p in loop.pragmas()]}


def _varies(program: Program, method: Function, name: str) -> bool:
    """Whether a method indexes an array by what varies, or a function that it hands it to."""
    fixed = {parameter[-1].text for parameter in method.parameters if parameter}
    names = constants(program, method, _unrolled(method) | fixed)
    for item in method.body.walk():
        if any(not is_constant(i, names) for use in uses(item.tokens, name) for i in use.indices):
            return True
        for call in calls(item.tokens):
            places = [i for i, given in enumerate(call.arguments) if texts(given) == [name]]
            for callee in program.named(call.name) if places else []:
                own = constants(program, callee, _unrolled(callee))
                parameter = array_name(callee.parameters[places[0]])
                for inner in callee.body.walk():
                    for use in uses(inner.tokens, parameter):
                        if any(not is_constant(index, own) for index in use.indices):
                            return True
    return False
