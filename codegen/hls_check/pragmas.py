# SPDX-License-Identifier: Apache-2.0
"""Pragmas of Vitis HLS (UG1399, "HLS Pragmas", 2022.2 to 2025.2), and what breaks their rules."""

import re
from collections.abc import Iterator

from nuq.codegen.hls_check.lexer import PRAGMA, Token
from nuq.codegen.hls_check.program import Findings, Program, rule
from nuq.codegen.hls_check.syntax import Function, Statement, Unit
from nuq.codegen.hls_check.types import held, variable

# A line each: name, options with a value, and behind the stroke the words that stand alone. An
# option with an exclamation mark is one without which the pragma says nothing.
TABLE = """
AGGREGATE variable! compact |
ALIAS ports distance offset |
ALLOCATION instances limit | function operation
ARRAY_PARTITION variable! type factor dim | complete block cyclic off
ARRAY_RESHAPE variable! type factor dim | complete block cyclic object off
ARRAY_STENCIL variable | off
BIND_OP variable op impl latency |
BIND_STORAGE variable! type impl latency |
CACHE port lines depth ways users burst_mode write_mode |
DATAFLOW | disable_start_propagation
DEPENDENCE variable! class type direction distance dependent | \
    array pointer inter intra RAW WAR WAW true false
DISAGGREGATE variable |
EXPRESSION_BALANCE | off
FUNCTION_INSTANTIATE variable |
INLINE | off recursive
INTERFACE mode port bundle register register_mode depth offset latency clock name storage_type \
    storage_impl num_read_outstanding num_write_outstanding max_read_burst_length \
    max_write_burst_length max_widen_bitwidth interrupt channel direct_io | \
    m_axi s_axilite axis ap_none ap_vld ap_ovld ap_ack ap_hs ap_memory bram ap_fifo ap_stable \
    ap_ctrl_none ap_ctrl_hs ap_ctrl_chain
LATENCY min max |
LOOP_FLATTEN | off
LOOP_MERGE | force
LOOP_TRIPCOUNT min max! avg |
OCCURRENCE cycle | off
PERFORMANCE target_ti target_tl unit assume_ti assume_tl |
PIPELINE II style | off rewind
PROTOCOL mode | floating fixed
RESET variable | off
STABLE variable |
STREAM variable! type depth | off
TOP name |
UNROLL factor off | off region skip_exit_check
"""
# name: (options with a value, words)
KNOWN: dict[str, tuple[list[str], list[str]]] = {
    line.split()[0]: (line.partition("|")[0].split()[1:], line.partition("|")[2].split())
    for line in TABLE.strip().splitlines()
}
# What restates the source and needs no reason, and what has it in allowed.py.
PLAIN = ("INTERFACE", "INLINE", "LOOP_TRIPCOUNT", "DEPENDENCE")


def pragma_name(token: Token) -> str:
    """The pragma's name in capitals, "" for what is not an HLS pragma.

    >>> pragma_name(Token("#pragma", 1, "pragma", "HLS unroll factor=2"))
    'UNROLL'
    """
    words = token.rest.split()
    return words[1].upper() if len(words) > 1 and words[0].upper() == "HLS" else ""


def pragma_options(token: Token) -> dict[str, str | None]:
    """Options and words of a pragma; words have None.

    >>> pragma_options(Token("#pragma", 1, "pragma", "HLS LOOP_TRIPCOUNT min = 1 max = C::A + 1"))
    {'min': '1', 'max': 'C::A + 1'}
    """
    text = " ".join(token.rest.split()[2:])
    words, *parts = re.split(r"(\w+) ?=(?!=) ?", text)
    values: dict[str, str | None] = {}
    for option, value in zip(parts[::2], parts[1::2], strict=True):
        if option in ("min", "max", "avg"):
            values[option] = value.strip()
        else:
            values[option], _, rest = value.partition(" ")
            words += f" {rest}"
    return values | dict.fromkeys(words.split())


def is_unrolled(loop: Statement) -> bool:
    """Whether a loop is unrolled completely."""
    given = [pragma_options(p) for p in loop.pragmas() if pragma_name(p) == "UNROLL"]
    return any(not {"off", "factor"} & options.keys() for options in given)


@rule("pragma")
def pragmas(_: Program, unit: Unit) -> Findings:
    """Every pragma and option is Vitis HLS's, names a variable that exists, and has its reason."""
    owners = {id(token): function for function in unit.functions for token in function.tokens}
    for token in unit.source.tokens:
        if token.text in ("_Pragma", "__pragma"):
            yield token.line, f"{token.text} must be a line of its own: {PRAGMA}"
        if token.kind == "pragma":
            for text in _wrong(token, owners.get(id(token))):
                yield token.line, text


@rule("aggregate")
def aggregates(program: Program, unit: Unit) -> Findings:
    """What is one word of a memory is a flat structure without padding.

    "AGGREGATE ... cannot be used on structs that contain other structs" (UG1399,
    set_directive_aggregate); without `compact = bit` its fields begin at whole bytes, and the
    memory has more bits than the plan.
    """
    for function in unit.functions:
        for token in (item.tokens[0] for item in function.body.walk() if item.kind == "pragma"):
            if pragma_name(token) == "AGGREGATE":
                options = pragma_options(token)
                name = options.get("variable") or ""
                found = variable(function, name)
                inner = held(program, found.type) if found else []
                if len(inner) > 1:
                    text = f"{name} must be flat, and {inner[0]} holds {', '.join(inner[1:])}"
                    yield token.line, f"{text}: AGGREGATE takes no structure in a structure"
                if options.get("compact") != "bit":
                    yield token.line, f"AGGREGATE of {name} must have compact = bit, as planned"


def _wrong(token: Token, function: Function | None) -> Iterator[str]:
    name = pragma_name(token)
    if token.text != PRAGMA:
        yield "a pragma must begin its line"
    if not name:
        if token.rest.split()[:1] != ["once"]:
            yield f"`{token.rest}` is not an HLS pragma"
        return
    if name not in KNOWN:
        yield f"{name} is not a pragma of Vitis HLS"
        return
    options, words = KNOWN[name]
    given = pragma_options(token)
    for option, value in given.items():
        if value is None and option not in words:
            yield f"{name} has no word {option}"
        if value is not None and option not in options and f"{option}!" not in options:
            yield f"{name} has no option {option}"
    for option in options:
        if option.endswith("!") and given.get(option[:-1]) is None:
            yield f"{name} must have {option[:-1]}"
    target = given.get("port" if name == "INTERFACE" else "variable")
    # a digit stands for what a template puts there
    if function and target and target != "return" and not target.isdigit():
        base = re.split(r"[.\-]", target)[0]
        if base not in {token.text for token in function.tokens if token.kind == "name"}:
            yield f"{name} names {base}, which {function.name} does not have"
    if name not in PLAIN and not token.reason:
        yield f"{name} must have its reason as a comment beside it"
