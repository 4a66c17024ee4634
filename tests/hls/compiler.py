# SPDX-License-Identifier: Apache-2.0
"""The compiler on a source text beside the headers that every design has."""

from pathlib import Path

from nuq.codegen.emit.render import headers
from nuq.formats.build import find_compiler, find_headers
from tests.checkout import execute


def compile_text(folder: Path, text: str, *flags: str) -> str:
    """The compiler's messages; it writes a.out unless a flag says otherwise."""
    for name, content in {**headers(), "source.cpp": text}.items():
        (folder / name).write_text(content)
    command = (find_compiler(), "-std=c++14", "-w", "-I.", *flags, "-isystem", str(find_headers()))
    return execute(*command, "source.cpp", folder=folder).stderr
