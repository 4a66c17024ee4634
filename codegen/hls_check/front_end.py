# SPDX-License-Identifier: Apache-2.0
"""A rendered design as the front end of Vitis HLS sees it: clang, with __SYNTHESIS__ defined.

g++ never sees that branch, nor a name in a pragma. Here every pragma is a statement that resolves
its names as the vendor's front end does (Xilinx/hls-llvm-project, SemaXlxAttr.cpp, where a template
without all of its arguments is instantiated with what can be deduced), and the headers of `vitis/`
stand for the vendor's. clang is the one of the package ziglang.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from nuq.codegen.hls_check.lexer import Token, join_pragmas, lex
from nuq.codegen.hls_check.pragmas import pragma_name, pragma_options
from nuq.codegen.hls_check.program import Finding
from nuq.codegen.hls_check.syntax import parse
from nuq.formats.errors import UserError

TOP = "accelerator.cpp"
STUBS = Path(__file__).with_name("vitis")
FLAGS = ("-x", "c++", "-std=c++14", "-D__SYNTHESIS__", "-w", "-ferror-limit=0")
# Loops with UNROLL are unrolled and functions but the processes inlined, as Vitis HLS does; nothing
# else changes the operations of the source: no vectors, no closed forms in the place of loops.
OPTIMIZE = (
    "-O1", "-gline-tables-only", "-fno-discard-value-names", "-fno-unroll-loops",
    "-fno-vectorize", "-fno-slp-vectorize", "-mllvm", "-inline-threshold=1000000",
    "-mllvm", "-replexitval=never", "-mllvm", "-indvars-widen-indvars=false",
)  # fmt: skip
UNROLL = '_Pragma("clang loop unroll(full)")'
# Options of pragmas that are sizes.
SIZES = {"depth", "min", "max", "avg", "II", "factor", "limit"}
ERROR = re.compile(r"(?P<file>[^\s:]+):(?P<line>\d+):\d+: (?:fatal )?error: (?P<text>.*)")
USE = re.compile(r"([^\s:]+:\d+):\d+: note: in instantiation of .* requested here")


def as_statements(pragma: Token) -> str:
    """What resolves the names of a pragma.

    >>> as_statements(Token("#pragma", 1, "pragma", "HLS ALLOCATION function instances = f<N>"))
    '(void)(&f<N>);'
    >>> as_statements(Token("#pragma", 1, "pragma", "HLS STREAM variable = pipe depth = C::N"))
    '(void)(pipe); static_assert((C::N) >= 0, "depth must be a constant");'
    """
    options = pragma_options(pragma)
    found = []
    for option, value in options.items():
        if value is None or value == "return":
            continue
        if option == "instances" and "function" in options:
            found.append(f"(void)(&{value});")
        elif option in ("variable", "port"):
            found.append(f"(void)({value});")
        elif option in SIZES:
            found.append(f'static_assert(({value}) >= 0, "{option} must be a constant");')
    return " ".join(found)


def as_compiled(name: str, text: str) -> str:
    """A source as clang gets it; lines stay where they are."""
    text = join_pragmas(text)
    unit = parse(lex(name, text))
    lines = text.splitlines()
    for function in unit.functions:
        for item in function.body.walk():
            unrolled = [p for p in item.pragmas() if pragma_name(p) == "UNROLL"]
            if unrolled and item.kind == "for" and not pragma_options(unrolled[0]):
                at = item.line - 1
                lines[at] = lines[at].replace(
                    "for (", '_Pragma("clang loop unroll(full)") for (', 1
                )
    for token in unit.source.tokens:
        if token.kind == "pragma" and pragma_name(token):
            lines[token.line - 1] = as_statements(token)
    # a process stays a function of its own
    text = "\n".join(lines)
    return re.sub(r"^( +)PROCESS\(", r"\1[[clang::noinline]] PROCESS(", text, flags=re.MULTILINE)


def compile_design(texts: Mapping[str, str], top: str = TOP) -> tuple[list[Finding], str]:
    """What clang finds wrong in a rendered design, and its LLVM IR; one of both is empty.

    Args:
        texts: the files of `hls/`; those for simulation only do not matter.
        top: the file of the top function.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in texts.items():
            if file.endswith((".hpp", ".cpp")):
                (folder / file).write_text(as_compiled(file, text), encoding="utf-8")
        output = folder / "design.ll"
        command = (
            sys.executable, "-m", "ziglang", "c++", *FLAGS, *OPTIMIZE, "-S", "-emit-llvm",
            "-isystem", str(STUBS), top, "-o", str(output),
        )  # fmt: skip
        if find_spec("ziglang") is None:
            raise UserError("the check of a design must have clang: `pip install ziglang`")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        findings = read_errors(done.stderr)
        if done.returncode and not findings:
            raise UserError(f"clang must compile {top} or say why not: {done.stderr.strip()}")
        return findings, "" if findings else output.read_text(encoding="utf-8")


def read_errors(messages: str) -> list[Finding]:
    """clang's errors; each with the line of the design that needs what is wrong."""
    findings: list[Finding] = []
    for line in messages.splitlines():
        if error := ERROR.match(line):
            file, text = Path(error["file"]).name, error["text"]
            findings.append(Finding(file, int(error["line"]), "front-end", text))
        elif (use := USE.match(line)) and findings:
            last = findings[-1]
            text = f"{last.message.partition(', needed at ')[0]}, needed at {use[1]}"
            findings[-1] = Finding(last.file, last.line, last.rule, text)
    return findings
