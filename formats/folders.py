# SPDX-License-Identifier: Apache-2.0
"""What a folder of images holds: pictures, or a folder of pictures for each class."""

import sys
from collections.abc import Sequence
from pathlib import Path

from nuq.formats.errors import UserError

# How names of pictures end; a file without such an end is one, too, if it has none at all.
PICTURES = frozenset(
    f".{end}"
    for end in [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "jp2",
        "png",
        "apng",
        "bmp",
        "dib",
        "gif",
        "tif",
        "tiff",
        "webp",
        "avif",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "tga",
        "pcx",
        "sgi",
        "ico",
    ]
)
# Names of the parts of a data set; that to measure on comes first.
SPLITS = ("test", "testing", "val", "valid", "validation", "eval", "dev", "train", "training")
NAMED = 6  # classes that a message names


def labelled_files(
    path: Path, network: str, outputs: int, classes: Sequence[str] = ()
) -> tuple[list[tuple[Path, int]], list[str] | None]:
    """((picture, label) in the order of names, class names) of a flat folder or of class folders.

    Args:
        path: the folder.
        network: its name, for messages.
        outputs: how many classes it has.
        classes: their names, where they are known; see `class_labels`.

    Raises:
        UserError: no picture, something else among them, or folders that are no classes.
    """
    entries, others = _entries(path)
    folders = [item for item in entries if item.is_dir()]
    if folders and len(folders) < len(entries):
        stray = next(item for item in entries if not item.is_dir())
        raise UserError(f"DATA must hold images or class folders, not both; move {stray}")
    names: list[str] | None = None
    pairs = [(file, -1) for file in entries]
    if folders:
        _refuse_splits(path, folders, classes)
        numbers, names = class_labels([folder.name for folder in folders], classes)
        pairs = []
        for folder, label in zip(folders, numbers, strict=True):
            files, left_out = _entries(folder)
            pairs += [(file, label) for file in files]
            others += left_out
        if names and names != list(classes):
            _check_number(path, names, network, outputs)
    for file, _ in pairs:
        if not file.is_file():
            where = (
                f"; give DATA={file.parent}, if its folders are classes" if file.is_dir() else ""
            )
            raise UserError(f"DATA must hold images only, but {file} is no file{where}")
    if not pairs and not others:
        raise UserError(f"DATA must hold at least one image, but {path} is empty")
    if not pairs:
        raise UserError(
            f"DATA must hold at least one picture (.png, .jpg and so on), but {path} holds none"
        )
    return pairs, names


def class_labels(
    folders: Sequence[str], classes: Sequence[str] = ()
) -> tuple[list[int], list[str] | None]:
    """(label of each folder, class names) of the names of class folders.

    Numbers are labels, names that are all the network's classes are these, and other names are
    counted in order.

    >>> class_labels(["10", "9"]), class_labels(["cat", "dog"])
    (([10, 9], None), ([0, 1], ['cat', 'dog']))
    >>> class_labels(["dog"], ["cat", "dog"])
    ([1], ['cat', 'dog'])
    """
    if all(name.isdecimal() for name in folders):
        return [int(name) for name in folders], None
    if set(folders) <= set(classes):
        return [classes.index(name) for name in folders], list(classes)
    return list(range(len(folders))), list(folders)


def numbered(names: Sequence[str]) -> str:
    """Which number each class has, in short.

    >>> numbered(["circle", "ring"]), numbered("abcdefgh")
    ('circle=0, ring=1', 'a=0, b=1, c=2, d=3, e=4, ... h=7')
    """
    parts = [f"{name}={number}" for number, name in enumerate(names)]
    if len(parts) > NAMED:
        parts = [*parts[: NAMED - 1], f"... {parts[-1]}"]
    return ", ".join(parts)


def _check_number(path: Path, names: Sequence[str], network: str, outputs: int) -> None:
    """A warning of fewer class folders than outputs, which are counted; UserError of more."""
    if len(names) > outputs:
        raise UserError(
            f"DATA {path} must have at most {outputs} class folders, as {network} has {outputs} "
            f"outputs, not {len(names)} ({numbered(names)})"
        )
    if len(names) < outputs:
        print(
            f"warning: DATA {path} has {len(names)} class folder{'s' * (len(names) > 1)} for "
            f"{outputs} outputs: {numbered(names)}. Names are counted in their order: add empty "
            "folders for the other classes, or name each folder by its number",
            file=sys.stderr,
        )


def _refuse_splits(path: Path, folders: Sequence[Path], classes: Sequence[str]) -> None:
    """UserError where folders are the parts of a data set, not classes."""
    names = {folder.name.lower(): folder for folder in folders}
    if not names.keys() <= {*SPLITS} - {*classes}:
        return
    if len(folders) > 1 or any(item.is_dir() for item in folders[0].iterdir()):
        first = next(names[name] for name in SPLITS if name in names)
        raise UserError(
            f"DATA must be one part of a data set, as {', '.join(sorted(names))} in {path} seem to "
            f"be parts, not classes; give DATA={first}"
        )


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """(pictures and folders, other files) in a folder, less hidden names, in the order of names.

    What is left out for its name, such as README.txt, is said on stderr.
    """
    items = sorted(item for item in folder.iterdir() if not item.name.startswith("."))
    others = [
        item for item in items
        if item.suffix and item.suffix.lower() not in PICTURES and item.is_file()
    ]  # fmt: skip
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        print(f"note: DATA: {others[0]}{more} left out, no picture by its name", file=sys.stderr)
    return [item for item in items if item not in others], others
