# SPDX-License-Identifier: Apache-2.0
"""Reads ONNX files (opset 7 to 22) into the Graph IR; docs/onnx.md lists what is supported.

The way of a file: `reader` (checked structure) -> `lowering` and the `convert_*` modules (nodes to
operations, constants folded) -> `fuse` (operations to layers) -> `concats` (addressing rules of the
engine) -> `emit` (Graph). May import onnx, numpy, torch and the Graph IR.
"""

from model_prep.onnx.load import ImportedNetwork, load_onnx

__all__ = ["ImportedNetwork", "load_onnx"]
