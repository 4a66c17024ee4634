# SPDX-License-Identifier: Apache-2.0
"""The form of a DATAFLOW region (UG1399, "Canonical Forms"): declarations and calls, nothing else.

Every channel, a local stream or array, is written by one process and read by one later process.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache

from nuq.codegen.hls_check.lexer import lex
from nuq.codegen.hls_check.pipeline import pipelines
from nuq.codegen.hls_check.pragmas import is_unrolled, pragma_name, pragma_options
from nuq.codegen.hls_check.program import Findings, Program, constants, is_constant, rule
from nuq.codegen.hls_check.rules import callees
from nuq.codegen.hls_check.syntax import (
    LOOPS,
    Call,
    Declared,
    Function,
    Statement,
    Tokens,
    Unit,
    array_name,
    calls,
    declared,
    parse,
    split,
    texts,
    uses,
)
from nuq.codegen.hls_check.types import held, inexact, members_of

STREAMS = {"Fifo", "Stream", "stream"}
DEFAULT_DEPTH = "2"  # of a stream without a pragma
PORTS = {"MemoryPort", "burst_maxi"}
UNSIGNED = re.compile(r"unsigned|uint\d+_t|ap_uint|size_t|typename")
# The one process that may read and write a memory from outside: it fills the cache in it.
CACHE = "read_words"
DEPTH = 8  # calls that a channel is followed through


def regions(unit: Unit) -> Iterator[tuple[Function, Statement]]:
    """Functions with a region, and what it is the body of: the function's block, or a loop."""
    for function in unit.functions:
        for item in function.body.walk():
            names = [pragma_name(pragma) for pragma in item.pragmas()]
            if "DATAFLOW" in names and (item is function.body or item.kind in LOOPS):
                yield function, item


def process(item: Statement) -> Call | None:
    """The call that a statement is; None for anything else."""
    call = next(calls(item.tokens), None) if item.kind == "plain" else None
    return call if call and (call.start, call.end) == (0, len(item.tokens) - 1) else None


def channels(item: Statement) -> list[Declared]:
    """Streams and arrays among the names that a statement declares."""
    return [
        name
        for name in (declared(item.tokens) if item.kind == "plain" and not process(item) else [])
        if name.sizes or any(token.text in STREAMS for token in name.type[:3])
    ]


def loops_of_processes(sources: Mapping[str, str]) -> list[str]:
    """Labels of the pipelined loops of all processes of a design's regions: every engine has them.

    sources: texts of its files by name.
    """
    units = [parse(lex(name, text)) for name, text in sources.items()]
    items = [item for unit in units for _, region in regions(unit) for item in region.statements]
    names = {call.name for item in items if (call := process(item))}
    functions = [f for unit in units for f in unit.functions if f.name in names]
    return [loop.label for function in functions for loop in pipelines(function)]


@rule("dataflow")
def loop_of_region(program: Program, unit: Unit) -> Findings:
    """A loop around a region counts from 0 by 1, unsigned, and is all that its function has."""
    for function, loop in regions(unit):
        if loop is function.body:
            continue
        parts = split(loop.tokens, ";")
        first, condition, step = map(texts, parts) if len(parts) == 3 else ([], [], [])
        name = first[-3] if len(first) > 3 and first[-2:] == ["=", "0"] else ""
        steps = ([name, "++"], ["++", name], [name, "+=", "1"])
        around = "the loop around a region must"
        if loop.kind != "for" or not name or condition[:2] != [name, "<"] or step not in steps:
            yield loop.line, f"{around} count from 0 by 1 while it is below its limit"
            continue
        limits = {
            parameter[-1].text
            for parameter in function.parameters
            if any(UNSIGNED.fullmatch(word) for word in texts(parameter))
        }
        if not UNSIGNED.fullmatch(first[0]):
            yield loop.line, f"{around} have an unsigned counter, not {first[0]} {name}"
        if not is_constant(parts[1][2:], constants(program, function) | limits):
            yield loop.line, f"the limit of {around} be a constant or an unsigned parameter"
        for item in function.body.statements:
            if item is not loop and item.kind != "pragma":
                yield item.line, f"{around} be the only statement of {function.name}"


@rule("dataflow")
def statements_of_region(program: Program, unit: Unit) -> Findings:
    """A region has declarations and calls only, of functions that return nothing."""
    for function, region in regions(unit):
        fixed = constants(program, function)
        for item in region.statements:
            if item.kind not in ("plain", "pragma"):
                yield item.line, f"a {item.kind} statement must not stand in the region"
            elif call := process(item):
                heads = [texts(f.tokens) for f in program.named(call.name)]
                if any("void" not in head[: head.index("(")] for head in heads):
                    yield item.line, f"{call.name} must return nothing to be a process"
                for argument in call.arguments:
                    words = [word for word in texts(argument) if word != "."]  # of a pack's ...
                    if len(words) != 1 and not is_constant(argument, fixed):
                        text = f"{''.join(texts(argument))} must be a variable of its own"
                        yield item.line, f"{text}: a region computes nothing"
            elif item.kind == "plain" and item.tokens:
                names = declared(item.tokens)
                if not names or ("=" in texts(item.tokens) and not _fixed(item, fixed)):
                    yield item.line, "the region must have declarations and calls only"


def _fixed(item: Statement, names: set[str]) -> bool:
    """Whether a declaration gives its variable a constant."""
    words = texts(item.tokens)
    return is_constant(item.tokens[words.index("=") + 1 :], names)


@rule("dataflow")
def outside_of_region(program: Program, unit: Unit) -> Findings:
    """What a region has from outside is read or written; a memory has one process.

    Vitis HLS says 200-976, "cannot read as well as write", where a value goes round through a
    parameter, and of an array that "it can only be used in one process".
    """
    for _function, region in regions(unit):
        local = {name.name.text for item in region.statements for name in channels(item)}
        used: defaultdict[str, dict[str, set[str]]] = defaultdict(dict)
        memories, lines = set(), {}
        for item in region.statements:
            if call := process(item):
                for place, argument in enumerate(call.arguments):
                    words = [word for word in texts(argument) if word != "."]
                    if len(words) == 1 and words[0] not in local:
                        effect = call_directions(program, call, place, DEPTH)
                        used[words[0]].setdefault(call.name, set()).update(effect)
                        lines[words[0]] = item.line
                        if is_memory(program, call, place):
                            memories.add(words[0])
        for name, processes in used.items():
            effects = set[str]().union(*processes.values())
            who = " and ".join(processes)
            both = {"read", "write"} <= effects
            if name in memories and len(processes) > 1:
                yield lines[name], f"memory {name} must be an argument of one process, not of {who}"
            elif "update" in effects or (name not in memories and both):
                text = f"{name} must be read or written through the region, not both"
                yield lines[name], f"{text} (by {who}): hand it on by a stream"
            elif name in memories and both and who != CACHE:
                text = f"memory {name} must be read or written by {who}, not both"
                yield lines[name], f"{text}, which only {CACHE} may, to fill its cache"


@rule("exact-width")
def elements_of_streams(program: Program, unit: Unit) -> Findings:
    """What goes through a stream of a region has as many bits as it needs: each is a register."""
    wide = "which goes through a stream, must have a type of exact width, not"
    for channel in _streams(unit):
        for native in sorted(inexact(program, _element(channel)))[:1]:
            text = "".join(texts(_element(channel)))
            yield channel.name.line, f"{text} of {channel.name.text}, {wide} {native}"
    streams = (channel for other in program.units for channel in _streams(other))
    sent = {owner for channel in streams for owner in held(program, _element(channel))}
    for item in (item for item in unit.declarations if item.owner in sent):
        for field in members_of(item):
            for native in sorted(inexact(program, field.type))[:1]:
                yield field.name.line, f"{item.owner}.{field.name.text}, {wide} {native}"


def _streams(unit: Unit) -> list[Declared]:
    """The streams of a file's regions."""
    items = [item for _, region in regions(unit) for item in region.statements]
    found = [channel for item in items for channel in channels(item)]
    return [channel for channel in found if channel.type[0].text in STREAMS]


def _element(stream: Declared) -> Tokens:
    """The type of its elements."""
    return split(stream.type[2:-1])[0]


@rule("dataflow")
def ends_of_channels(program: Program, unit: Unit) -> Findings:
    """Every channel is written by one process and read by one later process."""
    for _function, region in regions(unit):
        lines: dict[str, int] = {}  # of the channels
        ends: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for number, item in enumerate(region.statements):
            lines |= {channel.name.text: channel.name.line for channel in channels(item)}
            if call := process(item):
                for place, argument in enumerate(call.arguments):
                    for name in (text for text in texts(argument) if text in lines):
                        directions = call_directions(program, call, place, DEPTH)
                        if len(argument) != 1:
                            yield item.line, f"channel {name} must be an argument by itself"
                        if not directions:
                            yield item.line, f"{call.name} must write or read channel {name}"
                        for direction in directions:
                            ends[name, direction].append(number)
        for name, line in lines.items():
            writers, readers = ends[name, "write"], ends[name, "read"]
            for word, processes in (("writes", writers), ("reads", readers)):
                if len(processes) != 1:
                    one = f"one process must be what {word} channel {name}"
                    yield line, f"{one}, not {len(processes)}"
            if len(writers) == len(readers) == 1 and writers[0] >= readers[0]:
                yield line, f"channel {name} must be written before it is read"


@rule("flat")
def loops_of_a_process(program: Program, unit: Unit) -> Findings:
    """A process is one pipelined loop, or some one after another: none begins again and again.

    Loops that are unrolled do not count; what a process calls is part of it.
    """
    parts = parts_of_processes(program)
    looping = {id(part) for part in parts if any(map(_is_rolled, part.body.walk()))}
    here = {id(function) for function in unit.functions}
    for function in (part for part in parts if id(part) in here):
        for loop in filter(_is_rolled, function.body.walk()):
            if "PIPELINE" not in [pragma_name(pragma) for pragma in loop.pragmas()]:
                yield loop.line, f"loop {loop.label} must have PIPELINE or UNROLL, as of a process"
            inside = [f"loop {item.label}" for item in loop.walk() if _is_rolled(item)][1:]
            called = callees(program, loop, function.owner)
            inside += [f"{callee.name}, which loops," for callee in called if id(callee) in looping]
            for name in inside:
                yield loop.line, f"{name} must not stand in loop {loop.label}: flatten them"


@lru_cache(maxsize=1)
def parts_of_processes(program: Program) -> tuple[Function, ...]:
    """Functions that are processes of a region, and those that they call."""
    items = [item for unit in program.units for _, region in regions(unit) for item in region.body]
    queue = [callee for item in items for callee in callees(program, item, "")]
    found: dict[int, Function] = {}
    while queue:
        part = queue.pop()
        if id(part) not in found:
            found[id(part)] = part
            queue += callees(program, part.body, part.owner)
    return tuple(found.values())


def _is_rolled(item: Statement) -> bool:
    """Whether a statement is a loop that is not unrolled."""
    return item.kind in LOOPS and not is_unrolled(item)


@rule("dataflow")
def arrays_of_regions(_: Program, unit: Unit) -> Findings:
    """No array that joins processes is partitioned: each element would be a channel of its own."""
    for _function, region in regions(unit):
        arrays = {name.name.text for item in region.statements for name in channels(item)}
        for pragma in (p for p in region.pragmas() if pragma_name(p).startswith("ARRAY_")):
            name = pragma_options(pragma).get("variable")
            if name in arrays:
                yield (
                    pragma.line,
                    f"channel {name} must be one structure in a stream, not registers",
                )


@rule("dataflow")
def depths_of_streams(_: Program, unit: Unit) -> Findings:
    """A stream's depth is that of its type in its pragma, too."""
    for _function, region in regions(unit):
        options = [pragma_options(p) for p in region.pragmas() if pragma_name(p) == "STREAM"]
        depths = {option.get("variable"): option.get("depth") for option in options}
        for channel in (channel for item in region.statements for channel in channels(item)):
            name = channel.name.text
            if channel.type[0].text == "Stream":
                own = "".join(texts(split(channel.type[2:-1])[-1]))
                depth = depths.get(name) or DEFAULT_DEPTH
                if own != depth:
                    text = f"stream {name} must have one depth, not {own} in its type and {depth}"
                    yield channel.name.line, text


def is_memory(program: Program, call: Call, place: int) -> bool:
    """Whether a process has this argument by its address: an array, a pointer, a constant."""
    parameters = [f.parameters for f in program.named(call.name)]
    fitting = [texts(p[place]) for p in parameters if len(p) > place]
    return any({"[", "*", *PORTS} & set(p) or {"const", "&"} <= set(p) for p in fitting)


def call_directions(program: Program, call: Call, place: int, depth: int) -> set[str]:
    """Whether a call reads, writes or updates its argument; empty where it is unknown."""
    directions: set[str] = set()
    for function in program.named(call.name):
        if len(function.parameters) == len(call.arguments) and depth:
            directions |= _parameter_directions(program, function, place, depth)
    return directions


def _parameter_directions(program: Program, function: Function, place: int, depth: int) -> set[str]:
    """What a function's body does with a parameter, and what the functions that it hands it to."""
    name, words = array_name(function.parameters[place]), texts(function.parameters[place])
    is_stream = bool(STREAMS & set(words))
    directions: set[str] = set()
    for tokens in (item.tokens for item in function.body.walk()):
        for use in uses(tokens, name):
            around = [call for call in calls(tokens) if call.start < use.at <= call.end]
            bare = use.end == use.at + 1
            for number, argument in enumerate(around[-1].arguments if around and bare else []):
                if any(part is tokens[use.at] for part in argument):
                    directions |= call_directions(program, around[-1], number, depth - 1)
            if not bare or not (around or is_stream):
                directions |= {"update"} if {"read", "write"} <= use.effect else set()
                for word in ("read", "write"):
                    directions |= {word for effect in use.effect if effect.startswith(word)}
    return {"read"} if "const" in words and not is_stream and directions else directions
