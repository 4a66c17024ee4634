# SPDX-License-Identifier: Apache-2.0
"""TensorProto to numpy, with every size checked before memory is taken.

External data is read only from regular files inside the model's folder.
"""

from math import prod
from pathlib import Path, PurePosixPath

import numpy as np
from onnx import TensorProto, numpy_helper

from formats.errors import UserError
from model_prep.onnx.limits import Budget
from model_prep.onnx.text import shown

FLOATS: dict[int, int] = {
    TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8, TensorProto.BFLOAT16: 2,
}  # fmt: skip
INTEGERS: dict[int, int] = {
    TensorProto.INT64: 8, TensorProto.INT32: 4, TensorProto.INT16: 2, TensorProto.INT8: 1,
    TensorProto.UINT64: 8, TensorProto.UINT32: 4, TensorProto.UINT16: 2, TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}  # fmt: skip
ITEM_BYTES: dict[int, int] = {**FLOATS, **INTEGERS}
FIELDS: dict[int, str] = {  # where values lie that are not raw bytes
    TensorProto.FLOAT: "float_data", TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data", TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}  # fmt: skip
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}


class TensorReader:
    """Turns the tensors of one file into arrays."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self._folder = folder.resolve()
        self._budget = budget

    def array(self, tensor: TensorProto, name: str) -> np.ndarray:
        """The tensor's values; bfloat16 becomes float32.

        Raises:
            UserError: unknown type, negative or absurd sizes, sizes that do not fit the data, or
                external data outside the model's folder.
        """
        what = f"tensor {shown(name)}"
        if tensor.data_type not in ITEM_BYTES:
            kinds = TensorProto.DataType
            known = tensor.data_type in kinds.values()
            found = kinds.Name(tensor.data_type) if known else tensor.data_type
            raise UserError(f"{what} must be of a float or integer type, not {found}")
        dims = tuple(int(dim) for dim in tensor.dims)
        if any(dim < 0 for dim in dims):
            raise UserError(f"{what} must have sizes of 0 or more, not {list(dims)[:8]}")
        if tensor.HasField("segment"):
            raise UserError(f"{what} must be whole, not a segment")
        elements, item = prod(dims), ITEM_BYTES[tensor.data_type]
        self._budget.take(elements * item, what)
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor = self._with_external(tensor, elements * item, what)
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != elements * item:
                raise UserError(
                    f"{what} must have {elements * item} bytes for its sizes, "
                    f"not {len(tensor.raw_data)}"
                )
        else:
            values = len(getattr(tensor, FIELDS.get(tensor.data_type, "int32_data")))
            if values != elements:
                raise UserError(f"{what} must have {elements} values for its sizes, not {values}")
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{what} must be readable: {shown(str(error))}") from None
        return array.astype(np.float32) if tensor.data_type == TensorProto.BFLOAT16 else array

    def _with_external(self, tensor: TensorProto, size: int, what: str) -> TensorProto:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        texts = all(isinstance(value, str) for value in entries.values())
        if not texts or set(entries) - EXTERNAL_KEYS or "location" not in entries:
            raise UserError(
                f"{what} must say a location for its external data, and nothing unknown"
            )
        path = self._external_path(entries["location"], what)
        offset = _number(entries.get("offset", "0"), what)
        length = _number(entries.get("length", str(size)), what)
        if length != size or offset + size > path.stat().st_size:
            raise UserError(
                f"{what} must have {size} bytes of external data for its sizes, but its file has "
                f"{path.stat().st_size} bytes and it names {length} from byte {offset}"
            )
        with path.open("rb") as file:
            file.seek(offset)
            raw = file.read(size)
        return TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)

    def _external_path(self, location: str, what: str) -> Path:
        parts = PurePosixPath(location)
        outside = UserError(
            f"{what} must have its external data inside the model's folder, not at "
            f"{shown(location)}"
        )
        if parts.is_absolute() or ".." in parts.parts or "\\" in location or "\0" in location:
            raise outside
        try:
            path = (self._folder / parts).resolve()
        except (OSError, RuntimeError):
            raise outside from None
        if not path.is_relative_to(self._folder):
            raise outside
        if not path.is_file():
            raise UserError(f"{what} must have its external data in the file {shown(location)}")
        return path


def _number(text: str, what: str) -> int:
    """A decimal number of at most 15 digits.

    >>> _number("4096", "tensor w")
    4096
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise UserError(f"{what} must have a number as external offset and length")
    return int(text)
