# SPDX-License-Identifier: Apache-2.0
"""When values of a loop are there, in ns after the clock.

Delays are those of the part's family (delays.py), with a net between slices for each. Up to six
inputs of one-bit logic share a LUT, five that of an adder's carry chain; a wider choice takes the
latest inputs last, as timing-driven synthesis does.
"""

import re
from collections.abc import Iterable
from math import ceil, log

from nuq.codegen.hls_check.delays import Delays
from nuq.codegen.hls_check.graph import Loop
from nuq.codegen.hls_check.llvm import Instruction, arguments, bits

LUT_INPUTS = 6
RAM = 10.0  # a read of block RAM is a cycle of its own
UNKNOWN = float("inf")  # a call that has no delay in `Timing.call`
READY = float("-inf")  # what does not go round is there in time
WIDEST = 36  # inputs of one-bit logic that are seen as a whole

WIRES = ("zext", "sext", "trunc", "freeze", "bitcast", "getelementptr", "extractvalue", "store",
         "insertvalue", "extractelement", "insertelement", "shufflevector")  # fmt: skip
LOGIC = ("select", "and", "or", "xor", "phi")
INTRINSIC = re.compile(r"@(llvm\.([a-z.]+)\.i\d+)\(")


class Timing:
    """When the values of one component are there, in ns after the clock."""

    def __init__(self, loop: Loop, part: set[str], delays: Delays) -> None:
        self.loop, self.part, self.delays = loop, part, delays
        self.level = delays.net + delays.lut  # of one-bit logic
        self.arrival: dict[str, float] = {}
        self.before: dict[str, str] = {}  # the latest input
        self.cones: dict[str, set[str]] = {}  # what one-bit logic depends on in the end

    def longest(self) -> tuple[float, list[str]]:
        """The longest path from register to register, and the values along it."""
        best: tuple[float, list[str]] = (0.0, [])
        for register in sorted(self.part & self.loop.registers):
            names = [name for name in self.loop.inputs[register] if name in self.part]
            for name in names:
                end = self.at(name) + self.delays.setup
                if end > best[0]:
                    best = (end, [register, *self.path(name)])
        return best[0], best[1][::-1]

    def path(self, name: str) -> list[str]:
        """The way back from a value to a register."""
        found = [name]
        while name in self.before and name not in self.loop.registers:
            name = self.before[name]
            found.append(name)
        return found

    def at(self, name: str) -> float:
        """Arrival of a value."""
        if name not in self.part:
            return READY
        if name in self.loop.registers:
            return self.delays.clock_to_q
        if name not in self.arrival:
            todo = [name]
            while todo:
                top = todo[-1]
                missing = [
                    i for i in self.loop.inputs[top]
                    if i in self.part and i not in self.arrival and i not in self.loop.registers
                ]  # fmt: skip
                todo += missing
                if not missing:
                    self.arrival[todo.pop()] = self.compute(top)
        return self.arrival[name]

    def compute(self, name: str) -> float:
        """Arrival of a value whose inputs' are known."""
        item = self.loop.function.values[name]
        inputs = self.summands(name) if item.op == "add" else self.loop.inputs[name]
        latest = max(inputs, key=self.at)
        self.before[name] = latest
        if self.is_wire(item):
            self.cones[name] = self.cones.get(latest, {latest})
            return self.at(latest)
        if item.op in LOGIC:
            return self.logic(name, inputs)
        if item.op in ("add", "sub"):
            return self.absorbed(name, inputs) + self.delay(item)
        return self.at(latest) + self.delay(item)

    def absorbed(self, name: str, inputs: list[str]) -> float:
        """When an adder can begin: one-bit logic of one operand shares the LUTs of its carry."""
        best, through = max(map(self.at, inputs)), max(inputs, key=self.at)
        for other in inputs:
            cone = self.cones.get(other, {other})
            leaves = [*(i for i in inputs if i != other), *sorted(cone)]
            if len(cone) < LUT_INPUTS and max(map(self.at, leaves)) < best:
                best, through = max(map(self.at, leaves)), max(leaves, key=self.at)
        self.before[name] = through
        return best

    def is_wire(self, item: Instruction) -> bool:
        """Whether an instruction takes bits as they are."""
        shift = item.op in ("shl", "lshr", "ashr")
        if item.op in ("and", "xor") or shift:
            parts = arguments(item)[-1:] if shift else arguments(item)
            return any(not part.startswith("%") for part in parts)
        return item.op in WIRES

    def is_bit(self, name: str) -> bool:
        """Whether a value is another one's with all but one bit masked out."""
        item = self.loop.function.values.get(name)
        if item is None or item.op != "and":
            return False
        mask = arguments(item)[-1]
        return mask.lstrip("-").isdigit() and (int(mask) % (1 << item.width)).bit_count() == 1

    def summands(self, name: str) -> list[str]:
        """What a tree of additions adds up: the latest comes last, as expressions are balanced."""
        found: list[str] = []
        for other in self.loop.inputs[name]:
            item = self.loop.function.values.get(other)
            alone = len(self.loop.function.users[other]) == 1
            inner = other in self.part and item is not None and item.op == "add" and alone
            found += self.summands(other) if inner else [other]
        going_round = [other for other in found if other in self.part]
        return found if len(going_round) == 1 else self.loop.inputs[name]

    def logic(self, name: str, inputs: list[str]) -> float:
        """One-bit logic, whatever its nesting: as few LUTs behind the latest input as can be."""
        cone: set[str] = set()
        for other in inputs:
            cone |= self.cones.get(other, {other})
        self.cones[name] = cone if len(cone) <= WIDEST else {name}
        leaves = cone if len(cone) <= WIDEST else set(inputs)
        self.before[name] = max(sorted(leaves), key=self.at)
        return merged(map(self.at, leaves), self.level)

    def delay(self, item: Instruction) -> float:
        """From the latest input to the output of what is not one-bit logic."""
        function = self.loop.function
        parts = arguments(item)
        variable = [part for part in parts if part.startswith("%")]
        widths = [min(item.width, bits(function, part)) for part in variable] or [1]
        width, total = max(widths), sum(widths)
        delays, level = self.delays, self.level
        tree = ceil(log(max(total, 2), LUT_INPUTS)) * level
        chain = level + delays.carry_in
        if item.op in ("add", "sub"):
            return level if total <= LUT_INPUTS else self.adder(min(item.width, width + 1))
        if item.op == "icmp":
            if re.match(r"(samesign )?(slt|sgt|sge|sle) ", item.text) and parts[-1] in ("0", "-1"):
                return 0.0  # the sign
            equal = " ".join(item.text.split()[:2]).startswith(("eq", "ne", "samesign eq"))
            if equal and parts[-1] == "0" and self.is_bit(parts[0]):
                return 0.0
            compare = (
                chain + (ceil(width / (delays.block * (3 if equal else 2))) - 1) * delays.carry
            )
            return min(tree, compare) if equal or total <= LUT_INPUTS else compare
        if item.op in ("shl", "lshr", "ashr") or "@llvm.fsh" in item.text:
            places = bits(function, parts[-1]) if parts[-1].startswith("%") else 0
            return ceil(min(places, 8) / 2) * level
        if item.op == "mul":
            return delays.net + delays.multiplier if len(variable) > 1 else 2 * chain
        if item.op in ("udiv", "sdiv", "urem", "srem"):
            shift = parts[-1].isdigit() and int(parts[-1]).bit_count() == 1
            return chain + level if shift else width * chain
        if item.source:
            memory = self.loop.memories(item.source)
            if any(name.startswith("@") for name in memory):
                return RAM
            kinds = [self.loop.function.values[name].text for name in memory]
            found = [re.match(r"\[(\d+) x ", kind) for kind in kinds]
            largest = max((int(match[1]) for match in found if match), default=16)
            return ceil(log(max(largest, 2), 4)) * level
        if item.op == "call":
            return self.call(item, min(item.width, width), total)
        return level

    def adder(self, width: int) -> float:
        """A carry chain of so many bits, with the LUTs in front of it."""
        start = self.level + self.delays.carry_in + self.delays.carry_out
        return start + (ceil(width / self.delays.block) - 1) * self.delays.carry

    def call(self, item: Instruction, width: int, total: int) -> float:
        """A function that clang has in the place of an expression: UNKNOWN where it is another.

        Bits are counted six a LUT, then by a tree of adders; zeros by the one bit that `x & -x`
        leaves (of what is turned round for those in front) and its number.
        """
        found = INTRINSIC.search(item.text)
        name = found[2] if found else ""
        if re.fullmatch("[su](min|max|cmp)", name):
            blocks = ceil(width / (2 * self.delays.block))
            start = self.level + self.delays.carry_in
            return start + (blocks - 1) * self.delays.carry + self.level
        if name in ("bswap", "bitreverse", "expect"):
            return 0.0
        if name in ("ctpop", "cttz", "ctlz", "abs") and width <= LUT_INPUTS:
            return self.level
        if name == "ctpop":
            groups = ceil(width / LUT_INPUTS)
            return self.level + ceil(log(groups, 2)) * self.adder(width.bit_length())
        if name in ("cttz", "ctlz"):
            return self.adder(width) + ceil(log(width / 2, LUT_INPUTS)) * self.level
        if name == "abs" or re.fullmatch(r"[su](add|sub)\.with\.overflow", name):
            return self.adder(width)
        if re.fullmatch(r"[su](add|sub)\.sat", name):
            return self.level if total <= LUT_INPUTS else self.adder(width) + self.level
        return UNKNOWN


def merged(arrivals: Iterable[float], level: float) -> float:
    """When a choice of many inputs is made, six a LUT of `level` ns, the latest ones last.

    >>> [merged([0.0] * inputs, 1.0) for inputs in (6, 7, 12)]
    [1.0, 2.0, 2.0]
    >>> merged([5.0] + [0.0] * 30, 1.0)
    6.0
    """
    waiting = sorted(arrivals)
    while len(waiting) > LUT_INPUTS:
        few = (len(waiting) - LUT_INPUTS) % (LUT_INPUTS - 1)
        taken = few + 1 if few else LUT_INPUTS
        done = waiting[taken - 1] + level
        waiting = sorted([*waiting[taken:], done])
    return waiting[-1] + level
