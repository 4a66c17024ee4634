# SPDX-License-Identifier: Apache-2.0
"""Typed access to a node's attributes; a setting that nobody reads is refused, not ignored."""

from collections.abc import Collection

from onnx import AttributeProto, NodeProto, TensorProto

from formats.errors import UserError
from model_prep.onnx.text import shown


class UnsupportedError(UserError):
    """A node that the engine cannot run; the text says why, the caller adds which node.

    Attributes:
        dims: the sizes that its output would have, where they are known.
    """

    def __init__(self, reason: str, dims: tuple[int, ...] = ()) -> None:
        super().__init__(reason)
        self.dims = dims


class Attributes:
    """The attributes of one node."""

    def __init__(self, node: NodeProto) -> None:
        self._found: dict[str, AttributeProto] = {}
        for attribute in node.attribute:
            if attribute.name in self._found:
                raise UnsupportedError(f"attribute {shown(attribute.name)} must be given once only")
            if attribute.ref_attr_name:
                raise UnsupportedError(f"attribute {shown(attribute.name)} must not be a reference")
            self._found[attribute.name] = attribute

    def only(self, known: Collection[str]) -> None:
        """UnsupportedError where an attribute has none of these names."""
        unknown = sorted(shown(name) for name in self._found if name not in known)
        if unknown:
            raise UnsupportedError(f"attribute {unknown[0]} is not supported")

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return name in self._found

    def _get(self, name: str, kind: int) -> AttributeProto | None:
        attribute = self._found.get(name)
        if attribute is not None and attribute.type != kind:
            raise UnsupportedError(
                f"attribute {name} must be of type {AttributeProto.AttributeType.Name(kind)}"
            )
        return attribute

    def integer(self, name: str, default: int) -> int:
        """An int attribute."""
        attribute = self._get(name, AttributeProto.INT)
        return default if attribute is None else int(attribute.i)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An ints attribute, or None."""
        attribute = self._get(name, AttributeProto.INTS)
        return None if attribute is None else tuple(int(value) for value in attribute.ints)

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        attribute = self._get(name, AttributeProto.FLOAT)
        return default if attribute is None else float(attribute.f)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """A floats attribute, or None."""
        attribute = self._get(name, AttributeProto.FLOATS)
        return None if attribute is None else tuple(float(value) for value in attribute.floats)

    def string(self, name: str, default: str) -> str:
        """A string attribute."""
        attribute = self._get(name, AttributeProto.STRING)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def tensor(self, name: str) -> TensorProto | None:
        """A tensor attribute, or None."""
        attribute = self._get(name, AttributeProto.TENSOR)
        return None if attribute is None else attribute.t
