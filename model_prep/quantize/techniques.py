# SPDX-License-Identifier: Apache-2.0
"""The techniques of refinement (option REFINE) that a plan may list."""

from formats.errors import UserError

TECHNIQUES = ("equalise", "sensitivity", "distil")
ALL, NONE = "all", "none"
DISTIL_STEPS = 60  # unless a plan says otherwise


def parse(text: str) -> tuple[str, ...]:
    """The techniques of REFINE in the order in which they run; UserError for an unknown name.

    >>> parse("all"), parse("none"), parse("distil,equalise")
    (('equalise', 'sensitivity', 'distil'), (), ('equalise', 'distil'))
    """
    if text in (ALL, NONE):
        return TECHNIQUES if text == ALL else ()
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TECHNIQUES:
            raise UserError(
                f"REFINE must be {ALL}, {NONE} or of {', '.join(TECHNIQUES)}, not {name!r}"
            )
    return tuple(name for name in TECHNIQUES if name in names)
