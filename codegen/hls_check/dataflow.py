# SPDX-License-Identifier: Apache-2.0
"""The form of a DATAFLOW region (UG1399, "Canonical Forms"): declarations and calls, nothing else.

Every channel, a local stream or array, is written by one process and read by one later process.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from codegen.hls_check.lexer import Token
from codegen.hls_check.pragmas import pragma_name, pragma_options
from codegen.hls_check.rules import Finding, Program, constants, is_constant
from codegen.hls_check.syntax import Function, Statement, closing, closing_angle, declared, split

STREAMS = {"Fifo", "Stream", "stream"}
DEFAULT_DEPTH = "2"  # of a stream without a pragma
DEPTH = 8  # calls that a channel is followed through


@dataclass
class Channel:
    """A local stream or array, and the calls that write and read it.

    Attributes:
        depth: of a stream, as its type says; "" where it does not, and for an array.
    """

    name: str
    line: int
    depth: str = ""
    writers: list[int] = field(default_factory=list)
    readers: list[int] = field(default_factory=list)


def check_dataflow(program: Program) -> Iterator[Finding]:
    """Every DATAFLOW region has the canonical form."""
    for function in program.functions:
        for item in function.body.walk():
            is_region = item is function.body or item.kind in ("for", "while", "do")
            if is_region and any(pragma_name(p) == "DATAFLOW" for p in item.pragmas()):
                region = item.body[0] if item.kind != "block" else item
                if item is not function.body:
                    yield from _check_loop(program, function, item)
                yield from _check_region(program, function, region)


def _check_loop(program: Program, function: Function, loop: Statement) -> Iterator[Finding]:
    """A loop around a region counts from 0 by 1 up to a limit that it does not change."""
    parts = [[token.text for token in part] for part in split(loop.tokens, ";")]
    first, condition, step = parts if len(parts) == 3 else ([], [], [])
    name = first[-3] if len(first) > 3 and first[-2:] == ["=", "0"] else ""
    steps = ([name, "++"], ["++", name], [name, "+=", "1"])
    if loop.kind != "for" or not name or condition[:2] != [name, "<"] or step not in steps:
        text = "the loop around a region must count from 0 by 1 while it is below its limit"
        yield Finding(function.source.name, loop.line, "dataflow", text)
        return
    limit = split(loop.tokens, ";")[1][2:]
    fixed = constants(program, function) | _fixed_names(function)
    if not is_constant(limit, fixed):
        text = "the limit of the loop around a region must be a constant, a parameter or const"
        yield Finding(function.source.name, loop.line, "dataflow", text)


def _fixed_names(function: Function) -> set[str]:
    """Parameters, and constants of the function's body."""
    found = {parameter[-1].text for parameter in function.parameters if parameter}
    for item in function.body.body:
        texts = [token.text for token in item.tokens]
        if item.kind == "plain" and texts[:1] == ["const"] and "=" in texts:
            found.add(texts[texts.index("=") - 1])
    return found


def _returns_value(function: Function) -> bool:
    """Whether a function returns something."""
    texts = [token.text for token in function.tokens]
    return "void" not in texts[: texts.index("(")]


def _check_region(program: Program, function: Function, region: Statement) -> Iterator[Finding]:
    def finding(line: int, text: str) -> Finding:
        return Finding(function.source.name, line, "dataflow", text)

    channels: dict[str, Channel] = {}
    calls = 0
    for item in region.body:
        if item.kind == "pragma" or (item.kind == "plain" and not item.tokens):
            continue
        if item.kind != "plain":
            yield finding(item.line, f"a {item.kind} statement must not stand in the region")
            continue
        call = parse_call(item.tokens)
        if call is None:
            if not declared(item.tokens):
                yield finding(item.line, "the region must have declarations and calls only")
            channels |= {channel.name: channel for channel in declared_channels(item.tokens)}
            continue
        name, arguments = call
        if any(_returns_value(process) for process in program.named(name)):
            yield finding(item.line, f"{name} must return nothing to be a process")
        for place, argument in enumerate(arguments):
            used = [token.text for token in argument if token.text in channels]
            for channel in used:
                directions = _directions(program, name, place, len(arguments), DEPTH)
                if len(argument) != 1:
                    text = f"channel {channel} must be an argument by itself"
                    yield finding(item.line, text)
                if not directions:
                    yield finding(item.line, f"{name} must write or read channel {channel}")
                if "write" in directions:
                    channels[channel].writers.append(calls)
                if "read" in directions:
                    channels[channel].readers.append(calls)
        calls += 1
    depths = {
        options.get("variable"): options.get("depth")
        for item in region.body
        if item.kind == "pragma" and pragma_name(item.tokens[0]) == "STREAM"
        for options in [pragma_options(item.tokens[0])]
    }
    for made in channels.values():
        yield from (finding(made.line, text) for text in _check_channel(made))
        depth = depths.get(made.name) or DEFAULT_DEPTH
        if made.depth not in ("", depth):
            text = (
                f"stream {made.name} must have one depth, not {made.depth} in its type and {depth}"
            )
            yield finding(made.line, text)


def _check_channel(made: Channel) -> Iterator[str]:
    for word, ends in (("writes", made.writers), ("reads", made.readers)):
        if len(ends) != 1:
            yield f"one process must be what {word} channel {made.name}, not {len(ends)}"
    if len(made.writers) == len(made.readers) == 1 and made.writers[0] >= made.readers[0]:
        yield f"channel {made.name} must be written before it is read"


def parse_call(tokens: Sequence[Token]) -> tuple[str, list[Sequence[Token]]] | None:
    """Name and arguments of a call statement; None for anything else."""
    if not tokens or tokens[0].kind != "name":
        return None
    after = 1
    if len(tokens) > 1 and tokens[1].text == "<":
        after = (closing_angle(tokens, 1) or 0) + 1
    if after >= len(tokens) or tokens[after].text != "(":
        return None
    end = closing(tokens, after)
    return (tokens[0].text, split(tokens[after + 1 : end])) if end == len(tokens) - 1 else None


def declared_channels(tokens: Sequence[Token]) -> list[Channel]:
    """Streams and arrays among the names that a statement declares."""
    channels = []
    for item in declared(tokens):
        depth, first = "", item.type[0].text
        if first == "Stream":
            depth = "".join(token.text for token in split(item.type[2:-1])[-1])
        if item.sizes or any(token.text in STREAMS for token in item.type[:3]):
            channels.append(Channel(item.name.text, item.name.line, depth))
    return channels


def _directions(program: Program, name: str, place: int, count: int, depth: int) -> set[str]:
    """Whether a function writes or reads its parameter at `place`; empty where it is unknown."""
    found: set[str] = set()
    for function in program.named(name):
        if len(function.parameters) == count and depth:
            found |= _parameter(program, function, function.parameters[place], depth)
    return found


def _parameter(
    program: Program, function: Function, parameter: Sequence[Token], depth: int
) -> set[str]:
    texts = [token.text for token in parameter]
    end = texts.index("[") if "[" in texts else len(texts)
    name = texts[end - 1]
    found: set[str] = set()
    is_stream = bool(STREAMS & set(texts))
    for item in function.body.walk():
        tokens = item.tokens
        for i, token in enumerate(tokens):
            if token.text != name or (i and tokens[i - 1].text in (".", "->", "::")):
                continue
            follows = [t.text for t in tokens[i + 1 : i + 3]]
            if is_stream and follows[:1] == ["."]:
                found |= {"write"} & {w for w in follows[1:] if w.startswith("write")}
                found |= {"read"} if follows[1].startswith("read") else set()
            elif follows[:1] == ["["] and not is_stream:
                found.add("write" if _is_assigned(tokens, i + 1) else "read")
            else:
                found |= _passed_on(program, tokens, i, depth)
    return {"read"} if "const" in texts and not is_stream and found else found


def _is_assigned(tokens: Sequence[Token], opening: int) -> bool:
    """Whether an element, with its indices from `opening`, is what an assignment changes."""
    while opening < len(tokens) and tokens[opening].text == "[":
        opening = closing(tokens, opening) + 1
    sign = tokens[opening].text if opening < len(tokens) else ""
    return sign == "=" or (sign.endswith("=") and sign not in ("==", "<=", ">=", "!="))


def _passed_on(program: Program, tokens: Sequence[Token], at: int, depth: int) -> set[str]:
    """Directions of the call that a parameter is an argument of."""
    level = 0
    for i in range(at - 1, -1, -1):
        level += {")": 1, "(": -1}.get(tokens[i].text, 0)
        if level < 0:
            start = i - 1
            if tokens[start].text == ">":
                while start > 0 and tokens[start].text != "<":
                    start -= 1
                start -= 1
            arguments = split(tokens[i + 1 : closing(tokens, i)])
            place = next((n for n, a in enumerate(arguments) if any(t is tokens[at] for t in a)), 0)
            return _directions(program, tokens[start].text, place, len(arguments), depth - 1)
    return set()
