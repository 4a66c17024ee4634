# SPDX-License-Identifier: Apache-2.0
"""LLVM IR as text -> functions, blocks and instructions with the source lines they come from.

As far as operators.py and recurrence.py need it: types are widths, attributes are dropped.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

NAME = r'(?:"[^"]*"|[-\w.$]+)'
DEFINE = re.compile(rf"define [^@]*@({NAME})\(.*")
VARIABLE = re.compile(rf"(@{NAME}) = (?:[a-z_]+(?:\([^)]*\))? )*global ")
LABEL = re.compile(rf"({NAME}):")
VALUE = re.compile(rf"[%@]{NAME}")
ASSIGNED = re.compile(rf"  (%{NAME}) = (?:(?:tail|musttail|notail) )?(.*)")
INCOMING = re.compile(rf"\[ ([^\[\]]+), %({NAME}) \]")
WIDTH = re.compile(r"\bi(\d+)\b")
META = re.compile(r"(\w+): (?:!(\d+)|\"([^\"]*)\"|(\d+))")


@dataclass(frozen=True)
class Place:
    """A line of a source file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass
class Instruction:
    """One instruction; what gives no value has a name of its own, too."""

    name: str
    op: str
    text: str  # behind the opcode, without metadata
    block: str
    place: str  # number of its location's metadata, "" where it has none
    loop: str = ""  # number of the loop's metadata where it ends one
    incoming: tuple[tuple[str, str], ...] = ()  # of a phi: values and the blocks they come from

    @cached_property
    def width(self) -> int:
        """Bits of the first integer type; 0 for others."""
        found = WIDTH.search(self.text)
        return int(found[1]) if found else 0

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the values, memories and types that it mentions; of a phi its values alone."""
        if self.incoming:
            return tuple(value for value, _ in self.incoming)
        return tuple(VALUE.findall(re.sub(rf"label %{NAME}", "", self.text)))

    @property
    def copies(self) -> bool:
        """Whether it copies a part of the memory."""
        return self.op == "call" and bool(re.search(r"@llvm\.mem(cpy|move)\.", self.text))

    @property
    def source(self) -> str:
        """The address that it reads, "" where it reads none."""
        if self.copies:
            return self.operands[2]
        return self.operands[-1] if self.op == "load" else ""

    @property
    def target(self) -> str:
        """The address that it writes, "" where it writes none."""
        if self.copies:
            return self.operands[1]
        return self.operands[-1] if self.op == "store" else ""


@dataclass
class Function:
    """A function: in a design without inner calls, a process."""

    name: str  # in the source
    values: dict[str, Instruction] = field(default_factory=dict)
    blocks: dict[str, list[Instruction]] = field(default_factory=dict)
    targets: dict[str, list[str]] = field(default_factory=dict)  # of the block's end
    bits: dict[str, int] = field(default_factory=dict)  # that values need, once they are known
    symbol: str = ""  # mangled

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """The values that use each."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for item in self.values.values():
            for operand in item.operands:
                found[operand].append(item.name)
        return found

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """The blocks that may come before each."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for block, targets in self.targets.items():
            for target in dict.fromkeys(targets):
                found[target].append(block)
        return found

    @cached_property
    def dominators(self) -> dict[str, set[str]]:
        """The blocks that every way to a block leads through, itself included."""
        names = list(self.blocks)
        found = {name: set(names) for name in names}
        found[names[0]] = {names[0]}
        changed = True
        while changed:
            changed = False
            for name in names[1:]:
                before = [found[source] for source in self.sources[name]]
                new = (set.intersection(*before) if before else set()) | {name}
                changed |= new != found[name]
                found[name] = new
        return found

    def loops(self) -> dict[str, tuple[set[str], set[str]]]:
        """Headers and blocks of every loop of the source, by the number of its metadata."""
        found: dict[str, tuple[set[str], set[str]]] = {}
        for latch, targets in self.targets.items():
            for header in (target for target in targets if target in self.dominators[latch]):
                loop = self.blocks[latch][-1].loop
                headers, blocks = found.setdefault(loop, (set(), set()))
                headers.add(header)
                inside = [latch]
                blocks.add(header)
                while inside:
                    block = inside.pop()
                    if block not in blocks:
                        blocks.add(block)
                        inside += self.sources[block]
        return found


@dataclass
class Module:
    """A design in LLVM IR."""

    functions: list[Function]
    metadata: dict[str, str]
    types: dict[str, str]
    variables: set[str] = field(default_factory=set)  # global ones that are not constant

    def fields(self, number: str) -> dict[str, str]:
        """Fields of a metadata node."""
        found = META.finditer(self.metadata.get(number, ""))
        return {match[1]: match[2] or match[3] or match[4] or "" for match in found}

    def places(self, number: str) -> list[Place]:
        """Where an instruction comes from: innermost first, then the calls that were inlined."""
        found = []
        while number in self.metadata:
            location = self.fields(number)
            scope = self.fields(location.get("scope", ""))
            file = self.fields(scope.get("file", "")).get("filename", "")
            found.append(Place(file.removeprefix("./"), int(location.get("line", 0))))
            number = location.get("inlinedAt", "")
        return found

    def place(self, number: str) -> Place | None:
        """The innermost place in the design's own sources."""
        own = [place for place in self.places(number) if place.file.endswith((".hpp", ".cpp"))]
        return own[0] if own else None

    def loop_place(self, number: str) -> Place | None:
        """Where a loop begins."""
        for item in re.findall(r"!(\d+)", self.metadata.get(number, "").partition("{")[2])[1:]:
            if "DILocation" in self.metadata.get(item, ""):
                return self.place(item)
        return None


def parse_module(text: str) -> Module:
    """Read a module as clang prints it."""
    module = Module([], {}, {})
    function, block = None, ""
    text = re.sub(r"\[\n(.*?)\n +\]", _joined, text, flags=re.DOTALL)  # the cases of a switch
    for line in text.splitlines():
        if function is None:
            if match := DEFINE.match(line):
                function, block = Function(source_name(match[1]), symbol=match[1]), ""
            elif line.startswith("!"):
                number, _, node = line[1:].partition(" = ")
                module.metadata[number] = node
            elif match := VARIABLE.match(line):
                module.variables.add(match[1])
            elif line.startswith("%"):
                name, _, node = line.partition(" = type ")
                module.types[name] = node
        elif line == "}":
            module.functions.append(function)
            function = None
        elif match := LABEL.match(line):
            block = match[1]
            function.blocks[block] = []
        elif line.startswith("  ") and line.strip():
            item = _instruction(line, block, len(function.values))
            function.values[item.name] = item
            function.blocks[block].append(item)
            if item.op in ("br", "switch", "ret", "unreachable"):
                function.targets[block] = re.findall(rf"label %({NAME})", item.text)
    return module


def _joined(match: re.Match[str]) -> str:
    return f"[{' '.join(match[1].split())}]"


def _instruction(line: str, block: str, number: int) -> Instruction:
    body, *rest = line.split(", !")
    match = ASSIGNED.match(body)
    name, code = (match[1], match[2]) if match else (f"#{number}", body.strip())
    op, _, text = code.partition(" ")
    if op in ("tail", "musttail", "notail"):
        op, _, text = text.partition(" ")
    notes = dict(note.split(" !", 1) for note in rest if " !" in note)
    incoming = tuple(INCOMING.findall(text)) if op == "phi" else ()
    place, loop = notes.get("dbg", ""), notes.get("llvm.loop", "")
    return Instruction(name, op, text, block, place, loop, incoming)


def source_name(mangled: str) -> str:
    """The name behind a mangled one.

    >>> source_name("_Z8max_poolI7NetworkEvv"), source_name("_ZN7Network3lrnEii")
    ('max_pool', 'lrn')
    >>> source_name("_ZZ8max_poolI7NetworkEvvE4rows"), source_name("row.i")
    ('rows', 'row.i')
    """
    found = mangled
    rest = mangled.rpartition("E")[2] if mangled.startswith("_ZZ") else mangled
    for match in re.finditer(r"(?<![A-Za-z_.])?(\d+)(?=[A-Za-z_])", rest):
        length, start = int(match[1]), match.end()
        if start + length <= len(rest):
            found = rest[start : start + length]
            if not mangled.startswith("_ZN"):
                break
    return found if mangled.startswith("_Z") else mangled


def bits(function: Function, value: str) -> int:
    """Bits that a value needs, sign included, as far as extensions, masks and shifts tell."""
    item = function.values.get(value)
    if item is None:
        number = value.lstrip("-")
        return int(number).bit_length() + value.startswith("-") if number.isdigit() else 64
    if value not in function.bits:
        function.bits[value] = item.width or 64  # of what goes round
        function.bits[value] = _bits(function, item)
    return function.bits[value]


def _bits(function: Function, item: Instruction) -> int:
    own = item.width or 64
    if item.op in ("load", "call"):
        return own
    parts = list(item.operands) if item.op == "phi" else arguments(item)
    widths = [bits(function, part) for part in parts]
    if item.op in ("zext", "sext", "trunc", "freeze"):
        target = int(item.text.rpartition("i")[2]) if " to i" in item.text else own
        return min(widths[0], target)
    if item.op in ("shl", "lshr", "ashr") and parts[1].isdigit():
        by = int(parts[1])
        return min(own, widths[0] + by) if item.op == "shl" else max(1, min(own, widths[0]) - by)
    if item.op == "and":
        known = [int(part).bit_length() for part in parts if part.isdigit()]
        return min([own, *widths, *known])
    if item.op in ("add", "sub"):
        return min(own, max(widths) + 1)
    if item.op in ("select", "phi", "or", "xor"):
        return max(widths[item.op == "select" :])
    if item.op == "mul":
        return min(own, sum(widths))
    return own


def arguments(item: Instruction) -> list[str]:
    """Operands in their order, constants included.

    >>> arguments(Instruction("%a", "sub", "nsw i32 0, %pad.left", "", ""))
    ['0', '%pad.left']
    >>> arguments(Instruction("%a", "select", "i1 %c, i32 %x, i32 -4", "", ""))
    ['%c', '%x', '-4']
    """
    text = item.text.partition(" to ")[0]
    return [part.split()[-1].rstrip(")") for part in text.split(",") if part.strip()]
