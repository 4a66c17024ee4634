# SPDX-License-Identifier: Apache-2.0
"""Files that are quantized already: QuantizeLinear and DequantizeLinear (QDQ), and QONNX's Quant.

Constants become what their integers stand for. Of a feature map only what saturation does stays in
the float network: codes that begin at 0 are a ReLU with an upper limit. Step and range of the codes
are kept (`Codes`), for a plan of uniform codes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nuq.model_prep.graph import Codes
from nuq.model_prep.onnx.lowering import Node, Result, folding, operator
from nuq.model_prep.onnx.operations import Finished, Op, UnsupportedError, Value
from nuq.model_prep.onnx.views import axis_index

LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}
ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of QONNX
    "ROUND": np.rint, "HALF_EVEN": np.rint, "CEIL": np.ceil, "FLOOR": np.floor,
    "ROUND_TO_ZERO": np.trunc, "DOWN": np.trunc,
}  # fmt: skip
WIDEST = 16  # bits of a code


@dataclass(frozen=True)
class Grid:
    """Scale and zero point as arrays that go with the tensor's sizes."""

    scale: np.ndarray  # float64, positive
    zero: np.ndarray  # float64, an integer

    def along(self, axis: int, shape: tuple[int, ...]) -> "Grid":
        """The same, so that they go with an array of `shape` along its axis."""
        if self.scale.size == 1:
            return Grid(self.scale.reshape(()), self.zero.reshape(-1)[:1].reshape(()))
        axis = axis_index(axis, len(shape))
        if self.scale.shape != (shape[axis],) or self.zero.size not in (1, self.scale.size):
            raise UnsupportedError(
                f"scale and zero point must be one number, or {shape[axis]} along axis {axis}"
            )
        dims = [1] * len(shape)
        dims[axis] = shape[axis]
        zero = np.broadcast_to(self.zero.reshape(-1), self.scale.shape)
        return Grid(self.scale.reshape(dims), zero.reshape(dims))


def _grid(node: Node) -> Grid:
    scale = node.weights(1).astype(np.float64)
    zero = node.constant(2) if node.has(2) else np.zeros(1)
    if not (scale > 0).all() or scale.size == 0:
        raise UnsupportedError("the scale must be positive")
    if not (np.isfinite(zero.astype(np.float64)).all() and (zero == np.rint(zero)).all()):
        raise UnsupportedError("the zero point must be an integer")
    if zero.size not in (1, scale.size):
        raise UnsupportedError("the zero point must be one number, or one for each scale")
    return Grid(scale, zero.astype(np.float64))


def _map(node: Node, value: Value, grid: Grid, low: float, high: float) -> Value:
    """A feature map with codes low..high, of which the zero point stands for 0."""
    if grid.scale.size > 1:
        raise UnsupportedError("a feature map must have one scale and one zero point", value.shape)
    scale, zero = float(grid.scale.reshape(-1)[0]), float(grid.zero.reshape(-1)[0])
    codes = Codes(scale, int(low - zero), int(high - zero))
    if not (codes.low <= 0 < codes.high):
        raise UnsupportedError(
            f"codes must include the value 0 and larger ones, not {codes.low}..{codes.high}"
        )
    if node.at_end and (codes.low < 0 or _nonnegative(value.op)):
        return value  # the host rounds nothing
    return node.op("quantize", value.op, axes=value.axes, codes=codes)


# of which no value is below 0 where none is of what they read
_KEEP_SIGN = ("maxpool", "avgpool", "concat", "select", "quantize", "lrn", "add", "mul")


def _nonnegative(op: Op) -> bool:
    """Whether no value can be below 0, before anything is fused."""
    stack, seen = [op], {op}
    while stack:
        one = stack.pop()
        if one.nonnegative or (one.codes and one.codes.low == 0):
            continue
        if one.kind not in _KEEP_SIGN:
            return False
        stack += [source for source in one.sources if source not in seen]
        seen.update(one.sources)
    return True


@operator("QuantizeLinear", ignored=("saturate", "output_dtype", "precision"))
def quantize(node: Node, *, axis: int = 1, block_size: int = 0) -> Result:
    """QuantizeLinear: integers of a constant, codes of a feature map."""
    if block_size:
        raise UnsupportedError("block_size must be 0")
    value, grid = node.value(), _grid(node)
    kind = str(node.constant(2).dtype) if node.has(2) else "uint8"
    if kind not in LIMITS:
        raise UnsupportedError(f"codes must be of {', '.join(LIMITS)}, not {kind}")
    if isinstance(value, Finished):
        return value
    if isinstance(value, Value):
        return _map(node, node.tensor(), grid, *LIMITS[kind])
    exact = node.weights(0).astype(np.float64)
    node.take(exact.nbytes)
    grid = grid.along(axis, exact.shape)
    with folding():
        return np.clip(np.rint(exact / grid.scale) + grid.zero, *LIMITS[kind]).astype(kind)


@operator("DequantizeLinear")
def dequantize(node: Node, *, axis: int = 1, block_size: int = 0) -> Result:
    """DequantizeLinear: what integers stand for, of a feature map the map itself."""
    if block_size:
        raise UnsupportedError("block_size must be 0")
    value, grid = node.value(), _grid(node)
    if isinstance(value, Finished):
        return value
    if isinstance(value, Value):
        codes = node.tensor().op.codes
        kind = str(node.constant(2).dtype) if node.has(2) else "uint8"
        zero = codes is not None and LIMITS.get(kind, (0, 0))[0] - codes.low
        if codes is not None and not (
            (grid.scale == codes.step).all() and (grid.zero == zero).all()
        ):
            raise UnsupportedError(
                "scale and zero point must be those of the QuantizeLinear before it", value.shape
            )
        return value
    if not np.issubdtype(value.dtype, np.integer):
        raise UnsupportedError(f"a constant must hold integers, not {value.dtype}")
    node.take(value.size * 8)
    grid = grid.along(axis, value.shape)
    with folding():
        return np.asarray((value - grid.zero) * grid.scale, np.float32)


@operator("Quant")
def quant(node: Node, *, signed: int = 1, narrow: int = 0, rounding_mode: str = "ROUND") -> Result:
    """QONNX's Quant: quantize and dequantize in one."""
    value, grid = node.value(), _grid(node)
    bits = node.number(3, "the bit width", 0)
    if bits != int(bits) or not 1 < bits <= WIDEST:
        raise UnsupportedError(f"the bit width must be 2 to {WIDEST}, not {bits:g}")
    if rounding_mode.upper() not in ROUNDING:
        raise UnsupportedError(f"rounding_mode must be one of {', '.join(ROUNDING)}")
    half = 1 << (int(bits) - 1)
    low, high = (narrow - half, half - 1) if signed else (0, 2 * half - 1 - narrow)
    if isinstance(value, Finished):
        return value
    if isinstance(value, Value):
        return _map(node, node.tensor(), grid, low, high)
    exact = node.weights(0).astype(np.float64)
    node.take(exact.nbytes)
    with folding():
        codes = ROUNDING[rounding_mode.upper()](exact / grid.scale + grid.zero)
        return np.asarray((np.clip(codes, low, high) - grid.zero) * grid.scale, np.float32)


@operator("BipolarQuant")
def bipolar(node: Node) -> Result:
    """QONNX's BipolarQuant of weights: -scale and scale."""
    value, scale = node.constant(0), node.weights(1)
    node.take(value.size * 8)
    with folding():
        return np.asarray(np.where(value >= 0, 1, -1) * scale, np.float32)
