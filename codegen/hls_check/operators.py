# SPDX-License-Identifier: Apache-2.0
"""Multiplications and divisions of a design in LLVM IR, against a budget.

Multipliers belong into the array and the finish stage. A variable product anywhere else takes DSPs
that no plan counts (three for 32 x 32 bits), a division some 36 cycles and a thousand LUTs: sizes
that depend on a layer come ready-made from the code generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from nuq.codegen.hls_check.llvm import Module, Place, arguments, bits
from nuq.codegen.hls_check.program import Finding

MOST = 8  # variable multiplications outside of array and finish stage
WIDEST = 18  # bits of their operands: one DSP48, with room
ARRAY = ("mac_array.hpp", "pair_array.hpp")  # the compute stage's multipliers
PROCESSES = ("finish",)  # average, normalisation, scale
DIVISIONS = ("udiv", "sdiv", "urem", "srem")


@dataclass(frozen=True)
class Operator:
    """A multiplication or division with two variable operands, or a division by a constant."""

    process: str
    op: str
    widths: tuple[int, int]
    place: Place


def operators(module: Module) -> Iterator[Operator]:
    """All multiplications of two variables, and all divisions but those that are shifts."""
    for function in module.functions:
        for item in function.values.values():
            if item.op in (*DIVISIONS, "mul"):
                left, right = arguments(item)
                constant = int(right) if right.lstrip("-").isdigit() else 0
                if constant and (item.op == "mul" or abs(constant).bit_count() == 1):
                    continue
                widths = (bits(function, left), bits(function, right))
                widths = (min(item.width, widths[0]), min(item.width, widths[1]))
                place = module.place(item.place) or Place(function.name, 0)
                yield Operator(function.name, item.op, widths, place)


def budgeted(found: Iterator[Operator]) -> list[Operator]:
    """Those that the budget is about."""
    return [
        item for item in found if item.place.file not in ARRAY and item.process not in PROCESSES
    ]


def check_operators(module: Module) -> list[Finding]:
    """What goes beyond the budget."""
    findings = []
    found = budgeted(operators(module))
    products = [item for item in found if item.op == "mul"]
    for item in found:
        size = f"{item.widths[0]} x {item.widths[1]} bits in {item.process}"
        if item.op != "mul":
            text = f"a division of {size}: let the code generator send the result"
            findings.append(Finding(item.place.file, item.place.line, "operators", text))
        elif max(item.widths) > WIDEST:
            text = (
                f"a multiplication of {size} takes several DSPs: give its operands exact widths, "
                "or let the code generator send the product"
            )
            findings.append(Finding(item.place.file, item.place.line, "operators", text))
    if len(products) > MOST:
        last = products[-1].place
        names = ", ".join(dict.fromkeys(item.process for item in products))
        text = f"{len(products)} variable multiplications must be {MOST} at most, in {names}"
        findings.append(Finding(last.file, last.line, "operators", text))
    return findings
