# SPDX-License-Identifier: Apache-2.0
"""Pragmas of Vitis HLS (UG1399, "HLS Pragmas", 2022.2 to 2025.2) and the rule that keeps to them.

Each has options with a value and words that stand alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from codegen.hls_check.lexer import Token
from codegen.hls_check.syntax import Function

KINDS = ("complete", "block", "cyclic", "object")
MODES = [
    "m_axi",
    "s_axilite",
    "axis",
    "ap_none",
    "ap_vld",
    "ap_ovld",
    "ap_ack",
    "ap_hs",
    "ap_memory",
    "bram",
    "ap_fifo",
    "ap_stable",
    "ap_ctrl_none",
    "ap_ctrl_hs",
    "ap_ctrl_chain",
]
INTERFACE = [
    "mode",
    "port",
    "bundle",
    "register",
    "register_mode",
    "depth",
    "offset",
    "latency",
    "clock",
    "name",
    "storage_type",
    "storage_impl",
    "num_read_outstanding",
    "num_write_outstanding",
    "max_read_burst_length",
    "max_write_burst_length",
    "max_widen_bitwidth",
    "interrupt",
    "channel",
    "direct_io",
]
# name: (options with a value, words)
KNOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "AGGREGATE": (("variable", "compact"), ()),
    "ALIAS": (("ports", "distance", "offset"), ()),
    "ALLOCATION": (("instances", "limit"), ("function", "operation")),
    "ARRAY_PARTITION": (("variable", "type", "factor", "dim"), (*KINDS[:3], "off")),
    "ARRAY_RESHAPE": (("variable", "type", "factor", "dim"), (*KINDS, "off")),
    "ARRAY_STENCIL": (("variable",), ("off",)),
    "BIND_OP": (("variable", "op", "impl", "latency"), ()),
    "BIND_STORAGE": (("variable", "type", "impl", "latency"), ()),
    "CACHE": (("port", "lines", "depth", "ways", "users", "burst_mode", "write_mode"), ()),
    "DATAFLOW": ((), ("disable_start_propagation",)),
    "DEPENDENCE": (
        ("variable", "class", "type", "direction", "distance", "dependent"),
        ("array", "pointer", "inter", "intra", "RAW", "WAR", "WAW", "true", "false"),
    ),
    "DISAGGREGATE": (("variable",), ()),
    "EXPRESSION_BALANCE": ((), ("off",)),
    "FUNCTION_INSTANTIATE": (("variable",), ()),
    "INLINE": ((), ("off", "recursive")),
    "INTERFACE": (tuple(INTERFACE), tuple(MODES)),
    "LATENCY": (("min", "max"), ()),
    "LOOP_FLATTEN": ((), ("off",)),
    "LOOP_MERGE": ((), ("force",)),
    "LOOP_TRIPCOUNT": (("min", "max", "avg"), ()),
    "OCCURRENCE": (("cycle",), ("off",)),
    "PERFORMANCE": (("target_ti", "target_tl", "unit", "assume_ti", "assume_tl"), ()),
    "PIPELINE": (("II", "style"), ("off", "rewind")),
    "PROTOCOL": (("mode",), ("floating", "fixed")),
    "RESET": (("variable",), ("off",)),
    "STABLE": (("variable",), ()),
    "STREAM": (("variable", "type", "depth"), ("off",)),
    "TOP": (("name",), ()),
    "UNROLL": (("factor", "off"), ("off", "region", "skip_exit_check")),
}
# Options without which a pragma says nothing.
NEEDED = {
    "AGGREGATE": "variable",
    "ARRAY_PARTITION": "variable",
    "ARRAY_RESHAPE": "variable",
    "BIND_STORAGE": "variable",
    "DEPENDENCE": "variable",
    "LOOP_TRIPCOUNT": "max",
    "STREAM": "variable",
}
# What restates the source and needs no reason.
PLAIN = ("INTERFACE", "INLINE", "LOOP_TRIPCOUNT")


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
    parts = token.rest.split(None, 2)
    text = parts[2] if len(parts) > 2 else ""
    found: dict[str, str | None] = {}
    places = list(re.finditer(r"(\w+)\s*=(?!=)\s*", text))
    words = text[: places[0].start()] if places else text
    for i, place in enumerate(places):
        end = places[i + 1].start() if i + 1 < len(places) else len(text)
        value = text[place.end() : end].strip()
        if place[1] in ("min", "max", "avg"):
            found[place[1]] = value
            continue
        first, _, rest = value.partition(" ")
        found[place[1]] = first
        words += " " + rest
    return found | dict.fromkeys(words.split())


def check_pragma(token: Token, function: Function | None) -> Iterator[str]:
    """What is wrong with a pragma."""
    name = pragma_name(token)
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
        known = words if value is None else options
        if option not in known:
            yield f"{name} has no {'word' if value is None else 'option'} {option}"
    needed = NEEDED.get(name)
    if needed and given.get(needed) is None:
        yield f"{name} must have {needed}"
    yield from _check_target(name, given, function)
    if name not in PLAIN and not token.reason:
        yield f"{name} must have its reason as a comment beside it"


def _check_target(
    name: str, given: dict[str, str | None], function: Function | None
) -> Iterator[str]:
    """A variable or port must be one of the function."""
    target = given.get("port" if name == "INTERFACE" else "variable")
    if function is None or not target or target == "return" or target.isdigit():
        return  # a digit stands for what a template puts there
    base = re.split(r"[.\-]", target)[0]
    if base not in {token.text for token in function.tokens if token.kind == "name"}:
        yield f"{name} names {base}, which {function.name} does not have"
