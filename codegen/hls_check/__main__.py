# SPDX-License-Identifier: Apache-2.0
"""`python -m codegen.hls_check [FILE or FOLDER ...]`: the HLS subset, default hls_templates/.

Prints file:line: rule: message; exit status 1 where there is a finding, 2 for bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from codegen.cli import Parser
from codegen.emit.render import TEMPLATES
from codegen.hls_check.check import check_files, find_files
from formats.errors import run_cli


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit status."""
    parser = Parser(prog="python -m codegen.hls_check", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders of one design")
    paths = parser.parse_args(arguments).paths or [TEMPLATES / "engine", TEMPLATES / "rendered"]
    findings = check_files(paths)
    for finding in findings:
        print(finding)
    if not findings:
        print(f"{len(find_files(paths))} files keep to the HLS subset")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
