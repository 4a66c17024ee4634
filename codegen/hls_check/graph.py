# SPDX-License-Identifier: Apache-2.0
"""What a loop computes in a cycle, as a graph of LLVM values, and what of it goes round."""

from dataclasses import dataclass, field

from nuq.codegen.hls_check.llvm import Function


@dataclass
class Loop:
    """What a loop computes in a cycle, as a graph of values; registers are where it goes round."""

    function: Function
    headers: set[str]
    blocks: set[str]
    inputs: dict[str, list[str]] = field(default_factory=dict)
    registers: set[str] = field(default_factory=set)
    known: dict[tuple[str, bool], list[str]] = field(default_factory=dict)  # conditions of blocks

    def __post_init__(self) -> None:
        items = [item for block in self.blocks for item in self.function.blocks[block]]
        inside = {item.name for item in items}
        self.inputs.update({name: [] for name in inside})
        for item in items:
            self.inputs[item.name] += [name for name in item.operands if name in inside]
            if item.op == "phi":
                head = item.block in self.headers
                self.inputs[item.name] += [] if head else self.conditions(item.block, True)
                self.registers |= {item.name} if head else set()
            for memory in self.memories(item.source):
                self.inputs.setdefault(memory, [])
                self.registers.add(memory)
                self.inputs[item.name].append(memory)
            for memory in self.memories(item.target):
                enables = self.conditions(item.block, False)
                self.inputs.setdefault(memory, []).extend([item.name, *enables])
                self.registers.add(memory)

    def memories(self, address: str) -> list[str]:
        """Arrays of the function, or of the program, that an address may lie in."""
        found, seen, todo = [], set(), [address]
        while todo:
            name = todo.pop()
            value = self.function.values.get(name)
            if name.startswith("@") or (value and value.op == "alloca"):
                found.append(name)
            elif value and name not in seen and value.op in ("getelementptr", "select", "phi"):
                seen.add(name)
                todo += value.operands
        return found

    def conditions(self, block: str, merge: bool) -> list[str]:
        """What decides from which side a block is entered (merge), or whether it is."""
        if (block, merge) not in self.known:
            self.known[block, merge] = self._conditions(block, merge)
        return self.known[block, merge]

    def _conditions(self, block: str, merge: bool) -> list[str]:
        region, todo = set(), [block]
        stop = self.function.dominators[block] - {block}
        nearest = max(stop, key=lambda name: len(self.function.dominators[name]), default=block)
        end = {nearest} if merge else self.headers
        while todo:
            for source in self.function.sources[todo.pop()]:
                if source in self.blocks and source not in region and source != block:
                    region.add(source)
                    todo += [] if source in end or source in self.headers else [source]
        found = []
        ways: dict[str, set[str]] = {block: {block}}
        for name in sorted(region):
            targets = set(self.function.targets[name])
            last = self.function.blocks[name][-1]
            inner = targets & (region | {block})
            decides = (
                not self._behind(name, region, ways) - {name, block} if merge else inner < targets
            )
            if len(targets) > 1 and decides:
                found += [operand for operand in last.operands if operand in self.inputs]
        return found

    def _behind(self, block: str, region: set[str], ways: dict[str, set[str]]) -> set[str]:
        """The blocks that all ways from a block of a region lead through; `ways` keeps them."""
        if block not in ways:
            ways[block] = {block}  # a way back ends here
            targets = [t for t in self.function.targets[block] if t in region or t in ways]
            forward = [self._behind(t, region, ways) for t in targets if t not in self.headers]
            ways[block] = {block} | (set.intersection(*forward) if forward else set())
        return ways[block]

    def components(self) -> list[set[str]]:
        """Strongly connected components with a register in them (Tarjan 1972)."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        held: set[str] = set()
        found = []
        for root in self.inputs:
            if root in index:
                continue
            work = [(root, iter(self.inputs[root]))]
            index[root] = low[root] = len(index)
            stack.append(root)
            held.add(root)
            while work:
                name, rest = work[-1]
                for other in rest:
                    if other not in index:
                        index[other] = low[other] = len(index)
                        stack.append(other)
                        held.add(other)
                        work.append((other, iter(self.inputs.get(other, []))))
                        break
                    if other in held:
                        low[name] = min(low[name], index[other])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[name])
                    if low[name] == index[name]:
                        part = set()
                        while name not in part:
                            part.add(stack.pop())
                        held -= part
                        if len(part) > 1 or name in self.inputs[name]:
                            found.append(part)
        return found
