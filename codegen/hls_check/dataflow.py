# SPDX-License-Identifier: Apache-2.0
"""The form of a DATAFLOW region (UG1399, "Canonical Forms"): declarations and calls, nothing else.

Every channel, a local stream or array, is written by one process and read by one later process.
"""

from collections import defaultdict
from collections.abc import Iterator

from codegen.hls_check.pragmas import pragma_name, pragma_options
from codegen.hls_check.program import Findings, Program, constants, is_constant, rule
from codegen.hls_check.syntax import (
    LOOPS,
    Call,
    Declared,
    Function,
    Statement,
    Tokens,
    Unit,
    calls,
    closing,
    declared,
    split,
    texts,
)

STREAMS = {"Fifo", "Stream", "stream"}
DEFAULT_DEPTH = "2"  # of a stream without a pragma
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


@rule("dataflow")
def loop_of_region(program: Program, unit: Unit) -> Findings:
    """A loop around a region counts from 0 by 1 up to a limit that it does not change."""
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
        fixed = constants(program, function)
        fixed |= {parameter[-1].text for parameter in function.parameters if parameter}
        for item in function.body.body:
            words = texts(item.tokens)
            if item.kind == "plain" and words[:1] == ["const"] and "=" in words:
                fixed.add(words[words.index("=") - 1])
        if not is_constant(parts[1][2:], fixed):
            yield loop.line, f"the limit of {around} be a constant, a parameter or const"


@rule("dataflow")
def statements_of_region(program: Program, unit: Unit) -> Findings:
    """A region has declarations and calls only, of functions that return nothing."""
    for _function, region in regions(unit):
        for item in region.statements:
            if item.kind not in ("plain", "pragma"):
                yield item.line, f"a {item.kind} statement must not stand in the region"
            elif call := process(item):
                heads = [texts(f.tokens) for f in program.named(call.name)]
                if any("void" not in head[: head.index("(")] for head in heads):
                    yield item.line, f"{call.name} must return nothing to be a process"
            elif item.kind == "plain" and item.tokens and not declared(item.tokens):
                yield item.line, "the region must have declarations and calls only"


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


def call_directions(program: Program, call: Call, place: int, depth: int) -> set[str]:
    """Whether a call writes or reads its argument at `place`; empty where it is unknown."""
    directions: set[str] = set()
    for function in program.named(call.name):
        if len(function.parameters) == len(call.arguments) and depth:
            directions |= _parameter_directions(program, function, place, depth)
    return directions


def _parameter_directions(program: Program, function: Function, place: int, depth: int) -> set[str]:
    """What a function's body does with a parameter, and what the functions that it hands it to."""
    parameter = texts(function.parameters[place])
    name = parameter[(parameter.index("[") if "[" in parameter else len(parameter)) - 1]
    is_stream = bool(STREAMS & set(parameter))
    directions: set[str] = set()
    for tokens in (item.tokens for item in function.body.walk()):
        for i, token in enumerate(tokens):
            if token.text != name or (i and tokens[i - 1].text in (".", "->", "::")):
                continue
            follows = [*texts(tokens[i + 1 : i + 3]), "", ""]
            if is_stream and follows[0] == ".":
                directions |= {word for word in ("write", "read") if follows[1].startswith(word)}
            elif follows[0] == "[" and not is_stream:
                directions.add("write" if _is_assigned(tokens, i + 1) else "read")
            else:
                around = [call for call in calls(tokens) if call.start < i <= call.end]
                for number, argument in enumerate(around[-1].arguments if around else []):
                    if any(part is token for part in argument):
                        directions |= call_directions(program, around[-1], number, depth - 1)
    return {"read"} if "const" in parameter and not is_stream and directions else directions


def _is_assigned(tokens: Tokens, opening: int) -> bool:
    """Whether an element, with its indices from `opening`, is what an assignment changes."""
    while opening < len(tokens) and tokens[opening].text == "[":
        opening = closing(tokens, opening) + 1
    sign = tokens[opening].text if opening < len(tokens) else ""
    return sign == "=" or (sign.endswith("=") and sign not in ("==", "<=", ">=", "!="))
