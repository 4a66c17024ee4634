# SPDX-License-Identifier: Apache-2.0
"""The compilers on a source text beside headers."""

import sys
from pathlib import Path

from nuq.codegen.emit.render import headers
from nuq.codegen.hls_check.front_end import FLAGS, STUBS
from nuq.formats.build import find_compiler, find_headers
from tests.checkout import execute


def compile_text(folder: Path, text: str, *flags: str) -> str:
    """The compiler's messages; it writes a.out unless a flag says otherwise."""
    for name, content in {**headers(), "source.cpp": text}.items():
        (folder / name).write_text(content)
    command = (find_compiler(), "-std=c++14", "-w", "-I.", *flags, "-isystem", str(find_headers()))
    return execute(*command, "source.cpp", folder=folder).stderr


def front_end_messages(folder: Path, text: str) -> str:
    """clang's messages, in the vendor's branch of the headers of `folder`: much faster than g++."""
    (folder / "source.cpp").write_text(text)
    # what is to be linked, as with -fsyntax-only alone, makes zig build its C++ library first
    command = (
        sys.executable,
        "-m",
        "ziglang",
        "c++",
        *FLAGS,
        "-S",
        "-emit-llvm",
        "-o",
        "source.ll",
    )
    return execute(*command, "-isystem", str(STUBS), "source.cpp", folder=folder).stderr
