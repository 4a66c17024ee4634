# SPDX-License-Identifier: Apache-2.0
"""The table of operators: all that the importer knows, by ONNX name."""

from model_prep.onnx import (
    convert_conv,
    convert_elementwise,
    convert_pool,
    convert_views,
    fold,
)
from model_prep.onnx.lowering import Operator

_CONVERTED: dict[str, Operator] = {
    **convert_conv.OPERATORS,
    **convert_pool.OPERATORS,
    **convert_elementwise.OPERATORS,
    **convert_views.OPERATORS,
}
OPERATORS: dict[str, Operator] = {
    **_CONVERTED,
    "ConstantOfShape": Operator(fold.constant_of_shape, frozenset({"value"})),
    **{
        name: fold.folding(name, _CONVERTED.get(name), fold.CONSTANT_ONLY.get(name, frozenset()))
        for name in fold.FOLDS
    },
}
