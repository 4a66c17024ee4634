# SPDX-License-Identifier: Apache-2.0
"""Dataclasses as JSON: the JSON schema of one, a value checked against it, written and read back.

Every field of a dataclass is a property; one without a default must be there. `Annotated[int,
Limits(minimum=1)]` adds keywords of JSON schema. A field's metadata say what differs: see `stored`.
`check` understands what `schema_of` writes, but for a class's own SCHEMA_RULES: those are for other
readers, as the class checks itself when it is made.
"""

import itertools
import json
import operator
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


class Limits(dict[str, Any]):
    """Keywords of JSON schema that `Annotated` adds to a type."""

    def __hash__(self) -> int:  # type: ignore[override]
        """Of the keywords and their values, as types must be hashable."""
        return hash(repr(sorted(self.items())))


def stored(
    *,
    array: str = "",
    kind: Any = None,
    name: str = "",
    sparse: bool = False,
    write: Callable[[Any], Any] | None = None,
    read: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Any:
    """A dataclass field that is not written as it is.

    Args:
        array: its key in an archive of arrays; it is no JSON property unless `kind` is given.
        kind: type of the JSON property, where that is another than the field's; without `read`
            the field holds what was read.
        name: of the JSON property, where that is another than the field's.
        sparse: whether it is written only where it is not empty.
        write, read: from the field to the property and back.
        options: of `dataclasses.field`.
    """
    metadata = {
        "array": array, "kind": kind, "name": name, "sparse": sparse, "write": write, "read": read,
    }  # fmt: skip
    return field(metadata=metadata, **options)


def absent(**options: Any) -> Any:
    """A dataclass field that files do not have."""
    return field(metadata={"array": "absent"}, **options)


def properties(kind: Any) -> dict[str, tuple[Field[Any], Any]]:
    """The JSON properties of a dataclass, in order: name to (field, type)."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for item in fields(kind):
        form = item.metadata.get("kind")
        if form is not None or not item.metadata.get("array"):
            found[item.metadata.get("name") or item.name] = (item, form or hints[item.name])
    return found


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return {**schema_of(arguments[0]), **arguments[1]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):  # with None, nothing else
        return {"anyOf": [schema_of(one) for one in arguments]}
    if origin is tuple and arguments[-1] is not Ellipsis:
        size = len(arguments)
        return {"type": "array", "items": schema_of(arguments[0]),
                "minItems": size, "maxItems": size}  # fmt: skip
    if origin in (tuple, list):
        return {"type": "array", "items": schema_of(arguments[0])}
    if is_dataclass(kind):
        return {
            "type": "object",
            "properties": {name: schema_of(form) for name, (_, form) in properties(kind).items()},
            "required": [name for name, (item, _) in properties(kind).items() if _required(item)],
            "additionalProperties": False,
            **getattr(kind, "SCHEMA_RULES", {}),
        }
    return {"type": "object" if origin is dict else _TYPES[kind]}


def _required(item: Field[Any]) -> bool:
    return not item.init or (item.default is MISSING and item.default_factory is MISSING)


def check(schema: Mapping[str, Any], value: Any, path: str = "$") -> str | None:
    """What is wrong with a value, "$.layers[0].kind: ...", or None.

    >>> check({"type": "integer", "minimum": 1}, 0)
    '$: 0 is less than the minimum of 1'
    """
    if "anyOf" in schema:
        return None if value is None else check(schema["anyOf"][0], value, path)
    faults = (f"{path}: {fault}" for fault in _faults(schema, value))
    return next(itertools.chain(faults, _faults_inside(schema, value, path)), None)


def _faults_inside(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict) and "properties" in schema:
        parts = [(schema["properties"][name], one, f"{path}.{name}") for name, one in value.items()]
    elif isinstance(value, list):
        parts = [(schema["items"], one, f"{path}[{i}]") for i, one in enumerate(value)]
    else:
        return
    yield from filter(None, (check(*part) for part in parts))


# What a keyword asks of a value, and the jsonschema package's words where it is not so.
_KEYWORDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "enum": (lambda value, words: value in words, "{!r} is not one of {!r}"),
    "minimum": (operator.ge, "{!r} is less than the minimum of {!r}"),
    "maximum": (operator.le, "{!r} is greater than the maximum of {!r}"),
    "exclusiveMinimum": (operator.gt, "{!r} is less than or equal to the minimum of {!r}"),
    "pattern": (lambda value, pattern: bool(re.search(pattern, value)), "{!r} does not match {!r}"),
    "minItems": (lambda value, least: len(value) >= least, "{!r} is too short"),
    "maxItems": (lambda value, most: len(value) <= most, "{!r} is too long"),
}


def _faults(schema: Mapping[str, Any], value: Any) -> Iterator[str]:
    """What is wrong with the value itself."""
    kind = schema.get("type")
    if kind is not None and not _is(value, kind):
        yield f"{value!r} is not of type {kind!r}"
        return
    for keyword, (holds, words) in _KEYWORDS.items():
        if keyword in schema and not holds(value, schema[keyword]):
            yield words.format(value, schema[keyword])
    if kind == "object" and "properties" in schema:
        for name in schema["required"]:
            if name not in value:
                yield f"{name!r} is a required property"
        for name in value:
            if name not in schema["properties"]:
                yield f"Additional properties are not allowed ({name!r} was unexpected)"


def _is(value: Any, kind: str) -> bool:
    """Whether a value read from JSON is of a type of JSON schema."""
    classes: dict[str, Any] = {
        "integer": int, "number": (int, float), "string": str, "boolean": bool,
        "array": list, "object": dict, "null": type(None),
    }  # fmt: skip
    return isinstance(value, classes[kind]) and (kind == "boolean" or not isinstance(value, bool))


def to_json(value: Any) -> Any:
    """A dataclass (or a part of one) as what `json.dumps` writes."""
    if is_dataclass(value) and not isinstance(value, type):
        made = {}
        for name, (item, _) in properties(type(value)).items():
            content = getattr(value, item.name)
            if item.metadata.get("sparse") and not content:
                continue
            write = item.metadata.get("write")
            made[name] = to_json(write(content) if write else content)
        return made
    if isinstance(value, (tuple, list)):
        return [to_json(one) for one in value]
    return value


def parse(kind: Any, text: bytes) -> Any:
    """An object from the text of a JSON file; ValueError says what is wrong with it."""
    content = json.loads(text.decode())
    fault = check(schema_of(kind), content)
    if fault is not None:
        raise ValueError(fault)
    return from_json(kind, content)


def from_json(kind: Any, value: Any, arrays: Mapping[str, np.ndarray] | None = None) -> Any:
    """What `to_json` has written, as a `kind`; `check` has accepted it.

    Args:
        kind: the type.
        value: as read from JSON.
        arrays: by the keys of `stored`; fields without an array keep their default.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return from_json(arguments[0], value, arrays)
    if origin in (Union, types.UnionType) and value is not None:
        return from_json(next(one for one in arguments if one is not type(None)), value, arrays)
    if origin in (tuple, list) and value is not None:
        return origin(from_json(arguments[0], one, arrays) for one in value)
    if not is_dataclass(kind) or not isinstance(kind, type):
        return value
    given = {}
    for name, (item, form) in properties(kind).items():
        if item.init and name in value and not item.metadata.get("array"):
            read, content = item.metadata.get("read"), value[name]
            if not read and not item.metadata.get("kind"):
                content = from_json(form, content, arrays)
            given[item.name] = read(content) if read else content
    for item in fields(kind):
        key = item.metadata.get("array")
        if key and arrays and key in arrays:
            given[item.name] = arrays[key]
    return kind(**given)


def arrays_in(value: Any) -> dict[str, np.ndarray]:
    """The arrays of a dataclass and of the dataclasses in it, by the keys of `stored`."""
    found = {}
    for item in fields(value):
        content = getattr(value, item.name)
        if isinstance(content, np.ndarray):
            found[item.metadata["array"]] = content
        elif is_dataclass(content):
            found.update(arrays_in(content))
    return found
