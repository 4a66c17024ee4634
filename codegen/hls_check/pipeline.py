# SPDX-License-Identifier: Apache-2.0
"""What a pipelined loop of one iteration a cycle needs: arrays that are registers or memories
because the source says so, and counters that are no wider than they must be.
"""

from collections import defaultdict
from collections.abc import Iterator

from nuq.codegen.hls_check.allowed import ADDRESSED, MEMORIES, ONE_PORT, PROMISES, SEQUENTIAL
from nuq.codegen.hls_check.lexer import Token
from nuq.codegen.hls_check.pragmas import is_unrolled, pragma_name, pragma_options
from nuq.codegen.hls_check.program import Findings, Program, constants, is_constant, rule
from nuq.codegen.hls_check.rules import has_static_bound
from nuq.codegen.hls_check.syntax import (
    LOOPS,
    OPENING,
    Declared,
    Function,
    Statement,
    Tokens,
    Unit,
    Use,
    array_name,
    calls,
    closing,
    declared,
    split,
    texts,
    uses,
)
from nuq.codegen.hls_check.types import held, inexact, members, variable

# Pragmas that make an array registers, and those that make it a memory where allowed.py lists it.
REGISTERS = {"ARRAY_PARTITION", "ARRAY_RESHAPE"}
STORAGE = {"BIND_STORAGE", "AGGREGATE"}
ALL = 0  # dimensions


def pipelines(function: Function) -> Iterator[Statement]:
    """Loops with PIPELINE, but those that switch it off."""
    for item in function.body.walk():
        given = [pragma_options(p) for p in item.pragmas() if pragma_name(p) == "PIPELINE"]
        if item.kind == "for" and any("off" not in options for options in given):
            yield item


@rule("interval")
def interval(_: Program, unit: Unit) -> Findings:
    """A pipelined loop begins an iteration every cycle: the cycles of all models are counted so.

    What is pipelined is a loop: a function with PIPELINE is a part of its own that begins as often.
    """
    of_loops = set[int]()
    for function in unit.functions:
        for loop in (item for item in function.body.walk() if item.kind in LOOPS):
            for pragma in (p for p in loop.pragmas() if pragma_name(p) == "PIPELINE"):
                of_loops.add(id(pragma))
                options = pragma_options(pragma)
                given = options.pop("II", None)
                if "off" in options and loop.label not in SEQUENTIAL:
                    text = f"loop {loop.label} must be pipelined: not among those that may be off"
                    yield pragma.line, f"{text} ({', '.join(SEQUENTIAL)}; allowed.py)"
                elif "off" not in options and (given != "1" or options):
                    text = f"loop {loop.label} must have II = 1"
                    yield pragma.line, f"{text}, not {' '.join(options) or given or 'none'}"
    for token in (token for token in unit.source.tokens if token.kind == "pragma"):
        if pragma_name(token) == "PIPELINE" and id(token) not in of_loops:
            yield token.line, "PIPELINE must stand in the body of the loop that it is about"


@rule("dependence")
def promises(_: Program, unit: Unit) -> Findings:
    """A promise about the order of an array's uses is one of those with a proof."""
    for token in (token for token in unit.source.tokens if token.kind == "pragma"):
        options = pragma_options(token)
        name = options.pop("variable", None)
        if pragma_name(token) != "DEPENDENCE":
            continue
        if name not in PROMISES:
            text = f"DEPENDENCE of {name} must be proved: it is none of {', '.join(PROMISES)}"
            yield token.line, f"{text} (allowed.py)"
        elif {*options} != {"inter", "RAW", "distance", "true"}:
            yield token.line, f"DEPENDENCE of {name} must be inter RAW distance = N true"


@rule("exact-width")
def exact_width(program: Program, unit: Unit) -> Findings:
    """What a pipelined loop carries on from step to step has as many bits as it needs."""
    for token in (token for token in unit.source.tokens if token.text in ("auto", "decltype")):
        yield token.line, f"{token.text} hides a type: name it"
    for function in unit.functions:
        for loop in pipelines(function):
            inside = list(loop.walk())
            outside = [i for i in function.body.walk() if i.kind == "plain" and i not in inside]
            values = constants(program, function)
            fixed = has_static_bound(loop, values)  # narrowed by the tool
            counters = [] if fixed else declared(split(loop.tokens, ";")[0])
            names = [*counters, *(name for item in outside for name in declared(item.tokens))]
            for name in names:
                changed = {""} if name in counters else _changed(program, inside, name.name.text)
                for what, type_, is_array in sorted(_parts(program, name, changed)):
                    vague = inexact(program, type_) - values
                    words = is_array and vague <= {"uint64_t"}  # of a bus
                    if vague and not words:
                        yield (
                            name.name.line,
                            f"{what}, which loop {loop.label} carries on, must have a type of "
                            f"exact width, not {sorted(vague)[0]}: Count, ap_uint or one of C::",
                        )


def _parts(
    program: Program, name: Declared, changed: set[str]
) -> Iterator[tuple[str, tuple[Token, ...], bool]]:
    """What changes of a variable: what to call it, its type, whether it is an array.

    changed: members, "" for all of them.
    """
    if "" in changed:
        yield name.name.text, tuple(name.type), bool(name.sizes)
    for i, owner in enumerate(held(program, name.type)):
        for member in members(program, owner):
            if "" in changed or (i == 0 and member.name.text in changed):
                what = f"{owner if i else name.name.text}.{member.name.text}"
                yield what, tuple(member.type), bool(name.sizes or member.sizes)


def _changed(program: Program, items: list[Statement], name: str) -> set[str]:
    """Members of a variable that statements change, "" for the variable or an object's method."""
    changed: set[str] = set()
    for item in items:
        for use in uses(item.tokens, name):
            method = not use.effect & {"read", "write"}
            if "write" in use.effect or method or _by_reference(program, item, use):
                changed.add("" if method or not use.members else use.members[0])
    return changed


def _by_reference(program: Program, item: Statement, use: Use) -> bool:
    """Whether a function that a variable is handed to, or another name of it, may change it."""
    for other in declared(item.tokens) if item.kind == "plain" else []:
        constant = "const" in texts(other.type)
        if other.stands_for and not constant and other.name.text != use.name:
            return True
    around = [call for call in calls(item.tokens) if call.start < use.at < call.end]
    for place, argument in enumerate(around[-1].arguments if around else []):
        if any(part is item.tokens[use.at] for part in argument):
            alone = len(argument) - (argument[0].text == "&") == use.end - use.at
            functions = program.named(around[-1].name) if alone else []
            given = [texts(f.parameters[place]) for f in functions if len(f.parameters) > place]
            return any({"&", "*", "["} & set(words) and "const" not in words for words in given)
    return False


@rule("array-storage")
def partitions_of_arrays(program: Program, unit: Unit) -> Findings:
    """Partitions are complete, in a dimension that there is: neighbours are needed together."""
    for function in unit.functions:
        for token in (item.tokens[0] for item in function.body.walk() if item.kind == "pragma"):
            if pragma_name(token) not in REGISTERS:
                continue
            options = pragma_options(token)
            name = options.get("variable") or ""
            if (options.get("type") or "complete") != "complete" or (
                {"block", "cyclic", "off"} & options.keys()
            ):
                yield token.line, f"{name} must be partitioned complete"
            dim = options.get("dim") or ""
            sizes = _sizes(program, function, name)
            if dim.isdigit() and sizes is not None and int(dim) > sizes:
                yield token.line, f"{name} has no dimension {dim} to be partitioned"


def _sizes(program: Program, function: Function, name: str) -> int | None:
    """Dimensions of an array of a function or of its class; None for anything else."""
    own = variable(function, name)
    found = [own] if own else [m for m in members(program, function.owner) if m.name.text == name]
    return len(found[0].sizes) if found else None


@rule("array-storage")
def ports_of_memories(_: Program, unit: Unit) -> Findings:
    """A memory has a port to write and one to read, or is one of those that need a single one."""
    for function in unit.functions:
        for token in (item.tokens[0] for item in function.body.walk() if item.kind == "pragma"):
            options = pragma_options(token)
            name, kind = options.get("variable") or "", options.get("type") or ""
            good = ("ram_s2p", *(("ram_1p", "rom_1p") if name in ONE_PORT else ()))
            if pragma_name(token) == "BIND_STORAGE" and kind not in good:
                yield token.line, f"{name} must be a ram_s2p: {kind or 'none'} has other ports"


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
        arrays = {name.name.text: name for name in own if not name.stands_for}
        bound = _bound(function)
        for loop in loops:
            for name, item in ((name, item) for name in arrays for item in loop.walk()):
                for use in uses(item.tokens, name):
                    meant = bound[name].union(*(bound[f"{name}.{m}"] for m in use.members))
                    indices = [*use.indices, *_moved(item.tokens, use, arrays[name])]
                    if any(
                        not is_constant(index, names) and not {place, ALL} & meant
                        for place, index in enumerate(indices, 1)
                    ):
                        yield item.line, _without(".".join((name, *use.members)))


def _moved(tokens: Tokens, use: Use, array: Declared) -> Iterator[Tokens]:
    """What `array + i` adds to its address."""
    bare = array.sizes and not use.indices and not use.members
    if bare and texts(tokens[use.end : use.end + 1]) in (["+"], ["-"]):
        end = use.end + 1
        while end < len(tokens) and tokens[end].text not in (",", ")", "]"):
            end = (closing(tokens, end) if tokens[end].text in OPENING else end) + 1
        yield tokens[use.end + 1 : end]


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
        "or BIND_STORAGE or AGGREGATE where allowed.py lists it as a memory"
    )


def _bound(function: Function) -> defaultdict[str, set[int]]:
    """Variables of which a function's pragmas say what they become, and in which dimensions."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for token in (item.tokens[0] for item in function.body.walk() if item.kind == "pragma"):
        options = pragma_options(token)
        name = options.get("variable")
        memory = pragma_name(token) in STORAGE and name in {*MEMORIES, *ADDRESSED}
        if name and (memory or pragma_name(token) in REGISTERS):
            cut = pragma_name(token) == "ARRAY_PARTITION" and "." not in name
            dim = options.get("dim") or "1"
            found[name].add(int(dim) if cut and dim.isdigit() else ALL)
    return found


def _unrolled(function: Function) -> set[str]:
    """Counters of loops that are unrolled."""
    return {loop.counter for loop in function.body.walk() if loop.counter and is_unrolled(loop)}


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
