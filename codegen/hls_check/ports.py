# SPDX-License-Identifier: Apache-2.0
"""What a step of a pipelined loop does with a stream or a memory port: a FIFO gives and takes one
element a cycle, a port moves one word each way.

Ways through a step are those of its `if` and `switch` statements, with their jumps, and of the
functions that the stream is handed to. Both sides of `?:`, and two statements with opposite
conditions, count as if both were taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from nuq.codegen.hls_check.dataflow import DEPTH, PORTS, STREAMS
from nuq.codegen.hls_check.pipeline import pipelines
from nuq.codegen.hls_check.program import Findings, Program, rule
from nuq.codegen.hls_check.syntax import (
    LOOPS,
    Call,
    Function,
    Statement,
    Tokens,
    Unit,
    array_name,
    calls,
    texts,
    uses,
)

METHODS = ("read", "write", "read_request", "write_request", "write_response")
MANY = 2  # times that the body of an inner loop runs, at least
JUMPS = ("return", "break", "continue")
CASES = ("case", "default")


@rule("interval")
def uses_of_streams(program: Program, unit: Unit) -> Findings:
    """A step reads a stream or port once at most, and writes it once, whatever way it takes."""
    for function in unit.functions:
        names = [array_name(p) for p in function.parameters if _is_stream(function, p)]
        for loop in pipelines(function):
            for name in names:
                for method in METHODS:
                    count = Calls(program, name, method, DEPTH).most(loop.statements)
                    if count > 1:
                        text = f"a step of {loop.label} must call {name}.{method}() once at most"
                        yield loop.line, f"{text}, not {count} times: each takes a cycle"


def _is_stream(function: Function, parameter: Tokens) -> bool:
    """Whether a parameter is a stream, a memory port, or a pack, which is of ports."""
    packs = zip(texts(function.template), texts(function.template)[1:], strict=False)
    names = {name for before, name in packs if before == "."}
    return bool({*STREAMS, *PORTS, *names} & set(texts(parameter)))


@dataclass(frozen=True)
class Calls:
    """How often a method of a variable is called."""

    program: Program
    name: str
    method: str
    depth: int  # calls that it is followed through

    def most(self, items: Iterable[Statement]) -> int:
        """Of all ways through statements."""
        through, ended = self.ways(items)
        return max(through or 0, ended)

    def ways(self, items: Iterable[Statement]) -> tuple[int | None, int]:
        """Of the ways to the end of statements, None where there is none, and of those that jump.

        A case begins anew, whatever the one in front of it has called.
        """
        through: int | None = 0
        ended = 0
        for item in items:
            words = texts(item.tokens[:1])
            if item.kind == "plain" and words and words[0] in CASES:
                through = through or 0
            elif through is not None:
                after, jumped = self.of(item)
                ended = max(ended, through + jumped)
                through = None if after is None else through + after
        return through, ended

    def of(self, item: Statement) -> tuple[int | None, int]:
        """Likewise of one statement."""
        own = self.expression(item.tokens)
        if item.kind in ("plain", "pragma"):
            jumps = item.tokens and item.tokens[0].text in JUMPS
            return (None, own) if jumps else (own, 0)
        if item.kind == "block":
            return self.ways(item.body)
        if item.kind == "if":
            sides = [self.of(side) for side in item.body]
            sides += [(0, 0)] if len(sides) == 1 else []
            ends = [through for through, _ in sides if through is not None]
            return own + max(ends) if ends else None, own + max(jumped for _, jumped in sides)
        times = MANY if item.kind in LOOPS else 1
        return own + times * self.most(item.statements), 0

    def expression(self, tokens: Tokens) -> int:
        """In the tokens of a statement."""
        found = 0
        for use in uses(tokens, self.name):
            if use.members == (self.method,) and texts(tokens[use.end : use.end + 1]) == ["("]:
                found += 1
            around = [call for call in calls(tokens) if call.start < use.at < call.end]
            if around and use.end == use.at + 1 and self.depth:
                found += self.handed(tokens, use.at, around[-1])
        return found

    def handed(self, tokens: Tokens, at: int, call: Call) -> int:
        """In a function that the variable is an argument of."""
        places = [
            number
            for number, argument in enumerate(call.arguments)
            if any(part is tokens[at] for part in argument)
        ]
        inner = [
            Calls(self.program, array_name(f.parameters[places[0]]), self.method, self.depth - 1)
            .most(f.body.body)
            for f in self.program.named(call.name)
            if places and len(f.parameters) == len(call.arguments)
        ]  # fmt: skip
        return max(inner, default=0)
