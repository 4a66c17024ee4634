# SPDX-License-Identifier: Apache-2.0
"""C++ text -> tokens as a synthesis run sees them: no comments, no branch for simulation only.

Pragmas are tokens; line numbers are those of the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFINED = {"__SYNTHESIS__"}
PRAGMA = "#pragma"
TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<name>[A-Za-z_]\w*)
      | (?P<number>\d[\w.']*)
      | (?P<sign>::|->|<<=|\+\+|--|&&|\|\||[-+*/%&|^<>=!]=|[^\s\w])""",
    re.VERBOSE,
)
# PROCESS(function, arguments) of fifo.hpp is a call of the function.
PROCESS = re.compile(r"\bPROCESS\((\w+(?:<\w+>)?),\s*")
JINJA = re.compile(r"\{%.*?%\}|\{#.*?#\}", re.DOTALL)
JINJA_VALUE = re.compile(r"""\{\{(?:'[^']*'|"[^"]*"|[^'"])*?\}\}""")


@dataclass(frozen=True)
class Token:
    """One token; for a pragma `text` is #pragma, `rest` what follows HLS, `reason` its comment."""

    text: str
    line: int
    kind: str
    rest: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Source:
    """A file's tokens and the headers that synthesis includes."""

    name: str
    tokens: tuple[Token, ...]
    includes: tuple[tuple[str, int], ...]


def plain_template(text: str) -> str:
    """A Jinja2 template as C++ with 1 for every value; lines stay where they are.

    >>> plain_template("int a[{{ n }}];{% if x %} b;{% endif %}")
    'int a[1]; b;'
    """
    text = JINJA_VALUE.sub("1", text)
    return JINJA.sub(lambda match: "\n" * match[0].count("\n"), text)


def lex(name: str, text: str) -> Source:
    """Tokens of a file; a name that ends in .j2 is a template."""
    if name.endswith(".j2"):
        text = plain_template(text)
    lines = PROCESS.sub(r"\1(", _uncomment(text)).splitlines()
    originals = text.splitlines()
    tokens: list[Token] = []
    includes: list[tuple[str, int]] = []
    branches: list[bool] = []
    continued = False
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if continued:
            continued = stripped.endswith("\\")
            continue
        if stripped.startswith("#"):
            if not _conditional(stripped, branches) and all(branches):
                _directive(stripped, originals[number - 1], number, tokens, includes)
            continued = stripped.endswith("\\")
        elif all(branches):
            for match in TOKEN.finditer(line):
                tokens.append(Token(match[0], number, match.lastgroup or "sign"))
    return Source(name, tuple(tokens), tuple(includes))


def _uncomment(text: str) -> str:
    """The text without comments, its lines kept; comment signs inside of strings do not count."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)

    def blank(match: re.Match[str]) -> str:
        return match[0] if match[0].startswith('"') else "\n" * match[0].count("\n")

    return pattern.sub(blank, text)


def _conditional(line: str, branches: list[bool]) -> bool:
    """Follow #if and its like; whether the line was one. Unknown conditions keep their branch."""
    words = line.lstrip("# ").split()
    word = words[0] if words else ""
    if word in ("ifdef", "ifndef"):
        branches.append((words[1] in DEFINED) == (word == "ifdef"))
        if word == "ifndef" and words[1] not in DEFINED:
            branches[-1] = True  # an include guard
        return True
    if word == "if":
        branches.append(True)
    elif word in ("else", "elif"):
        if branches:
            branches[-1] = not branches[-1]
    elif word == "endif":
        if branches:
            branches.pop()
    else:
        return False
    return True


def _directive(
    line: str,
    original: str,
    number: int,
    tokens: list[Token],
    includes: list[tuple[str, int]],
) -> None:
    include = re.match(r'#\s*include\s*[<"]([^>"]+)[>"]', line)
    if include:
        includes.append((include[1], number))
    pragma = re.match(r"#\s*pragma\s+(.*)", line)
    if pragma:
        reason = original.partition("//")[2].strip()
        tokens.append(Token(PRAGMA, number, "pragma", pragma[1].strip(), reason))
