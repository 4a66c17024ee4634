# SPDX-License-Identifier: Apache-2.0
"""C++ text -> tokens as a synthesis run sees them: no comments, no branch for simulation only.

Pragmas are tokens; line numbers are those of the file.
"""

import re
from dataclasses import dataclass

DEFINED = "__SYNTHESIS__"
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
# A pragma that goes on behind its line.
CONTINUED = re.compile(r"#pragma[^\n]*\\(?:\n[^\n]*\\)*\n[^\n]*")
JINJA = re.compile(r"\{%.*?%\}|\{#.*?#\}", re.DOTALL)
JINJA_VALUE = re.compile(r"""\{\{(?:'[^']*'|"[^"]*"|[^'"])*?\}\}""")


@dataclass(frozen=True)
class Token:
    """One token."""

    text: str  # of a pragma, #pragma with its indentation
    line: int
    kind: str  # string, name, number, sign or pragma
    rest: str = ""  # of a pragma: what follows
    reason: str = ""  # of a pragma: its comment


@dataclass(frozen=True)
class Source:
    """A file as synthesis sees it."""

    name: str
    tokens: tuple[Token, ...]
    includes: tuple[tuple[str, int], ...]  # headers and their lines
    lines: tuple[str, ...]  # as they are
    macros: tuple[tuple[str, int], ...] = ()  # names of those that stand for something

    @property
    def file(self) -> str:
        """The file's name without folders, as it is when it is rendered."""
        return self.name.rpartition("/")[2].removesuffix(".j2")


def plain_template(text: str) -> str:
    """A Jinja2 template as C++ with 1 for every value; lines stay where they are.

    >>> plain_template("int a[{{ n }}];{% if x %} b;{% endif %}")
    'int a[1]; b;'
    """
    text = JINJA_VALUE.sub("1", text)
    return JINJA.sub(lambda match: "\n" * match[0].count("\n"), text)


def join_pragmas(text: str) -> str:
    """The text with every pragma on one line; the other lines stay where they are.

    >>> join_pragmas("#pragma HLS A b = \\\\\\n  1\\nint c;")
    '#pragma HLS A b = 1\\n\\nint c;'
    """

    def joined(match: re.Match[str]) -> str:
        lines = [line.removesuffix("\\").strip() for line in match[0].split("\n")]
        return " ".join(lines) + "\n" * (len(lines) - 1)

    return CONTINUED.sub(joined, text)


def lex(name: str, text: str) -> Source:
    """Tokens of a file; a name that ends in .j2 is a template."""
    text = join_pragmas(text)
    if name.endswith(".j2"):
        text = plain_template(text)
    originals = text.splitlines()
    tokens: list[Token] = []
    includes: list[tuple[str, int]] = []
    macros: list[tuple[str, int]] = []
    branches: list[bool] = []
    continued = False
    for number, line in enumerate(PROCESS.sub(r"\1(", _uncomment(text)).splitlines(), 1):
        directive = continued or line.lstrip().startswith("#")
        if directive and not continued and not _conditional(line, branches) and all(branches):
            if include := re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line):
                includes.append((include[1], number))
            if macro := re.match(
                r"\s*#\s*define\s+(\w+)(?:\(|[ \t]+[^\s/])", originals[number - 1]
            ):
                macros.append((macro[1], number))
            if pragma := re.match(r"(\s*)#\s*pragma\s+(.*)", line):
                reason = originals[number - 1].partition("//")[2].strip()
                start = pragma[1] + PRAGMA
                tokens.append(Token(start, number, "pragma", pragma[2].strip(), reason))
        elif not directive and all(branches):
            for match in TOKEN.finditer(line):
                tokens.append(Token(match[0], number, match.lastgroup or "sign"))
        continued = directive and line.rstrip().endswith("\\")
    return Source(name, tuple(tokens), tuple(includes), tuple(originals), tuple(macros))


def _uncomment(text: str) -> str:
    """The text without comments, its lines kept; comment signs inside of strings do not count."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)

    def blank(match: re.Match[str]) -> str:
        return match[0] if match[0].startswith('"') else "\n" * match[0].count("\n")

    return pattern.sub(blank, text)


def _conditional(line: str, branches: list[bool]) -> bool:
    """Follow #if and its like; whether the line was one. Unknown conditions keep their branch."""
    word, *rest = line.strip().lstrip("# ").split() or [""]
    if word in ("if", "ifdef", "ifndef"):
        synthesis = rest[:1] == [DEFINED]
        guard = word == "ifndef" and not synthesis
        branches.append(word == "if" or guard or synthesis == (word == "ifdef"))
    elif word in ("else", "elif") and branches:
        branches[-1] = not branches[-1]
    elif word == "endif" and branches:
        branches.pop()
    return word in ("if", "ifdef", "ifndef", "else", "elif", "endif")
