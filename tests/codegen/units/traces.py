# SPDX-License-Identifier: Apache-2.0
"""What the registers of each recurrence hold before and behind every step of the engine's C++.

The rendered C++ gets statements that write them, and runs as a C-simulation. Each line of the trace
is a step: its signals as hexadecimal numbers, in the order of Recurrence.state (before), .given,
.state (behind).
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from nuq.codegen.units.recurrences import Recurrence
from nuq.formats.build import find_compiler, find_headers

MOST = 20000  # steps of a loop that are kept
TRACE = """
#include <cstdio>
#include <string>
typedef unsigned __int128 trace_t;
inline std::FILE* trace_file(const char* name) {
  return std::fopen((std::string("trace_") + name).c_str(), "w");
}
inline void trace_line(std::FILE* file, const trace_t* values, int number) {
  for (int i = 0; i < number; i++) {
    std::fprintf(file, "%llx%016llx ", (unsigned long long)(values[i] >> 64),
                 (unsigned long long)values[i]);
  }
  std::fputs("\\n", file);
}
"""


def instrument(texts: dict[str, str], loops: Sequence[Recurrence]) -> dict[str, str]:
    """The files of `hls/` with a trace of these loops, and streams that keep what they gave."""
    found = dict(texts)
    stream = found["stream.hpp"]
    for old, new in (
        ("return items_[at];", "last = items_[at];\n    return last;"),
        ("return held == 0 || !clock_.arrived(head_);",
         "was_empty = held == 0 || !clock_.arrived(head_);\n    return was_empty;"),
        (" private:\n  void wait_for",
         "  T last;\n  mutable bool was_empty = false;\n\n private:\n  void wait_for"),
    ):  # fmt: skip
        assert old in stream, old
        stream = stream.replace(old, new, 1)
    found["stream.hpp"] = stream
    found["layer.hpp"] = found["layer.hpp"].replace("#include", TRACE + "#include", 1)
    for loop in loops:
        found[loop.file] = traced(found[loop.file], loop)
    return found


def traced(text: str, loop: Recurrence) -> str:
    """A file with statements at the beginning and end of a loop's body."""
    at = next(re.finditer(rf"^ *{loop.loop}:$", text, re.MULTILINE)).start()
    begin = body(text, at)
    depth, end = 1, begin
    while depth:
        end += 1
        depth += {"{": 1, "}": -1}.get(text[end], 0)
    while match := re.match(r"\s*#pragma[^\n]*", text[begin + 1 :]):
        begin += match.end()
    name = loop.name
    before = ", ".join(f"trace_t({item.cpp})" for item in loop.state)
    later = ", ".join(f"trace_t({item.after or item.cpp})" for item in loop.state)
    given = ", ".join(f"trace_t({item.cpp})" for item in loop.given)
    kept = "".join(f"const auto {key} = {value};\n" for key, value in loop.remember.items())
    top = f"\n{kept}trace_t before_{name}[] = {{{before}}};\n"
    bottom = (
        f'static int steps_{name} = 0;\nstatic std::FILE* file_{name} = trace_file("{name}");\n'
        f"if (steps_{name}++ < {MOST} || steps_{name} % 997 == 0) {{\n"
        f"trace_line(file_{name}, before_{name}, {len(loop.state)});\n"
        f"const trace_t now_{name}[] = {{{', '.join(x for x in (given, later) if x)}}};\n"
        f"trace_line(file_{name}, now_{name}, {len(loop.given) + len(loop.state)});\n}}\n"
    )
    return text[: begin + 1] + top + text[begin + 1 : end] + bottom + text[end:]


def body(text: str, at: int) -> int:
    """Where the brace is that opens the body of the loop behind a label."""
    place, depth = text.index("for (", at) + 4, 0
    while True:
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        place += 1
        if depth == 0:
            return text.index("{", place)


def run(texts: dict[str, str], build: Path, folder: Path, images: int) -> None:
    """Compile the files into a folder and run the test bench there on a build's parameters."""
    for name, text in texts.items():
        (folder / name).write_text(text)
    sources = [name for name in texts if name.endswith(".cpp")]
    # -O0: it compiles longer than it runs
    flags = ["-std=c++14", "-O0", "-DCSIM_FAST", "-fno-access-control", "-w", "-isystem"]
    subprocess.run(
        [find_compiler(), *flags, str(find_headers()), *sources, "-o", "bench"],
        cwd=folder,
        check=True,
    )
    (folder / "csim").mkdir()
    parts = [build / "params", build / "golden", folder / "csim"]
    subprocess.run(["./bench", *map(str, parts), str(images)], cwd=folder, check=True)


def steps(folder: Path, loop: Recurrence) -> list[list[int]]:
    """The traced steps: before, given, behind, each masked to its width."""
    lines = (folder / f"trace_{loop.name}").read_text().splitlines()
    signals = [*loop.state, *loop.given, *loop.state]
    return [
        [int(word, 16) & (1 << item.bits) - 1
         for word, item in zip(f"{one} {two}".split(), signals, strict=True)]
        for one, two in zip(lines[::2], lines[1::2], strict=False)
    ]  # fmt: skip
