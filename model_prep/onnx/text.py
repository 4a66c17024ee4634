# SPDX-License-Identifier: Apache-2.0
"""Names from a file, made harmless: printable for messages, identifiers for everything else."""

import re

SHOWN_LENGTH = 60
NAME_LENGTH = 40
TITLE_LENGTH = 120
RESERVED = frozenset((  # array names, C++ keywords, and names that Windows keeps
    "input", "output", "images", "labels", "float_logits", "accelerator", "main", "int", "char",
    "float", "double", "bool", "void", "auto", "const", "static", "struct", "class", "union",
    "enum", "signed", "unsigned", "long", "short", "if", "else", "for", "while", "do", "switch",
    "case", "default", "break", "continue", "return", "goto", "sizeof", "typedef", "template",
    "typename", "namespace", "using", "new", "delete", "this", "operator", "inline", "volatile",
    "register", "extern", "true", "false", "and", "or", "not", "xor", "con", "prn", "aux", "nul",
))  # fmt: skip


def shown(text: str, length: int = SHOWN_LENGTH) -> str:
    r"""`text` for a message: printable characters only, cut to `length`.

    >>> shown("conv/1"), shown("a\x1b[2J\nb"), shown("x" * 70)[-5:]
    ('conv/1', 'a?[2J?b', 'xx...')
    """
    cut = text[: length + 1]
    plain = "".join(c if c.isprintable() and not 0xD800 <= ord(c) < 0xE000 else "?" for c in cut)
    return plain if len(text) <= length else plain[: length - 3] + "..."


class Namer:
    """Gives every layer and concat its own identifier `[a-z][a-z0-9_]*`."""

    def __init__(self) -> None:
        self._taken: set[str] = set(RESERVED)
        self._counts: dict[str, int] = {}

    def name(self, title: str, kind: str) -> str:
        """An identifier that follows `title`, or `kind` and a number where that says nothing.

        >>> namer = Namer()
        >>> [namer.name(t, "conv") for t in ("/Conv 1", "/Conv 1", "n0", "../../etc", "")]
        ['conv_1', 'conv_1_2', 'conv1', 'etc', 'conv2']
        """
        base = re.sub(r"[^a-z0-9]+", "_", title[:TITLE_LENGTH].lower()).strip("_")
        base = base[:NAME_LENGTH].strip("_")
        if base[:1].isdigit():
            base = f"{kind}_{base}"
        if sum(c.isalpha() for c in base) < 2 or base in RESERVED:
            return self._numbered(kind, 1, "")
        return base if self._take(base) else self._numbered(base, 2, "_")

    def _numbered(self, base: str, first: int, between: str) -> str:
        while True:
            number = self._counts.get(base + between, first)
            self._counts[base + between] = number + 1
            if self._take(f"{base}{between}{number}"):
                return f"{base}{between}{number}"

    def _take(self, name: str) -> bool:
        if name in self._taken:
            return False
        self._taken.add(name)
        return True
