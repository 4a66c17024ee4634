# SPDX-License-Identifier: Apache-2.0
"""Reads ONNX files (opset 7 to 22) into the Graph IR; docs/onnx.md lists what is supported.

The way of a file: `reader` (checked structure) -> `lowering` (nodes to operations, constants
folded, by the functions of `convolutions`, `windows`, `elementwise`, `pointwise`, `quantized`,
`views`, `parts` and `resizing`) -> `fuse` (operations to layers) -> `concats` (addressing rules of
the engine) -> `load` (Graph).
"""

from nuq.model_prep.onnx.load import ImportedNetwork, load_onnx

__all__ = ["ImportedNetwork", "load_onnx"]
